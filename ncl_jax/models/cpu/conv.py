"""Convolutions by the kernels of conv.cc, several times as fast in training as XLA's own (docs/benchmarks.md): with all
channels and sides of ResNet-18 at 224 pixels, a step takes half the time that those up to 128 channels alone gave."""

import functools

import jax
import jax.numpy as jnp

from ncl_jax.models import layers
from ncl_jax.models.cpu.library import call, lanes

MOST_CHANNELS = 512  # the most that was timed
STRIDES = {3: (1, 2, 3), 1: (2,), 7: (2,)}  # by the kernel's side; XLA's 1x1 at a stride of 1 is a matrix product


def supports(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> bool:
    """Whether `conv` computes this convolution; what is wrong with it is left to XLA to say."""
    height, width, inputs, outputs = kernel.shape
    usual = height == width and padding == height // 2 and x.dtype == kernel.dtype == jnp.float32
    timed = stride in STRIDES.get(height, ())
    small = outputs % lanes() == 0 and max(inputs, outputs) <= MOST_CHANNELS
    return usual and timed and small and x.shape[-1] == inputs and min(*x.shape, outputs) > 0


def convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """`layers.convolve` by the kernels where they apply, by XLA otherwise; `library.load` must have succeeded."""
    if supports(x, kernel, stride, padding):
        return conv(x, kernel, stride)
    return layers.convolve(x, kernel, stride, padding)


def _forward(x, kernel, stride):
    height, width = (-(-side // stride) for side in x.shape[1:3])
    return call("NclConv", (len(x), height, width, kernel.shape[-1]), x, kernel, stride=stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Equivalent to `layers.convolve` padded by half a kernel, where `supports` says so; for reverse mode, once.

    Args:
      x: `[B, H, W, I]` float32.
      kernel: `[K, K, I, O]` float32.
      stride: of both dimensions.
    """
    return _forward(x, kernel, stride)


def _conv_forward(x, kernel, stride):
    return _forward(x, kernel, stride), (x, kernel)


def _conv_backward(stride, residuals, gradient):
    x, kernel = residuals
    dkernel = call("NclConvGradient", kernel.shape, x, gradient, stride=stride)
    size, fits = len(kernel), kernel.shape[2] % lanes() == 0
    if stride == 1 and fits:
        return _forward(gradient, kernel[::-1, ::-1].swapaxes(2, 3), 1), dkernel
    if stride == 2 and size <= 3 and fits:
        return call("NclConvImageGradient", x.shape, gradient, kernel.swapaxes(2, 3)), dkernel
    (dx,) = jax.linear_transpose(lambda x: layers.convolve(x, kernel, stride, size // 2), x)(gradient)
    return dx, dkernel


conv.defvjp(_conv_forward, _conv_backward)
