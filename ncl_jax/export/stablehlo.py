"""StableHLO by `jax.export`: one program with its weights, for CPU, CUDA and TPU and any number of images.

To use it: `jax.export.deserialize(bytearray(open(FILE, "rb").read())).call(images)`; that needs JAX and flatbuffers.
"""

import jax
import jax.numpy as jnp

from ncl_jax.export.artifact import Artifact

PLATFORMS = ("cpu", "cuda", "tpu")


def serialize(artifact: Artifact) -> bytes:
    """The serialized program: uint8 images `[B, H, W, 3]` in, probabilities float32 `[B, C]` out."""
    images = jax.ShapeDtypeStruct((*jax.export.symbolic_shape("batch"), *artifact.image_shape), jnp.uint8)
    return bytes(jax.export.export(jax.jit(artifact.predict), platforms=PLATFORMS)(images).serialize())
