"""The packed form of the CIFAR ResNet: the plain network's numbers, for any side of the images and any width."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_jit

from ncl_jax.models import packed
from ncl_jax.models.cifar_resnet import CifarResNet


def outcomes(model, variables, images, weights):
    """Features, new statistics and the gradient of a weighted sum."""

    def loss(params):
        outputs, updates = model.apply(variables | {"params": params}, images, True, mutable=["batch_stats"])
        return jnp.sum(outputs * weights), (outputs, updates)

    return quick_jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])


# The second's shifted grids reach half a block beyond the image; 10 halves to 5, which no block divides.
@pytest.mark.slow
@pytest.mark.parametrize(("width", "side", "batch"), [(16, 16, 3), (4, 20, 2), (8, 10, 3), (8, 9, 2)])
def test_equals_the_plain_network(width, side, batch):
    rng = np.random.default_rng(side)
    images = jnp.asarray(rng.normal(size=(batch, side, side, 3)), jnp.float32)
    plain, blocks = CifarResNet(8, width), packed.PackedCifarResNet(8, width)
    shapes = jax.eval_shape(lambda: plain.init(jax.random.key(0), images, False))
    assert shapes == jax.eval_shape(lambda: blocks.init(jax.random.key(0), images, False))
    variables = jax.tree.map(lambda s: jnp.asarray(0.3 * rng.normal(size=s.shape) + 0.1, jnp.float32), shapes)
    weights = rng.normal(size=(batch, 4 * width)).astype(np.float32)
    expected, found = (outcomes(model, variables, images, weights) for model in (plain, blocks))
    assert jax.tree.structure(expected) == jax.tree.structure(found)
    for one, other in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(other, one, rtol=2e-4, atol=2e-5 * float(np.abs(one).max()))


def test_blocks_fill_the_lanes():
    assert [packed.make_grid(*shape).block for shape in ((32, 16), (16, 32), (8, 64))] == [(2, 4), (2, 2), (1, 2)]
    assert packed.make_grid(7, 16).block == (1, 1)
    assert packed.make_grid(8, 256).block == (1, 1)


def test_shifted_blocks_begin_half_a_block_early():
    grid = packed.Grid(4, (2, 4), shifted=True)
    images = jnp.arange(1.0, 17.0).reshape(1, 4, 4, 1)
    blocks = packed.to_blocks(images, grid)
    assert blocks.shape == (1, *grid.counts, grid.pixels) == (1, 3, 2, 8)
    np.testing.assert_array_equal(blocks[0, 0, 0], [0, 0, 0, 0, 0, 0, 1, 2])
    np.testing.assert_array_equal(blocks[0, 1, 1], [7, 8, 0, 0, 11, 12, 0, 0])
    np.testing.assert_array_equal(blocks[0] > 0, grid.inside())


@pytest.mark.slow
def test_a_frozen_network_and_one_in_use_are_the_plain_one():
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 3)), jnp.float32)
    plain, blocks = CifarResNet(8, 4), packed.PackedCifarResNet(8, 4)
    variables = plain.init(jax.random.key(0), images, False)
    np.testing.assert_array_equal(blocks.apply(variables, images, False), plain.apply(variables, images, False))
    frozen = [type(model)(8, 4, freeze=2) for model in (plain, blocks)]
    one, other = (model.apply(variables, images, True, mutable=["batch_stats"])[0] for model in frozen)
    np.testing.assert_array_equal(one, other)
