"""Batched colour augmentation of uint8 images, each function equal to the Pillow call that its docstring names.

Everything works image by image, so a batch sharded over devices needs no communication, and takes one magnitude per
image. Shapes: B images of H rows and W columns. Pillow's operations on single channels are look-up tables
(`*_table`, `apply_table`), its enhancements are blends of the image with a degenerate version of it (`blend`).

Agreement with Pillow 13, tests/test_augment.py (largest difference in grey levels):
posterize, solarize, autocontrast, equalize, invert, color, contrast, brightness, sharpness, hue, grayscale 0.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

GREYS = 256


def grayscale(images: jax.Array) -> jax.Array:
    """`Image.convert("L")` on all three channels of uint8 [B, H, W, 3]."""
    return jnp.broadcast_to(luma(images)[..., None], images.shape)


def apply_table(images: jax.Array, table: jax.Array) -> jax.Array:
    """Maps each grey level of uint8 [B, H, W, 3] through its channel's uint8 table [B, 3 or 1, 256]."""
    batch, _, _, channels = images.shape
    table = jnp.broadcast_to(table, (batch, channels, GREYS)).reshape(batch, channels * GREYS)
    index = images.astype(jnp.int32) + _first_bins(channels)
    mapped = jnp.take_along_axis(table, index.reshape(batch, -1), axis=1, mode="promise_in_bounds")
    return mapped.reshape(images.shape)


def _first_bins(channels):
    """int32 [1, 1, 1, channels]: where each channel starts in a table of all channels."""
    return GREYS * jnp.arange(channels, dtype=jnp.int32)[None, None, None, :]


def identity_table() -> jax.Array:
    """uint8 [1, 1, 256]: changes nothing."""
    return _greys().astype(jnp.uint8)


def _greys():
    return jnp.arange(GREYS, dtype=jnp.int32)[None, None, :]


def posterize_table(bits: jax.Array) -> jax.Array:
    """uint8 [B, 1, 256] for bits int32 [B]."""
    mask = jnp.left_shift(jnp.int32(255), 8 - bits)[:, None, None]
    return (_greys() & mask).astype(jnp.uint8)


def solarize_table(threshold: jax.Array) -> jax.Array:
    """uint8 [B, 1, 256] for threshold int32 [B]."""
    grey = _greys()
    return jnp.where(grey < threshold[:, None, None], grey, 255 - grey).astype(jnp.uint8)


def solarize_add_table(added: jax.Array) -> jax.Array:
    """uint8 [B, 1, 256] for added int32 [B]: added to the levels below 128, at most 255 (timm's `solarize_add`)."""
    grey = _greys()
    return jnp.where(grey < 128, jnp.minimum(grey + added[:, None, None], 255), grey).astype(jnp.uint8)


def autocontrast_table(images: jax.Array) -> jax.Array:
    """uint8 [B, 3, 256] from the darkest and the lightest level of each channel of uint8 [B, H, W, 3]."""
    low = images.min(axis=(1, 2)).astype(jnp.int32)[..., None]  # [B, 3, 1]
    high = images.max(axis=(1, 2)).astype(jnp.int32)[..., None]
    grey = _greys()
    scaled = 255 * jnp.clip(grey - low, 0, high - low)
    span = jnp.maximum(high - low, 1)
    exact = _floor_divide(scaled, span)
    short = jnp.asarray(_autocontrast_shortfall())[low, high] >> (exact // 15).astype(jnp.uint32)
    stretched = exact - jnp.where(exact * span == scaled, (short & 1).astype(jnp.int32), 0)
    return jnp.where(high > low, stretched, grey).astype(jnp.uint8)


@functools.cache
def _autocontrast_shortfall():
    """uint32 [256, 256] by (low, high): which whole results Pillow's float64 arithmetic drops by one level.

    Pillow computes int(grey * scale - low * scale) with scale = 255 / (high - low). Where the exact value is a whole
    number, rounding may leave the float below it. Those values are multiples of 255 / gcd(255, high - low). With the
    greater divisors 51, 85 and 255 it never does (a test compares all pairs), so they are at least 15 apart, and bit n
    stands for the one in [15 n, 15 n + 15).
    """
    table = np.zeros((GREYS, GREYS), np.uint32)
    low, high = np.triu_indices(GREYS, 1)
    for common in (1, 3, 5, 15, 17):
        chosen = np.gcd(255, high - low) == common
        darkest, lightest = low[chosen, None], high[chosen, None]
        grey = darkest + np.arange(common + 1) * (lightest - darkest) // common
        scale = 255.0 / (lightest - darkest)
        exact = np.arange(common + 1) * (255 // common)
        short = (grey * scale + -darkest * scale).astype(np.int64) < exact
        table[low[chosen], high[chosen]] = np.where(short, 1 << (exact // 15), 0).sum(axis=1)
    return table


def equalize_table(images: jax.Array) -> jax.Array:
    """uint8 [B, 3, 256] from the histogram of each channel of uint8 [B, H, W, 3]."""
    counts = histogram(images)
    pixels = images.shape[1] * images.shape[2]
    below = jnp.cumsum(counts, axis=-1) - counts
    # The last occupied level is the one with every other pixel below it.
    step = below.max(axis=-1, keepdims=True, where=counts > 0, initial=0) // 255
    level = _floor_divide(step // 2 + below, jnp.maximum(step, 1))
    usable = (step > 0) & (counts.max(axis=-1, keepdims=True) < pixels)
    return jnp.where(usable, jnp.minimum(level, 255), _greys()).astype(jnp.uint8)


def _floor_divide(numerator, denominator):
    """Exact quotient of int32 arrays, positive and below 2 ** 22, several times faster than integer division."""
    # The half keeps the quotient clear of whole numbers, so that no division's rounding can move it across one.
    return jnp.floor((numerator.astype(jnp.float32) + 0.5) / denominator.astype(jnp.float32)).astype(jnp.int32)


def histogram(images: jax.Array) -> jax.Array:
    """int32 [B, 3, 256]: how often each grey level occurs in each channel of uint8 [B, H, W, 3]."""
    batch, _, _, channels = images.shape
    bins = images.astype(jnp.int32) + _first_bins(channels)

    def count(bins):
        return jnp.zeros(channels * GREYS, jnp.int32).at[bins].add(1, mode="promise_in_bounds")

    return jax.vmap(count)(bins.reshape(batch, -1)).reshape(batch, channels, GREYS)


def blend(degenerate: jax.Array, images: jax.Array, factor: jax.Array) -> jax.Array:
    """`Image.blend(degenerate, image, factor)`: degenerate + factor * (image - degenerate), truncated and clipped.

    Args:
      degenerate: uint8, broadcast against the images.
      images: uint8 [B, H, W, 3].
      factor: float32 [B].

    Returns:
      uint8 [B, H, W, 3].
    """
    degenerate = degenerate.astype(jnp.float32)
    change = factor[:, None, None, None] * (images.astype(jnp.float32) - degenerate)
    # Pillow rounds the product before it adds. The bound, which no product reaches, keeps the compiler from fusing
    # the two into one multiply-add without that rounding, which moves four values in a thousand by one level.
    change = jnp.minimum(change, 1e6)
    return jnp.clip(degenerate + change, 0.0, 255.0).astype(jnp.uint8)


def luma(images: jax.Array) -> jax.Array:
    """uint8 [B, H, W]: `Image.convert("L")` of uint8 [B, H, W, 3], ITU-R 601-2 luma in 16-bit fixed point."""
    red, green, blue = jnp.moveaxis(images.astype(jnp.int32), -1, 0)
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).astype(jnp.uint8)


def mean_grey(images: jax.Array) -> jax.Array:
    """uint8 [B, 1, 1, 1]: the rounded mean luma of uint8 [B, H, W, 3], with H * W up to 4 million pixels."""
    pixels = images.shape[1] * images.shape[2]
    total = luma(images).astype(jnp.int32).sum(axis=(1, 2))
    return ((2 * total + pixels) // (2 * pixels)).astype(jnp.uint8)[:, None, None, None]


def hue(images: jax.Array, shift: jax.Array) -> jax.Array:
    """Turns the hue as torchvision's `adjust_hue` does on a Pillow image: through `convert("HSV")` and back.

    Args:
      images: uint8 [B, H, W, 3].
      shift: int32 [B], in 1/255 of a full turn (torchvision truncates 255 * hue_factor towards zero).

    Returns:
      uint8 [B, H, W, 3].
    """
    angle, saturation, value = _to_hsv(images)
    return _from_hsv((angle + shift[:, None, None]) & 255, saturation, value)


def _to_hsv(images):
    """int32 [B, H, W] three times: `Image.convert("HSV")` of uint8 [B, H, W, 3]."""
    red, green, blue = jnp.moveaxis(images.astype(jnp.int32), -1, 0)
    value = jnp.maximum(jnp.maximum(red, green), blue)
    span = value - jnp.minimum(jnp.minimum(red, green), blue)
    sector = jnp.where(red == value, 0, jnp.where(green == value, 1, 2))
    # Of the two channels after the largest one in the order red, green, blue, one is `span` below it.
    after = jnp.where(sector == 0, green, jnp.where(sector == 1, blue, red))
    before = jnp.where(sector == 0, blue, jnp.where(sector == 1, red, green))
    falling = (value - before != span).astype(jnp.int32)
    other = value - jnp.where(falling == 1, before, after)
    hues, saturations = _hsv_tables()
    angle = jnp.asarray(hues).astype(jnp.int32)[2 * sector + falling, span, other]
    return angle, jnp.asarray(saturations).astype(jnp.int32)[span, value], value


@functools.cache
def _hsv_tables():
    """Pillow's mixed float32 and float64 conversion to HSV, tabulated because its truncation shows every rounding.

    Returns:
      hue uint8 [6, 256, 256] by (twice the largest channel, plus one where the channel after it is the smallest;
      largest minus smallest; largest minus middle) and saturation uint8 [256, 256] by (largest minus smallest,
      largest).
    """
    span = np.arange(GREYS, dtype=np.float32)[:, None]
    other = np.arange(GREYS, dtype=np.float32)[None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.where((span > 0) & (other <= span), other / span, 0).astype(np.float64)
        saturation = np.where((span > 0) & (span <= other), span / other, 0).astype(np.float64)
    angles = [2.0 * sector + turn for sector in range(3) for turn in (1.0 - part, part - 1.0)]
    turns = np.fmod(np.asarray(angles, np.float32).astype(np.float64) / 6.0 + 1.0, 1.0).astype(np.float32)
    hues = (turns.astype(np.float64) * 255.0).astype(np.uint8) * (span > 0).astype(np.uint8)
    return hues, (saturation * 255.0).astype(np.uint8)


def _from_hsv(angle, saturation, value):
    """uint8 [B, H, W, 3]: `Image.convert("RGB")` of int32 [B, H, W] three times."""
    sector = 2 * angle // 85  # 0 to 6: 255 is a whole turn
    part = 2 * angle - 85 * sector  # of 85

    def scaled(loss):  # value * (1 - loss / (255 * 85)) rounded, which is never halfway
        number = (value * (255 * 85 - loss)).astype(jnp.uint32)
        return ((2 * number + 255 * 85) // jnp.uint32(2 * 255 * 85)).astype(jnp.int32)

    low, falling, rising = scaled(85 * saturation), scaled(saturation * part), scaled(saturation * (85 - part))
    sector = sector % 6

    def pick(*choices):
        return functools.reduce(lambda rest, i: jnp.where(sector == i, choices[i], rest), range(5), choices[5])

    red = pick(value, falling, low, low, rising, value)
    green = pick(rising, value, value, falling, low, low)
    blue = pick(low, low, rising, value, value, falling)
    return jnp.stack([red, green, blue], axis=-1).astype(jnp.uint8)
