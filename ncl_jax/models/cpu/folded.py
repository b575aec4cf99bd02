"""Inference by the kernels of folded.cc and dense.cc: convolutions with the batch normalisation, shortcut and ReLU that
follow them, and layers of single pixels or tokens with the layer normalisation before and the GELU after them."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ncl_jax.models.cpu.library import call, lanes

RELU = float(np.finfo(np.float32).max)  # the largest result; the least is 0
RELU6 = 6.0
NOTHING = -1.0  # neither
ACTS = {"": 0, "gelu": 1, "quick": 2}


class Weights(NamedTuple):
    """What a kernel multiplies with and adds.

    Attributes:
      weights: panels of columns, filled up with zeros, `[ceil(O / P), I, P]`, see affine.h; of minimal filtering
        `[16, O / P, I, P]`.
      bias: `[ceil(O / P) * P]`.
    """

    weights: np.ndarray | jax.Array
    bias: np.ndarray | jax.Array


def scaled(conv: dict, norm: dict, stats: dict, epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    """A convolution's kernel, and the bias that its batch normalisation adds in inference."""
    factor = norm["scale"] / np.sqrt(stats["var"] + epsilon)
    return conv["kernel"] * factor, norm["bias"] - stats["mean"] * factor


def panels(kernel: np.ndarray, bias: np.ndarray) -> Weights:
    """For `dense` and `convolve`: of a kernel `[..., O]`."""
    panel, flat = 2 * lanes(), kernel.reshape(-1, kernel.shape[-1])
    fill = -flat.shape[1] % panel
    flat, bias = np.pad(flat, ((0, 0), (0, fill))), np.pad(bias, (0, fill))
    return Weights(np.ascontiguousarray(flat.reshape(len(flat), -1, panel).transpose(1, 0, 2)), bias)


def filters(kernel: np.ndarray, stride: int) -> bool:
    """Whether minimal filtering computes a convolution."""
    return kernel.shape[:2] == (3, 3) and stride == 1 and not any(size % (2 * lanes()) for size in kernel.shape[2:])


def transformed(kernel: np.ndarray, bias: np.ndarray) -> Weights:
    """For `convolve` by the minimal filtering F(2x2, 3x3): of a kernel `[3, 3, I, O]`."""
    matrix = np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]) / 2
    tiles = np.einsum("ai,bj,ijxy->abxy", matrix, matrix, kernel.astype(float)).astype(np.float32)
    tiles = tiles.reshape(16, *kernel.shape[2:])
    return Weights(np.stack([panels(tile, bias).weights for tile in tiles]), bias)


def dense(
    x: jax.Array,
    by: Weights,
    outputs: int = 0,
    *,
    add: jax.Array | None = None,
    most: float = NOTHING,
    epsilon: float = 0.0,
    act: str = "",
) -> jax.Array:
    """`x [..., I]` to `[..., O]`: normalised where `epsilon` is not 0, times the weights, plus the bias and `add`, and
    activated.

    Args:
      x: float32.
      by: see `panels`.
      outputs: O; 0: all that there are.
      add: `[..., O]`.
      most: `RELU`, `RELU6` or `NOTHING`.
      epsilon: of a layer normalisation.
      act: a name of `ACTS`.
    """
    shape = (*x.shape[:-1], outputs or len(by.bias))
    numbers = {"epsilon": np.float32(epsilon), "most": np.float32(most)}
    return call("NclDense", shape, x, *by, _or_nothing(add), **numbers, act=ACTS[act])


def convolve(
    x: jax.Array,
    by: Weights,
    stride: int = 1,
    *,
    before: tuple[int, int] | None = None,
    add: jax.Array | None = None,
    most: float = NOTHING,
) -> jax.Array:
    """`x [B, H, W, I]` to `[B, ceil(H / stride), ceil(W / stride), O]`: convolved, plus bias and `add`, and clamped.

    Args:
      x: float32.
      by: see `panels`, or `transformed` where `filters` says so.
      stride: of both dimensions.
      before: zeros before the first row and column; None: half of the kernel.
      add, most: as for `dense`.
    """
    height, width = (-(-side // stride) for side in x.shape[1:3])
    shape, more = (len(x), height, width, len(by.bias)), _or_nothing(add)
    if by.weights.ndim == 4:
        return call("NclFiltered", shape, x, *by, more, most=np.float32(most))
    size = math.isqrt(by.weights.shape[1] // x.shape[-1])
    if size == stride == 1:
        return dense(x, by, add=add, most=most)
    before_y, before_x = before or (size // 2, size // 2)
    numbers = {"kernel_size": size, "stride": stride, "before_y": before_y, "before_x": before_x}
    return call("NclConvolved", shape, x, *by, more, **numbers, most=np.float32(most))


def _or_nothing(add):
    return jnp.zeros(0, jnp.float32) if add is None else add
