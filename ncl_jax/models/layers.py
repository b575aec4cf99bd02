"""Convolution and batch normalisation with PyTorch's conventions: explicit padding, unbiased running variance."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Dtype = jnp.dtype | type
Convolve = Callable[[jax.Array, jax.Array, int, int], jax.Array]
Depthwise = Callable[[jax.Array, jax.Array, int, tuple[tuple[int, int], ...]], jax.Array]
Sums = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]

kaiming_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
truncated = nn.initializers.truncated_normal(0.02)  # of transformers and ConvNeXt


def convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """XLA's 2-D cross-correlation: `x [B, H, W, I]`, `kernel [h, w, I / groups, O]` give `[B, H', W', O]`.

    `padding` zeros on each side at any `stride`, as PyTorch's. `cpu.OPERATIONS` has another.
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


def depthwise(x: jax.Array, kernel: jax.Array, stride: int, sides: tuple[tuple[int, int], ...]) -> jax.Array:
    """XLA's 2-D cross-correlation of each channel by itself: `x [B, H, W, D]`, `kernel [h, w, 1, D]`; `sides` zeros
    before and after each of both dimensions."""
    return lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(_shifted, stride=stride, sides=sides),
        default=functools.partial(grouped, stride=stride, sides=sides),
    )


def grouped(x: jax.Array, kernel: jax.Array, stride: int, sides: tuple[tuple[int, int], ...]) -> jax.Array:
    """`depthwise` as one grouped convolution, on every platform."""
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), sides, dimension_numbers=numbers, feature_group_count=x.shape[-1]
    )


def _shifted(x, kernel, *, stride, sides):
    """As a sum of shifted products: on CPU 10 to 50 times as fast as XLA's own operation."""
    x = jnp.pad(x, ((0, 0), *sides, (0, 0)))
    height, width = ((side - size) // stride for side, size in zip(x.shape[1:3], kernel.shape[:2], strict=True))

    def shift(i, j):
        return x[:, i : i + height * stride + 1 : stride, j : j + width * stride + 1 : stride]

    return sum(shift(i, j) * kernel[i, j, 0] for i in range(kernel.shape[0]) for j in range(kernel.shape[1]))


def sums(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """XLA's sums of `a` and of `a * b`, float32 `[..., D]` both, over all axes but the last: [D] each."""
    return lax.platform_dependent(a, a * b, cuda=_sums_at_once, default=_sums)


def _sums(*arrays):
    return tuple(jnp.sum(array, tuple(range(array.ndim - 1))) for array in arrays)


def _sums_at_once(*arrays):
    """As one reduction: a GPU's sums otherwise end in a kernel each; on a CPU these are slower."""
    zeros, axes = (np.float32(0),) * len(arrays), tuple(range(arrays[0].ndim - 1))
    return lax.reduce(arrays, zeros, lambda left, right: tuple(map(jnp.add, left, right)), axes)


def max_pool(x: jax.Array) -> jax.Array:
    """XLA's largest of every 3x3 window at a stride of 2, `[B, H, W, D]` to `[B, ceil(H / 2), ceil(W / 2), D]`."""
    sides = ((0, 0), (1, 1), (1, 1), (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), sides)


class Operations(NamedTuple):
    """What computes a network's costly operations: XLA, or on CPU our own kernels (`cpu.OPERATIONS`)."""

    convolve: Convolve = convolve
    sums: Sums = sums
    depthwise: Depthwise = depthwise
    max_pool: Callable[[jax.Array], jax.Array] = max_pool


XLA = Operations()
GROUPED = Operations(depthwise=grouped)  # the same on every platform


class Conv(nn.Module):
    """Convolution without bias, square kernel, `padding` zeros on each side at any stride, by default half of the
    kernel (as PyTorch's); each of `groups` parts of the outputs sees its own part of the inputs."""

    features: int
    kernel_size: int = 3
    stride: int = 1
    groups: int = 1
    dtype: Dtype = jnp.float32
    convolve: Convolve = convolve
    padding: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.kernel_size, self.kernel_size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", kaiming_normal, shape)
        padding = self.kernel_size // 2 if self.padding is None else self.padding
        return self.convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, padding)


class Patches(nn.Module):
    """A convolution whose stride is its kernel's side, without padding, as one matrix product: `[B, H, W, I]` gives
    `[B, H / size, W / size, features]`; rows and columns of pixels that fill no patch are ignored."""

    features: int
    size: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        kernel = self.param("kernel", truncated, (self.size, self.size, channels, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        rows, columns = (side // self.size for side in x.shape[1:3])
        x = x[:, : rows * self.size, : columns * self.size]
        x = x.reshape(x.shape[0], rows, self.size, columns, self.size, channels).swapaxes(2, 3)
        x = x.reshape(x.shape[0], rows, columns, self.size**2 * channels).astype(self.dtype)
        return x @ kernel.reshape(-1, self.features).astype(self.dtype) + bias.astype(self.dtype)


def layer_norm(epsilon: float, dtype: Dtype, name: str) -> nn.LayerNorm:
    """Layer normalisation as PyTorch's: means and variances in float32, the variance from the deviations."""
    return nn.LayerNorm(epsilon, dtype, use_fast_variance=False, name=name)


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
    0.1 towards the new value (Flax's own layer keeps the biased one). The statistics are those of the whole batch, over
    however many devices it is spread.
    """

    epsilon: float = 1e-5
    update: float = 0.1
    sums: Sums = sums

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        if not train:
            return _normalize(x, running_mean.value, running_var.value, scale, bias, self.epsilon)
        over = Everywhere(self.sums)
        y, mean, var = normalize(x, scale, bias, self.epsilon, over)
        if not self.is_initializing():
            count = over.numbers(x)
            new = running_average(running_mean.value, running_var.value, mean, var, count, self.update)
            running_mean.value, running_var.value = new
        return y


def running_average(
    mean: jax.Array, var: jax.Array, new_mean: jax.Array, new_var: jax.Array, count: float, update: float
) -> tuple[jax.Array, jax.Array]:
    """The running mean and unbiased variance [D] after a batch of `count` numbers whose `new_var` is biased."""
    unbiased = new_var * (count / max(count - 1, 1))
    return mean + update * (new_mean - mean), var + update * (unbiased - var)


def _sees_part():
    """Whether a device sees its own rows of a batch alone, rather than, as it seems, all (`experts.apply_experts`)."""
    return "data" in jax.sharding.get_abstract_mesh().manual_axes


def num_rows(x: jax.Array) -> int:
    """The rows of the whole batch that `x [B, ...]` is, or is a device's part of."""
    return len(x) * (lax.axis_size("data") if _sees_part() else 1)


def whole_sums(sums: Any) -> Any:
    """Sums over rows as those over the rows of the whole batch."""
    return lax.psum(sums, "data") if _sees_part() else sums


def own_copy(x: jax.Array) -> jax.Array:
    """What is the same on all devices as a device's own: the gradients of all are summed here, not further on."""
    return lax.pcast(x, "data", to="varying") if _sees_part() else x


class Everywhere(NamedTuple):
    """The numbers that a batch normalisation averages: those of all pixels. `packed.Grid` leaves some out."""

    sums: Sums = sums

    def keep(self, x: jax.Array) -> jax.Array:
        """`x` with zeros in place of what is dropped."""
        return x

    def numbers(self, x: jax.Array) -> float:
        """How many numbers of `x [..., D]` are averaged for each of the D."""
        return num_rows(x) * math.prod(x.shape[1:-1])

    def means(self, a: jax.Array, b: jax.Array) -> list[jax.Array]:
        """Of `a` and of `a * b`, float32 `[..., D]` both: [D] each."""
        return [total / self.numbers(a) for total in whole_sums(self.sums(a, b))]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def normalize(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, over: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Batch normalisation of `x [..., D]` in training, and the mean and the biased variance, float32 [D].

    The gradient, of the first alone, is written out: the formula's own takes more small sums, each of which costs a TPU
    as much as a large one (docs/accelerators.md).

    Args:
      x: of any precision; sums are float32.
      scale, bias: float32 [D].
      epsilon: added to the variance.
      over: what is averaged, see `Everywhere`.
    """
    return _normalize_forward(x, scale, bias, epsilon, over)[0]


def _normalize_forward(x, scale, bias, epsilon, over):
    wide = x.astype(jnp.float32)
    kept = over.keep(wide)
    # Both sums in one pass over x and, over devices, in one reduction, as in Flax's own layer: a convolution's
    # outputs lie close enough to 0 that the difference loses no digits that count.
    mean, square = over.means(kept, wide)
    var = jnp.maximum(square - jnp.square(mean), 0)
    return (_normalize(x, mean, var, scale, bias, epsilon), mean, var), (x, mean, var, scale)


def _normalize_backward(epsilon, over, saved, grads):
    (x, mean, var, scale), grad = saved, grads[0].astype(jnp.float32)
    wide, inverse = x.astype(jnp.float32), jax.lax.rsqrt(var + epsilon)
    share, product = over.means(grad, wide)  # what is left out has no gradient
    product = (product - mean * share) * inverse
    factor = scale * inverse
    slope = -factor * inverse * product
    grad_x = over.keep(factor * grad + slope * wide - (factor * share + slope * mean))
    count = over.numbers(x)
    return grad_x.astype(x.dtype), count * product, count * share


normalize.defvjp(_normalize_forward, _normalize_backward)


def _normalize(x, mean, var, scale, bias, epsilon):
    factor = scale * jax.lax.rsqrt(var + epsilon)
    return (x.astype(jnp.float32) * factor + (bias - mean * factor)).astype(x.dtype)
