"""The learning rate's schedules against the recipes' numbers, SGD against PyTorch's rule written in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ncl_jax.methods.ncl import ramp
from ncl_jax.training import optimizers


def test_cifar_schedule_in_the_recipes_numbers():
    rates = optimizers.learning_rates("step", 0.1, 400, warmup_epochs=5, milestones=(320, 360))
    assert rates.shape == (400,) and rates.dtype == np.float64
    epoch = lambda t: rates[t - 1]  # noqa: E731
    np.testing.assert_allclose([epoch(t) for t in range(1, 6)], [7 / 150, 0.06, 11 / 150, 13 / 150, 0.1], rtol=1e-12)
    np.testing.assert_allclose(epoch(1), 0.04667, atol=5e-6)
    assert set(rates[4:319]) == {0.1}
    np.testing.assert_allclose(rates[319:359], 0.01, rtol=1e-12)
    np.testing.assert_allclose(rates[359:], 0.001, rtol=1e-12)


def test_places_schedule():
    rates = optimizers.learning_rates("step", 0.02, 30, warmup_epochs=5, milestones=(10, 20))
    np.testing.assert_allclose(rates[[8, 9, 18, 19, 29]], [0.02, 0.002, 0.002, 0.0002, 0.0002], rtol=1e-12)


def test_cosine_schedule_ends_at_its_final_rate():
    rates = optimizers.learning_rates("cosine", 0.2, 200)
    np.testing.assert_allclose(rates[199], 1e-4, rtol=1e-12)
    np.testing.assert_allclose(rates[99], (0.2 + 1e-4) / 2, rtol=1e-12)
    np.testing.assert_allclose(rates[0], 1e-4 + 0.1999 * (1 + np.cos(np.pi / 200)) / 2, rtol=1e-12)
    assert np.all(np.diff(rates) < 0)
    warm = optimizers.learning_rates("cosine", 0.2, 200, warmup_epochs=5, final=0.01)
    np.testing.assert_allclose(warm[:4] / 0.2, [0.46667, 0.6, 0.73333, 0.86667], atol=1e-5)
    np.testing.assert_allclose(warm[4], 0.01 + 0.19 * (1 + np.cos(np.pi * 5 / 200)) / 2, rtol=1e-12)


def test_no_milestones_and_no_warmup_keep_the_base_rate():
    np.testing.assert_array_equal(optimizers.learning_rates("step", 0.3, 4), [0.3] * 4)


def test_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match=r"'linear'.*step.*cosine"):
        optimizers.learning_rates("linear", 0.1, 4)


def test_the_rate_changes_once_an_epoch():
    schedule = jax.jit(optimizers.per_epoch(np.array([0.3, 0.2, 0.1]), 4))
    rates = [float(schedule(jnp.int32(step))) for step in range(14)]
    np.testing.assert_allclose(rates, [0.3] * 4 + [0.2] * 4 + [0.1] * 6, rtol=1e-6)


def test_ramp():
    compiled = jax.jit(ramp, static_argnums=1)
    assert [float(compiled(jnp.int32(step), 300)) for step in (0, 300, 301, 10**6)] == [0.0, 1.0, 1.0, 1.0]
    np.testing.assert_allclose(compiled(jnp.int32(75), 300), 0.25, rtol=1e-6)


def torch_sgd(params, gradients, rates, momentum, weight_decay):
    """torch.optim.SGD with nesterov=True: the rate multiplies the whole step and does not enter the buffer."""
    buffers = [None] * len(params)
    for gradient, rate in zip(gradients, rates, strict=True):
        for i, (p, g) in enumerate(zip(params, gradient, strict=True)):
            g = g + weight_decay * p
            buffers[i] = g if buffers[i] is None else momentum * buffers[i] + g
            params[i] = p - rate * (g + momentum * buffers[i])
    return params


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_sgd_is_pytorchs_nesterov_with_coupled_decay(momentum):
    rng = np.random.default_rng(0)
    params = {"kernel": rng.normal(size=(3, 2)), "bias": rng.normal(size=2)}  # biases decay too
    gradients = [{name: rng.normal(size=p.shape) for name, p in params.items()} for _ in range(6)]
    rates = np.array([0.5, 0.1, 0.02])  # two steps each
    expected = torch_sgd(
        list(params.values()), [list(g.values()) for g in gradients], np.repeat(rates, 2), momentum, 0.05
    )
    optimizer = optimizers.sgd(optimizers.per_epoch(rates, 2), momentum=momentum, weight_decay=0.05)
    update = jax.jit(optimizer.update)
    ours = jax.tree.map(jnp.float32, params)
    state = optimizer.init(ours)
    for gradient in gradients:
        updates, state = update(jax.tree.map(jnp.float32, gradient), state, ours)
        ours = optax.apply_updates(ours, updates)
    np.testing.assert_allclose(ours["kernel"], expected[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ours["bias"], expected[1], rtol=1e-4, atol=1e-6)
