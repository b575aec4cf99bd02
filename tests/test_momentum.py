"""The momentum encoder's arithmetic and the key queue against a plain deque."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ncl_jax.methods import momentum
from ncl_jax.training import optimizers


def parameters():
    return {
        "backbone": {"w": jnp.array([[1.0, 2.0], [3.0, 4.0]])},
        "classifier": {"w": jnp.array([7.0])},
        "projection": {"w": jnp.array([5.0, 6.0])},
    }


def scaled(factor):
    return jax.tree.map(lambda leaf: factor * leaf, parameters())


def test_the_encoder_starts_as_a_copy_of_the_selected_parts():
    optimizer = optax.chain(optimizers.sgd(0.1, momentum=0.9, weight_decay=0.0), momentum.momentum_encoder(0.9))
    encoder = optax.tree.get(optimizer.init(parameters()), "encoder")
    assert set(encoder) == {"backbone", "projection"}
    np.testing.assert_array_equal(encoder["backbone"]["w"], parameters()["backbone"]["w"])
    np.testing.assert_array_equal(encoder["projection"]["w"], parameters()["projection"]["w"])


@pytest.mark.parametrize("average,source", [("after", 1.5), ("before", 1.0)])
def test_one_step_of_the_average(average, source):
    """Updates of half the parameters: "after" averages 1.5 times them in, "before" the parameters themselves."""
    encoder = momentum.momentum_encoder(0.9, average=average)
    start = encoder.init(scaled(10.0))
    updates, state = encoder.update(scaled(0.5), start, parameters())
    for name in ("backbone", "projection"):
        expected = (0.9 * 10.0 + 0.1 * source) * np.asarray(parameters()[name]["w"])
        np.testing.assert_allclose(state.encoder[name]["w"], expected, rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, updates, scaled(0.5))


def test_default_averages_the_weights_after_the_optimizers_step():
    """In a chain with SGD: two steps against the arithmetic written out."""
    optimizer = optax.chain(optimizers.sgd(0.1, momentum=0.0, weight_decay=0.0), momentum.momentum_encoder(0.75))
    params, encoder = parameters(), np.array([5.0, 6.0])
    weights = encoder.copy()
    state = optimizer.init(params)
    for gradient in (2.0, -3.0):
        updates, state = optimizer.update(jax.tree.map(lambda p: jnp.full_like(p, gradient), params), state, params)  # noqa: B023
        params = optax.apply_updates(params, updates)
        weights = weights - 0.1 * gradient
        encoder = 0.75 * encoder + 0.25 * weights
        np.testing.assert_allclose(params["projection"]["w"], weights, rtol=1e-6)
        np.testing.assert_allclose(optax.tree.get(state, "encoder")["projection"]["w"], encoder, rtol=1e-6)


def test_frozen_parts_keep_their_first_value():
    encoder = momentum.momentum_encoder(0.9, frozen=("projection",))
    state = encoder.init(scaled(10.0))
    _, state = encoder.update(scaled(0.0), state, parameters())
    np.testing.assert_array_equal(state.encoder["projection"]["w"], scaled(10.0)["projection"]["w"])
    np.testing.assert_allclose(state.encoder["backbone"]["w"], 9.1 * parameters()["backbone"]["w"], rtol=1e-6)


def test_decay_zero_copies():
    encoder = momentum.momentum_encoder(0.0, parts=("classifier",))
    _, state = encoder.update(scaled(1.0), encoder.init(parameters()), parameters())
    np.testing.assert_array_equal(state.encoder["classifier"]["w"], [14.0])
    assert set(state.encoder) == {"classifier"}


def test_invalid_encoders_are_refused():
    for decay in (1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match=f"decay={decay}"):
            momentum.momentum_encoder(decay)
    with pytest.raises(ValueError, match="average='later'"):
        momentum.momentum_encoder(0.9, average="later")
    with pytest.raises(ValueError, match=r"frozen=.*head"):
        momentum.momentum_encoder(0.9, frozen=("head",))


@pytest.mark.parametrize("length,batch", [(6, 3), (7, 3), (5, 5), (3, 7), (2, 5), (1, 1)])
def test_the_queue_is_first_in_first_out(length, batch):
    """Against a deque: Q a multiple of B, not a multiple, equal, and smaller."""
    queue = momentum.init_queue(jax.random.key(0), 2, length, 4)
    model = [collections.deque(map(tuple, np.asarray(queue.keys[e])), maxlen=length) for e in range(2)]
    rng = np.random.default_rng(1)
    push = jax.jit(momentum.push)
    for _ in range(5):
        keys = rng.normal(size=(2, batch, 4)).astype(np.float32)
        queue = push(queue, keys)
        for e in range(2):
            normalised = keys[e] / np.linalg.norm(keys[e], axis=-1, keepdims=True)
            model[e].extend(map(tuple, normalised))
            # The row at `position` is the oldest.
            rows = np.roll(queue.keys[e], -int(queue.position), axis=0)
            np.testing.assert_allclose(rows, np.array(model[e]), atol=1e-6)
    assert queue.position.dtype == jnp.int32 and queue.keys.shape == (2, length, 4)


def test_the_queue_starts_with_different_unit_vectors():
    queue = momentum.init_queue(jax.random.key(0), 2, 50, 8)
    np.testing.assert_allclose(np.linalg.norm(queue.keys, axis=-1), 1, rtol=1e-6)
    assert len(np.unique(np.asarray(queue.keys).round(5).reshape(100, 8), axis=0)) == 100
    # Directions are spread over the sphere: uniform numbers in [0, 1) would have a mean of length 0.87.
    assert np.linalg.norm(queue.keys.mean(axis=(0, 1))) < 0.3
    with pytest.raises(ValueError, match="length 0"):
        momentum.init_queue(jax.random.key(0), 2, 0, 8)
