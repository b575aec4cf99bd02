"""Stacked experts: independent starts, and three strategies that compute the same."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_jit

from ncl_jax.models import experts, layers, make_network
from ncl_jax.runtime.devices import constrain_batch, make_mesh


def network(packed=False):
    return make_network(
        backbone="cifar_resnet",
        depth=8,
        width=4,
        classifier="linear",
        cosine_scale=16,
        num_classes=5,
        projection_dim=0,
        precision="float32",
        packed=packed,
    )


def images(seed=0, count=4):
    return jax.random.normal(jax.random.key(seed), (count, 8, 8, 3))


@pytest.fixture(scope="module")
def results():
    """By strategy: value, gradient, logits and new running statistics of three experts on one batch; and what computes
    them."""
    model, rng = network(), np.random.default_rng(0)
    shapes = jax.eval_shape(lambda x: experts.init_experts(model, jax.random.key(0), 3, x), images())
    draw = {"kernel": lambda x: 0.3 * x, "scale": lambda x: 1 + 0.3 * x, "bias": lambda x: 0.3 * x}
    draw |= {"mean": jnp.zeros_like, "var": jnp.ones_like}
    variables = jax.tree_util.tree_map_with_path(
        lambda path, leaf: draw[path[-1].key](jnp.float32(rng.normal(size=leaf.shape))), shapes
    )

    def compute(strategy, mesh=None):
        apply = experts.make_apply(network(packed=strategy == "packed"), strategy, mesh)
        constrain = constrain_batch(mesh)

        def loss(params):
            outputs, stats = apply(variables | {"params": params}, constrain(images()), True)
            # Weighted by expert and class: a permuted expert axis or a lost expert changes value and gradient.
            weights = jnp.arange(1.0, 4.0)[:, None, None] * jnp.arange(1.0, 6.0)
            return jnp.sum(weights * jnp.square(outputs["logits"])), (outputs["logits"], stats)

        return quick_jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])

    return variables, {strategy: compute(strategy) for strategy in experts.STRATEGIES}, compute


def assert_close(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for left, right in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5 * max(float(np.abs(right).max()), 1e-3))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["vmap", "packed"])
def test_strategies_agree_on_values_gradients_and_statistics(results, strategy):
    _, by_strategy, _ = results
    assert_close(by_strategy[strategy], by_strategy["unroll"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "mesh"),
    [("unroll", (4, 1)), ("vmap", (2, 3)), ("packed", (4, 1))],
)
def test_strategies_give_the_same_over_devices(results, strategy, mesh):
    """Values, gradients and running statistics: those of the whole batch, of which a device sees a part."""
    _, by_strategy, compute = results
    assert_close(compute(strategy, make_mesh(*mesh)), by_strategy["unroll"])


def test_unroll_equals_each_expert_alone(results):
    variables, by_strategy, _ = results
    (_, (logits, stats)), _ = by_strategy["unroll"]
    model = network()
    alone = quick_jit(lambda v: model.apply(v, images(), True, mutable=["batch_stats"]))
    for index in range(3):
        outputs, updates = alone(experts.take_expert(variables, index))
        np.testing.assert_allclose(logits[index], outputs["logits"], rtol=1e-5, atol=1e-5)
        assert_close(experts.take_expert(stats, index), updates["batch_stats"])
    assert np.abs(logits[0] - logits[1]).max() > 0.01


def test_training_moves_the_running_statistics_of_every_expert(results):
    variables, by_strategy, _ = results
    (_, (_, stats)), _ = by_strategy["unroll"]
    means = stats["backbone"]["bn1"]["mean"]
    assert variables["batch_stats"]["backbone"]["bn1"]["mean"].shape == means.shape == (3, 4)
    assert np.all(variables["batch_stats"]["backbone"]["bn1"]["mean"] == 0)
    assert np.abs(means).max(axis=1).min() > 0


@pytest.mark.parametrize("strategy", experts.STRATEGIES)
def test_one_expert_keeps_its_axis(strategy):
    variables = {"w": jnp.array([[2.0, 3.0]])}
    apply = lambda v, x: ({"out": v["w"] * x}, {"sum": v["w"].sum()})  # noqa: E731
    result, other = experts.apply_experts(apply, variables, jnp.array([1.0, 10.0]), strategy=strategy)
    np.testing.assert_array_equal(result["out"], [[2.0, 30.0]])
    np.testing.assert_array_equal(other["sum"], [5.0])


class OneLayer(nn.Module):
    """A network of one convolution: initialising a whole one takes seconds to compile."""

    @nn.compact
    def __call__(self, x, train):
        return layers.Conv(64)(jnp.tile(x, 16))  # 48 channels


def draw_kernels(seed, num_experts, count=4):
    variables = experts.init_experts(OneLayer(), jax.random.key(seed), num_experts, images(seed, count))
    return np.asarray(variables["params"]["Conv_0"]["kernel"])


def test_init_experts_draws_independent_networks_with_the_right_fan_in():
    """A stacked kernel drawn directly, [E, 3, 3, I, O], would count E into its fan-in."""
    kernel = draw_kernels(1, 3)
    assert kernel.shape == (3, 3, 3, 48, 64)
    np.testing.assert_allclose(kernel.std(axis=(1, 2, 3, 4)), np.sqrt(2 / (9 * 48)), rtol=0.02)
    correlations = np.corrcoef(kernel.reshape(3, -1)) - np.eye(3)
    assert np.abs(correlations).max() < 0.03


def test_init_experts_depends_on_the_key_and_not_on_the_images():
    first, again, other = (draw_kernels(*arguments) for arguments in ((0, 1, 4), (0, 1, 2), (1, 1, 4)))
    np.testing.assert_array_equal(first, again)
    assert first.shape[0] == 1 and np.abs(first - other).max() > 0.01


def test_invalid_arguments_name_the_value():
    with pytest.raises(ValueError, match="num_experts=0"):
        experts.init_experts(network(), jax.random.key(0), 0, images())
    with pytest.raises(ValueError, match=r"strategy='pmap' .*unroll.*vmap.*packed"):
        experts.apply_experts(lambda v, x: (x, v), {"w": jnp.zeros(2)}, jnp.zeros(2), strategy="pmap")
