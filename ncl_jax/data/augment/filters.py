"""Batched neighbourhood filters of uint8 images [B, H, W, 3], each equal to a Pillow filter.

Agreement with Pillow 13, tests/test_augment.py (largest difference in grey levels): smooth 0, gaussian_blur 1.
"""

import jax
import jax.numpy as jnp

MAX_SIGMA = 2.0  # beyond it the boxes of `gaussian_blur` would need more taps


def smooth(images: jax.Array) -> jax.Array:
    """`ImageFilter.SMOOTH` of uint8 [B, H, W, 3]: 3 x 3, centre 5 of 13, the border as it was."""
    values = images.astype(jnp.int32)
    columns = values[:, :-2] + values[:, 1:-1] + values[:, 2:]
    total = columns[:, :, :-2] + columns[:, :, 1:-1] + columns[:, :, 2:] + 4 * values[:, 1:-1, 1:-1]
    # A sum over 13 is never halfway between two levels, so float32 rounds it as exact arithmetic would.
    inner = jnp.floor(total.astype(jnp.float32) * jnp.float32(1 / 13) + 0.5).astype(jnp.uint8)
    return images.at[:, 1:-1, 1:-1].set(inner)


def gaussian_blur(images: jax.Array, sigma: jax.Array) -> jax.Array:
    """`ImageFilter.GaussianBlur(sigma)`: three extended box filters along each axis, edge pixels repeated.

    Pillow's approximation (Gwosdek et al., "Theoretical foundations of Gaussian convolution by extended box
    filtering", SSVM 2011), with grey levels stored after each of the six passes.

    Args:
      images: uint8 [B, H, W, 3].
      sigma: float32 [B], standard deviation in pixels, 0 to `MAX_SIGMA`.

    Returns:
      uint8 [B, H, W, 3].
    """
    weights = [weight[:, None, None, None] for weight in _box_weights(sigma)]
    values = images.astype(jnp.uint32)
    for axis in (2, 1):
        values = jax.lax.fori_loop(0, 3, lambda _, values, axis=axis: _box_pass(values, weights, axis), values)
    return values.astype(jnp.uint8)


def _box_pass(values, weights, axis):
    """One weighted mean over five neighbours along an axis, in Pillow's 24-bit fixed point."""
    length = values.shape[axis]
    padded = jnp.pad(values, [(2, 2) if i == axis else (0, 0) for i in range(values.ndim)], mode="edge")
    far, near, middle, near_after, far_after = [
        jax.lax.slice_in_dim(padded, start, start + length, axis=axis) for start in range(5)
    ]
    total = middle * weights[0] + (near + near_after) * weights[1] + (far + far_after) * weights[2]
    return (total + jnp.uint32(1 << 23)) >> 24


def _box_weights(sigma):
    """uint32 [B] three times: 24-bit weights of the middle, the next and the second next pixels of one box."""
    variance = sigma * sigma / 3.0  # of each pass
    whole = jnp.floor((jnp.sqrt(12.0 * variance + 1.0) - 1.0) / 2.0)  # 0 or 1
    part = (2.0 * whole + 1.0) * (whole * (whole + 1.0) - 3.0 * variance)
    part = part / (6.0 * (variance - (whole + 1.0) * (whole + 1.0)))
    full = (jnp.float32(1 << 24) / ((whole + part) * 2.0 + 1.0)).astype(jnp.uint32)
    wide = whole > 0
    edge = (jnp.uint32(1 << 24) - jnp.where(wide, 3, 1).astype(jnp.uint32) * full) // 2
    return full, jnp.where(wide, full, edge), jnp.where(wide, edge, jnp.uint32(0))
