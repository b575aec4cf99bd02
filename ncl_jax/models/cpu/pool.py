"""Max pooling by the kernels of pool.cc: XLA's own gradient of it sorts out every window by itself."""

import jax

from ncl_jax.models import layers
from ncl_jax.models.cpu.library import call, lanes


def max_pool(x: jax.Array) -> jax.Array:
    """`layers.max_pool` by the kernels where they apply, by XLA otherwise; `library.load` must have succeeded."""
    return layers.max_pool(x) if x.dtype != "float32" or x.shape[-1] % lanes() or not x.size else pool(x)


@jax.custom_vjp
def pool(x: jax.Array) -> jax.Array:
    """Equivalent to `layers.max_pool` of float32 `[B, H, W, D]`; for reverse mode, once."""
    height, width = (-(-side // 2) for side in x.shape[1:3])
    return call("NclPool", (len(x), height, width, x.shape[-1]), x)


def _backward(saved, gradient):
    x, y = saved
    return (call("NclPoolGradient", x.shape, x, y, gradient),)


def _forward(x):
    y = pool(x)
    return y, (x, y)


pool.defvjp(_forward, _backward)
