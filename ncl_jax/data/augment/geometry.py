"""Batched geometric augmentation of uint8 images, each function equal to the Pillow call that its docstring names.

Everything works image by image, so a batch sharded over devices needs no communication, and takes one magnitude per
image. Shapes: B images of H rows and W columns.

Agreement with Pillow 13, tests/test_augment.py (largest difference in grey levels):
crop, flip, translate_x, translate_y, rotate 0; shear_x, shear_y 1; resized_crop 1; affine 1, but for
a pixel at the very edge.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ncl_jax.data.augment import policies

FILL = 128  # grey that shear, translate and rotate show outside the image


def crop(images: jax.Array, top: jax.Array, left: jax.Array, padding: int) -> jax.Array:
    """Cuts H x W out of the images padded with zeros; equals `ImageOps.expand(border=padding)` and `Image.crop`.

    Args:
      images: uint8 [B, H, W, 3].
      top, left: int32 [B], the corner in the padded image, 0 to 2 * padding.
      padding: pixels added on each side.

    Returns:
      uint8 [B, H, W, 3].
    """
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    rows = _one_of(top, [padded[:, y : y + images.shape[1]] for y in range(2 * padding + 1)])
    return _one_of(left, [rows[:, :, x : x + images.shape[2]] for x in range(2 * padding + 1)])


def _one_of(index, choices):
    """Each image's own choice, by int32 [B]. All are looked at: a TPU would gather from one image after the other."""
    index = index[:, None, None, None]
    return functools.reduce(lambda rest, i: jnp.where(index == i, choices[i], rest), range(1, len(choices)), choices[0])


def flip(images: jax.Array, mask: jax.Array) -> jax.Array:
    """Mirrors left and right where mask (bool [B]) is set; equals `Image.transpose(FLIP_LEFT_RIGHT)`."""
    return jnp.where(mask[:, None, None, None], images[:, :, ::-1], images)


def cutout(images: jax.Array, center_y: jax.Array, center_x: jax.Array, size: int) -> jax.Array:
    """Sets one square of each image to zero (DeVries and Taylor, arXiv 1708.04552).

    Args:
      images: [B, H, W, 3] of any dtype.
      center_y, center_x: int32 [B], anywhere in the image; what lies outside the image is cut off the square.
      size: side of the square in pixels, even.

    Returns:
      [B, H, W, 3] with the images' dtype.
    """
    rows = _within_square(images.shape[1], center_y, size)
    columns = _within_square(images.shape[2], center_x, size)
    hole = rows[:, :, None, None] & columns[:, None, :, None]
    return jnp.where(hole, jnp.zeros((), images.dtype), images)


def _within_square(length, center, size):
    offset = jnp.arange(length, dtype=jnp.int32)[None, :] - center[:, None]  # [B, length]
    return (offset >= -(size // 2)) & (offset < size // 2)


def warp(images: jax.Array, operation: jax.Array, level: jax.Array, sign: jax.Array) -> jax.Array:
    """Applies one geometric AutoAugment operation to each image; images of any other operation stay as they are.

    A shear moves whole rows (or columns) by a fraction of a pixel, so Pillow's 4 x 4 bicubic neighbourhood has weight
    along one axis only: four taps do, and with fraction 0 the second tap alone is the nearest-neighbour sample that
    translation and rotation need.

    Args:
      images: uint8 [B, H, W, 3].
      operation: int32 [B], index into `policies.OPERATIONS`.
      level: int32 [B], magnitude level, 0 to 9.
      sign: int32 [B], -1 or 1.

    Returns:
      uint8 [B, H, W, 3]; pixels that come from outside the image are `FILL`.
    """
    batch, height, width, _ = images.shape
    source = _source(operation, level, sign, height, width)
    packed = _pack(images).reshape(batch, height * width)

    def tap(offset):
        y = jnp.clip(source["y"] + offset * source["step_y"], 0, height - 1)
        x = jnp.clip(source["x"] + offset * source["step_x"], 0, width - 1)
        index = (y * width + x).reshape(batch, height * width)
        values = jnp.take_along_axis(packed, index, axis=1, mode="promise_in_bounds")
        return _unpack(values.reshape(batch, height, width))

    value = _cubic(tap(-1), tap(0), tap(1), tap(2), source["fraction"][..., None])
    return jnp.where(source["inside"][..., None], value, jnp.float32(FILL)).astype(jnp.uint8)


def _cubic(a, b, c, d, t):
    """Cubic convolution at t in [0, 1) between b and c, within 0 to 255."""
    return jnp.clip(_cubic_curve(a, b, c, d, t), 0.0, 255.0)


def _cubic_curve(a, b, c, d, t):
    """Cubic convolution (Keys, a = -1, as in Pillow's geometry) at t in [0, 1) between b and c."""
    # Differences of integers are exact in float32; sums of weighted values would fall below a flat area's own grey
    # and lose a level when Pillow's truncation follows.
    linear = c - a
    quadratic = 2.0 * (a - b) + c - d
    cubic = b - a + d - c
    return b + t * (linear + t * (quadratic + t * cubic))


def _pack(images):
    """uint8 [..., 3] to uint32 [...]: one gather then fetches all three channels."""
    channels = images.astype(jnp.uint32)
    return channels[..., 0] | (channels[..., 1] << 8) | (channels[..., 2] << 16)


def _unpack(packed):
    """uint32 [...] to float32 [..., 3]."""
    return jnp.stack([packed & 255, (packed >> 8) & 255, packed >> 16], axis=-1).astype(jnp.float32)


def _source(operation, level, sign, height, width):
    """Where each output pixel comes from: x, y int32 [B, H, W] (second tap), fraction, inside, and the taps' step."""
    tables = _warp_tables(height, width)
    side = (sign > 0).astype(jnp.int32)
    affine, shift, fraction, first, last = [jnp.asarray(table)[operation, level, side] for table in tables]
    a, b, c, d, e, f = [affine[:, i, None, None] for i in range(6)]
    row = jnp.arange(height, dtype=jnp.int32)[None, :, None]
    column = jnp.arange(width, dtype=jnp.int32)[None, None, :]
    y = (d * column + e * row + f) >> 16
    x = (a * column + b * row + c) >> 16
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)

    step_x = (operation == policies.OPERATIONS.index("shear_x"))[:, None, None]
    step_y = (operation == policies.OPERATIONS.index("shear_y"))[:, None, None]

    def per_line(table):  # [B, max(H, W)] by row for shear_x, by column otherwise (there only shear_y is not constant)
        return jnp.where(step_x, table[:, :height, None], table[:, None, :width])

    along = jnp.where(step_x, column, row)
    inside &= (along >= per_line(first)) & (along < per_line(last))
    step_x, step_y = step_x.astype(jnp.int32), step_y.astype(jnp.int32)
    shift = per_line(shift)
    return {
        "x": x + shift * step_x,
        "y": y + shift * step_y,
        "fraction": per_line(fraction),
        "inside": inside,
        "step_x": step_x,
        "step_y": step_y,
    }


@functools.cache
def _warp_tables(height, width):
    """Coefficients of every (operation, level, sign), computed in float64 because Pillow does so.

    Returns:
      affine int32 [15, 10, 2, 6]: 16.16 fixed point (a, b, c, d, e, f) of x' = ax + by + c, y' = dx + ey + f.
      shift int32, fraction float32, first int32, last int32 [15, 10, 2, max(H, W)]: of a shear, each line's whole
      and fractional displacement and the half-open range along the line that comes from inside the image.
    """
    shape = (len(policies.OPERATIONS), policies.NUM_LEVELS, 2)
    lines = max(height, width)
    affine = np.tile(_fixed_point((1, 0, 0, 0, 1, 0)), (*shape, 1))
    shift, fraction = np.zeros((*shape, lines), np.int32), np.zeros((*shape, lines), np.float32)
    first, last = np.zeros((*shape, lines), np.int32), np.full((*shape, lines), lines, np.int32)
    for name in policies.GEOMETRIC:
        for level, magnitude in enumerate(policies.MAGNITUDES[name]):
            for side, sign in enumerate((-1, 1)):
                entry = (policies.OPERATIONS.index(name), level, side)
                if name.startswith("shear"):
                    length = width if name == "shear_x" else height
                    line = _shear_lines(sign * magnitude, lines, length)
                    shift[entry], fraction[entry], first[entry], last[entry] = line
                else:
                    affine[entry] = _fixed_point(_matrix(name, sign * magnitude, height, width))
    return affine, shift, fraction, first, last


def _shear_lines(slope, lines, length):
    """One shear's (shift, fraction, first, last) for each of the lines, whose pixels are `length`."""
    displacement = slope * (np.arange(lines) + 0.5)
    shift = np.floor(displacement)
    source = np.arange(length) + 0.5 + displacement[:, None]  # [lines, length]
    inside = (source >= 0) & (source < length)
    first = np.where(inside.any(1), inside.argmax(1), length)
    return shift, displacement - shift, first, first + inside.sum(1)


def _matrix(name, magnitude, height, width):
    """Pillow's output-to-input matrix (a, b, c, d, e, f) of a translation or rotation."""
    if name == "translate_x":
        return 1.0, 0.0, magnitude * width, 0.0, 1.0, 0.0
    if name == "translate_y":
        return 1.0, 0.0, 0.0, 0.0, 1.0, magnitude * height
    angle = -math.radians(magnitude % 360.0)
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x, y = width / 2, height / 2
    return cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y


def _fixed_point(matrix):
    """16.16 fixed point of a matrix, moved to pixel centres."""
    a, b, c, d, e, f = matrix
    centred = np.array([a, b, c + a * 0.5 + b * 0.5, d, e, f + d * 0.5 + e * 0.5])
    return np.floor(centred * 65536.0 + 0.5).astype(np.int32)


def affine(images: jax.Array, matrix: jax.Array, cubic: jax.Array, fill: Sequence[int]) -> jax.Array:
    """`Image.transform(size, AFFINE, matrix, BILINEAR or BICUBIC, fillcolor=fill)` of each image.

    Coordinates are float32 where Pillow has float64: a pixel that comes from the very edge may fall on its other side.

    Args:
      images: uint8 [B, H, W, 3].
      matrix: float32 [B, 6], (a, b, c, d, e, f) of x' = ax + by + c, y' = dx + ey + f from output to input.
      cubic: bool [B], bicubic rather than bilinear.
      fill: three grey levels, shown outside the image.

    Returns:
      uint8 [B, H, W, 3].
    """
    batch, height, width, _ = images.shape
    a, b, c, d, e, f = [matrix[:, i, None, None] for i in range(6)]
    column = jnp.arange(width, dtype=jnp.float32)[None, None, :] + 0.5
    row = jnp.arange(height, dtype=jnp.float32)[None, :, None] + 0.5
    x, y = a * column + b * row + c, d * column + e * row + f
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    left, top = jnp.floor(x - 0.5), jnp.floor(y - 0.5)
    part_x, part_y = (x - 0.5 - left)[..., None], (y - 0.5 - top)[..., None]
    left, top, packed = left.astype(jnp.int32), top.astype(jnp.int32), _pack(images).reshape(batch, height * width)
    is_cubic = cubic[:, None, None, None]

    def tap(step_x, step_y):
        index = jnp.clip(top + step_y, 0, height - 1) * width + jnp.clip(left + step_x, 0, width - 1)
        index = index.reshape(batch, height * width)
        values = jnp.take_along_axis(packed, index, axis=1, mode="promise_in_bounds")
        return _unpack(values.reshape(batch, height, width))

    def between(taps, part):
        before, first, second, after = taps
        curve = _cubic_curve(before, first, second, after, part)
        return jnp.where(is_cubic, curve, first + part * (second - first))

    lines = [between([tap(step_x, step_y) for step_x in range(-1, 3)], part_x) for step_y in range(-1, 3)]
    value = jnp.clip(between(lines, part_y), 0.0, 255.0)
    return jnp.where(inside[..., None], value, jnp.asarray(fill, jnp.float32)).astype(jnp.uint8)


def resized_crop(
    images: jax.Array,
    top: jax.Array,
    left: jax.Array,
    crop_height: jax.Array,
    crop_width: jax.Array,
    height: int,
    width: int,
) -> jax.Array:
    """Cuts a box out of each image and scales it; equals `Image.crop` and `Image.resize(BILINEAR)`.

    Args:
      images: uint8 [B, H, W, 3].
      top, left, crop_height, crop_width: int32 [B], a box within the image.
      height, width: of the result.

    Returns:
      uint8 [B, height, width, 3].
    """
    rows = _scaling(images.shape[1], height, top, crop_height)
    columns = _scaling(images.shape[2], width, left, crop_width)
    # Pillow scales rows first and stores grey levels in between; so do we. The highest precision, because the
    # accelerators' default multiplies in 8 to 11 bits.
    product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    values = jnp.floor(product("bpx,byxc->bypc", columns, images.astype(jnp.float32)) + 0.5)
    return jnp.floor(product("bqy,bypc->bqpc", rows, values) + 0.5).astype(jnp.uint8)


def _scaling(length, result, start, size):
    """float32 [B, result, length]: weights of each input pixel (last axis) in each output pixel.

    A triangle of two pixels' width around the output pixel's place, wider by the factor of a reduction (antialiasing).
    """
    size = size[:, None, None].astype(jnp.float32)
    start = start[:, None, None].astype(jnp.float32)
    factor = size / result
    center = (jnp.arange(result, dtype=jnp.float32) + 0.5)[None, :, None] * factor
    pixel = (jnp.arange(length, dtype=jnp.float32) + 0.5)[None, None, :] - start
    distance = jnp.abs(pixel - center)
    if length > result:  # a box is never larger than the image
        distance = distance / jnp.maximum(factor, 1.0)
    weight = jnp.maximum(0.0, 1.0 - distance)
    weight = jnp.where((pixel > 0) & (pixel < size), weight, 0.0)
    return weight / weight.sum(axis=-1, keepdims=True)
