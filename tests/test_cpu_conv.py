"""The CPU convolution equals XLA's plain one, value and both gradients, in every form that the networks use."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncl_jax.models import cpu_conv

# image side, channels in and out, kernel, stride, padding
SHAPES = [(8, 3, 16, 3, 1, 1), (8, 16, 16, 3, 1, 1), (7, 16, 16, 3, 1, 1), (8, 16, 32, 3, 2, 1), (7, 16, 16, 3, 2, 1),
          (8, 9, 12, 1, 1, 0), (8, 32, 16, 3, 1, 0)]  # fmt: skip


def values_and_gradients(function, x, kernel, stride, padding):
    padding = ((padding, padding), (padding, padding))

    def scalar(x, kernel):
        y = function(x, kernel, stride, padding)
        return jnp.sum(jnp.sin(y) * (1 + jnp.arange(y.size).reshape(y.shape) % 7)), y

    (_, y), gradients = jax.jit(jax.value_and_grad(scalar, (0, 1), has_aux=True))(x, kernel)
    return (y, *gradients)


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_plain_convolution(shape):
    side, inputs, outputs, size, stride, padding = shape
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(3, side, side, inputs)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(size, size, inputs, outputs)), jnp.float32) / inputs
    ours = values_and_gradients(cpu_conv.conv, x, kernel, stride, padding)
    plain = values_and_gradients(cpu_conv.plain, x, kernel, stride, padding)
    for one, other in zip(ours, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-6 * float(jnp.abs(other).max()))


def test_works_under_vmap_and_in_bfloat16():
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(2, 8, 8, 16)), jnp.bfloat16)
    kernels = jnp.asarray(rng.normal(size=(3, 3, 3, 16, 16)), jnp.bfloat16) / 16
    padding = ((1, 1), (1, 1))
    ours = jax.vmap(lambda k: cpu_conv.conv(x, k, 1, padding))(kernels)
    each = jnp.stack([cpu_conv.plain(x, k, 1, padding) for k in kernels])
    assert ours.dtype == jnp.bfloat16
    np.testing.assert_allclose(ours.astype(jnp.float32), each.astype(jnp.float32), atol=2e-2)
