"""Convolution and batch normalisation with PyTorch's conventions: explicit padding, unbiased running variance."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

Dtype = jnp.dtype | type
Convolve = Callable[[jax.Array, jax.Array, int, int], jax.Array]

kaiming_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """XLA's 2-D cross-correlation: `x [B, H, W, I]`, `kernel [h, w, I, O]` give `[B, H', W', O]`.

    `padding` zeros on each side at any `stride`, as PyTorch's. `cpu_conv.convolve` may take its place.
    """
    sides = ((padding, padding), (padding, padding))
    return lax.conv_general_dilated(x, kernel, (stride, stride), sides, dimension_numbers=("NHWC", "HWIO", "NHWC"))


class Conv(nn.Module):
    """Convolution without bias, square kernel, `kernel_size // 2` zeros on each side at any stride (as PyTorch's)."""

    features: int
    kernel_size: int = 3
    stride: int = 1
    dtype: Dtype = jnp.float32
    convolve: Convolve = convolve

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", kaiming_normal, shape)
        return self.convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, self.kernel_size // 2)


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, statistics in float32.

    Equivalent to PyTorch's: biased variance to normalise, *unbiased* variance in the running average, which moves by
    0.1 towards the new value (Flax's own layer keeps the biased one). Under `jit` with a sharded batch the statistics
    are those of the global batch.
    """

    epsilon: float = 1e-5
    update: float = 0.1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        if not train:
            return _normalize(x, running_mean.value, running_var.value, scale, bias, self.epsilon)
        axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
        wide = x.astype(jnp.float32)
        # Both sums in one pass over x and, over devices, in one reduction, as in Flax's own layer: a convolution's
        # outputs lie close enough to 0 that the difference loses no digits that count.
        mean = jnp.mean(wide, axes)
        var = jnp.maximum(jnp.mean(jnp.square(wide), axes) - jnp.square(mean), 0)
        if not self.is_initializing():
            running_mean.value += self.update * (mean - running_mean.value)
            running_var.value += self.update * (var * (count / max(count - 1, 1)) - running_var.value)
        return _normalize(x, mean, var, scale, bias, self.epsilon)


def _normalize(x, mean, var, scale, bias, epsilon):
    factor = scale * jax.lax.rsqrt(var + epsilon)
    return (x.astype(jnp.float32) * factor + (bias - mean * factor)).astype(x.dtype)
