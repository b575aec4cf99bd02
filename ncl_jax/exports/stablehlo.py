"""StableHLO by `jax.export`: one program with its weights, for CPU, CUDA and TPU and any number of images.

To use it: `jax.export.deserialize(bytearray(open(FILE, "rb").read())).call(images)`; that needs JAX alone.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

PLATFORMS = ("cpu", "cuda", "tpu")


def serialize(predict: Callable[[jax.Array], jax.Array], image_shape: tuple[int, int, int]) -> bytes:
    """The serialized program of `predict`, a function of uint8 images `[B, H, W, 3]`."""
    images = jax.ShapeDtypeStruct((*jax.export.symbolic_shape("batch"), *image_shape), jnp.uint8)
    return bytes(jax.export.export(jax.jit(predict), platforms=PLATFORMS)(images).serialize())
