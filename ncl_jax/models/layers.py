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
    """XLA's 2-D cross-correlation: `x [B, H, W, I]`, `kernel [h, w, I / groups, O]` give `[B, H', W', O]`.

    `padding` zeros on each side at any `stride`, as PyTorch's. `cpu_conv.convolve` may take its place.
    """
    sides = ((padding, padding), (padding, padding))
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        sides,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1] // kernel.shape[2],
    )


class Conv(nn.Module):
    """Convolution without bias, square kernel, `kernel_size // 2` zeros on each side at any stride (as PyTorch's);
    each of `groups` parts of the outputs sees its own part of the inputs."""

    features: int
    kernel_size: int = 3
    stride: int = 1
    groups: int = 1
    dtype: Dtype = jnp.float32
    convolve: Convolve = convolve

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.kernel_size, self.kernel_size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", kaiming_normal, shape)
        return self.convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, self.kernel_size // 2)


def make_block(block: type[nn.Module], remat: bool) -> Callable[..., nn.Module]:
    """The block's class or, with `remat`, one that keeps nothing but its input and computes the rest again when the
    gradient is taken: less memory, more time, the same numbers."""
    return nn.remat(block, static_argnums=(2,)) if remat else block


class Parts:
    """The parts of a backbone in their order, the stem first; the first `freeze` of them stay as they are.

    A frozen part uses and keeps its running statistics, and no gradient enters it.
    """

    def __init__(self, freeze: int, train: bool):
        self._freeze, self._train = freeze, train

    def trains(self, number: int) -> bool:
        """Whether part `number` (the stem is 0) is in training mode."""
        return self._train and number >= self._freeze

    def leave(self, number: int, x: jax.Array) -> jax.Array:
        """`x`, the output of part `number`; of the last frozen part without a way back."""
        return lax.stop_gradient(x) if number + 1 == self._freeze else x


def part_of(name: str) -> int:
    """The part that a backbone's module belongs to: `conv1` and `bn1` to the stem, `layer2_0` to part 2."""
    return int(name.removeprefix("layer").partition("_")[0]) if name.startswith("layer") else 0


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
