"""RandAugment as the ImageNet-LT and iNaturalist recipes configure it: timm's `rand-n2-m10-mstd0.5`.

Cubuk et al., "RandAugment" (arXiv 1909.13719), in the form of timm's program, which published figures were made with:
two draws with replacement from fifteen operations, each applied with probability one half, at a level that is drawn
anew each time from a normal distribution around 10 with deviation 0.5, and at most 10. Geometric operations show a fill
colour outside the image and interpolate bilinearly or bicubically, chosen at random each time.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ncl_jax.data.augment import geometry, operations, policies

NUM_OPERATIONS, PROBABILITY, LEVEL, DEVIATION, HIGHEST = 2, 0.5, 10.0, 0.5, 10.0
FILL = (124, 116, 104)
OPERATIONS = tuple(name for name in policies.OPERATIONS if name != "identity")


class Draw(NamedTuple):
    """One operation for each image; every field [B]."""

    operation: jax.Array  # int32, index into `policies.OPERATIONS`
    level: jax.Array  # float32, 0 to 10
    sign: jax.Array  # float32, -1 or 1, of geometric operations
    cubic: jax.Array  # bool: bicubic rather than bilinear


def random_augment(key: jax.Array, images: jax.Array) -> jax.Array:
    """Two random operations on each image of uint8 [B, H, W, 3]."""
    # A loop, because the compiler would otherwise fuse the first operation into every use of its result.
    draws = jax.tree.map(lambda values: values.T, draw(key, images.shape[0]))  # [2, B]
    return jax.lax.scan(lambda images, draw: (apply_operation(images, draw), None), images, draws)[0]


def draw(key: jax.Array, batch: int) -> Draw:
    """The operations of a batch: fields [B, 2]."""
    key_uniform, key_normal = jax.random.split(key)
    uniform = jax.random.uniform(key_uniform, (batch, 4, NUM_OPERATIONS))
    chosen = jnp.floor(uniform[:, 0] * len(OPERATIONS)).astype(jnp.int32)
    number = jnp.asarray([policies.OPERATIONS.index(name) for name in OPERATIONS])[chosen]
    operation = jnp.where(uniform[:, 1] < PROBABILITY, number, policies.OPERATIONS.index("identity"))
    level = LEVEL + DEVIATION * jax.random.normal(key_normal, (batch, NUM_OPERATIONS))
    sign = jnp.where(uniform[:, 2] < 0.5, 1.0, -1.0)
    return Draw(operation, jnp.clip(level, 0, HIGHEST), sign, uniform[:, 3] < 0.5)


def apply_operation(images: jax.Array, draw: Draw) -> jax.Array:
    """Applies one operation to each image of uint8 [B, H, W, 3]; see METHODS in timm's `auto_augment.py` for levels."""
    share = draw.level / HIGHEST
    blend = jnp.isin(draw.operation, jnp.asarray([policies.OPERATIONS.index(name) for name in policies.BLEND]))
    warped = geometry.affine(images, matrix(draw, *images.shape[1:3]), draw.cubic, FILL)
    return operations.combine(
        images,
        draw.operation,
        warped,
        bits=(share * 4).astype(jnp.int32),
        threshold=(share * 256).astype(jnp.int32),
        added=(share * 110).astype(jnp.int32),
        factors=jnp.where(blend, share * 1.8 + 0.1, 1.0),
    )


def matrix(draw: Draw, height: int, width: int) -> jax.Array:
    """float32 [B, 6]: Pillow's output-to-input matrix (a, b, c, d, e, f) of a geometric operation, else the identity.

    Rotation by up to 30 degrees about the centre, shear by up to 0.3, translation by up to 0.45 of the side.
    """
    amount = draw.sign * draw.level / HIGHEST

    def where(name, value):
        return jnp.where(draw.operation == policies.OPERATIONS.index(name), value, 0.0)

    angle = where("rotate", -math.radians(30) * amount)
    cos, sin, x, y = jnp.cos(angle), jnp.sin(angle), width / 2, height / 2
    return jnp.stack([
        cos, sin + where("shear_x", 0.3 * amount), x - cos * x - sin * y + where("translate_x", 0.45 * width * amount),
        where("shear_y", 0.3 * amount) - sin, cos, y + sin * x - cos * y + where("translate_y", 0.45 * height * amount),
    ], axis=-1)  # fmt: skip
