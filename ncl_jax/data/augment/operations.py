"""The random operations of the views, on the device: pure functions of (key, images) for use under `jit`.

`random_*` are the operations, `draw_*` the draws behind them, and geometry.py, color.py and filters.py what is done
to an image, which equals Pillow's. Every image gets its own draw. Nothing here depends on how a batch is spread over
devices: draws have the global batch's shape, operations see one image at a time.

AutoAugment's fifteen operations are not branches (under `vmap` every branch would run): `apply_operation` is one
gather, one look-up table and one blend, each of which leaves an image alone that does not need it.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ncl_jax.data.augment import color, filters, geometry, policies
from ncl_jax.data.images import transforms

CROP_PADDING = 4
CUTOUT_SIZE = 16
JITTER = (0.4, 0.4, 0.4)  # the largest changes of brightness, contrast and saturation


def _below(count, uniform):
    """int32: whole numbers 0 to count - 1 (count an int or int32 [B]) from uniform draws in [0, 1).

    One call of `uniform` per stage, of all the numbers that it needs, because each call costs compile time.
    """
    return jnp.floor(uniform * jnp.asarray(count, jnp.float32)).astype(jnp.int32)


def random_crop(key: jax.Array, images: jax.Array) -> jax.Array:
    """Crop of the original size from the image with `CROP_PADDING` pixels of zeros around it."""
    corner = _below(2 * CROP_PADDING + 1, jax.random.uniform(key, (images.shape[0], 2)))
    return geometry.crop(images, corner[:, 0], corner[:, 1], CROP_PADDING)


def random_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Left to right, with probability one half."""
    return geometry.flip(images, jax.random.bernoulli(key, 0.5, images.shape[:1]))


def random_cutout(key: jax.Array, images: jax.Array) -> jax.Array:
    """One square of zeros, its centre uniform in the image. Before normalisation, as in the authors' recipe."""
    batch, height, width, _ = images.shape
    uniform_y, uniform_x = jax.random.uniform(key, (batch, 2)).T
    return geometry.cutout(images, _below(height, uniform_y), _below(width, uniform_x), CUTOUT_SIZE)


def random_policy(key: jax.Array, images: jax.Array) -> jax.Array:
    """AutoAugment's CIFAR-10 policy: a uniform sub-policy per image, each of its two operations by chance."""
    # A loop, because the compiler would otherwise fuse the first operation into every use of its result.
    draws = [draw.T for draw in draw_policy(key, images.shape[0])]  # [2, B]
    return jax.lax.scan(lambda images, draw: (apply_operation(images, *draw), None), images, draws)[0]


def draw_policy(key: jax.Array, batch: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """int32 [B, 2] three times: operation (index into `policies.OPERATIONS`), level (0 to 9) and sign (-1 or 1)."""
    uniform = jax.random.uniform(key, (batch, 5))
    probability, operation, level = [jnp.asarray(table) for table in policies.policy_arrays(policies.CIFAR10)]
    choice = _below(len(policies.CIFAR10), uniform[:, 0])
    applied = uniform[:, 1:3] < probability[choice]
    operation = jnp.where(applied, operation[choice], policies.OPERATIONS.index("identity"))
    signed = jnp.asarray([name in policies.SIGNED for name in policies.OPERATIONS])
    negative = (uniform[:, 3:] < 0.5) & signed[operation]
    return operation, level[choice], jnp.where(negative, -1, 1).astype(jnp.int32)


def apply_operation(images: jax.Array, operation: jax.Array, level: jax.Array, sign: jax.Array) -> jax.Array:
    """Applies one AutoAugment operation to each image.

    Args:
      images: uint8 [B, H, W, 3].
      operation: int32 [B], index into `policies.OPERATIONS`.
      level: int32 [B], magnitude level, 0 to 9.
      sign: int32 [B], -1 or 1; without effect on look-up tables.

    Returns:
      uint8 [B, H, W, 3].
    """
    warped = geometry.warp(images, operation, level, sign)
    bits = jnp.asarray(policies.MAGNITUDES["posterize"].astype(np.int32))[level]
    # A grey level is below a threshold if and only if it is below the next whole number.
    threshold = jnp.asarray(np.ceil(policies.MAGNITUDES["solarize"]).astype(np.int32))[level]
    factors = _factors(operation, level, sign)
    return combine(images, operation, warped, bits=bits, threshold=threshold, factors=factors)


def combine(
    images: jax.Array,
    operation: jax.Array,
    warped: jax.Array,
    *,
    bits: jax.Array,
    threshold: jax.Array,
    factors: jax.Array,
    added: jax.Array | None = None,
) -> jax.Array:
    """Each image's operation out of all families, computed side by side.

    Args:
      images, warped: uint8 [B, H, W, 3]; the second after its geometric operation.
      operation: int32 [B], index into `policies.OPERATIONS`.
      bits, threshold: int32 [B], of posterize and solarize.
      factors: float32 [B], of the blends, 1 for what is none.
      added: int32 [B], of solarize_add; None where the policy has no such operation.
    """
    # Side by side rather than in sequence: whatever the compiler fuses, each family reads the images themselves.
    mapped = color.apply_table(images, _tables(images, operation, bits, threshold, added))
    blended = color.blend(_degenerate(images, operation), images, factors)
    mapped = jnp.where(_is(policies.BLEND, operation)[..., None], blended, mapped)
    return jnp.where(_is(policies.GEOMETRIC, operation)[..., None], warped, mapped)


def _is(names, operation):
    """bool [B, 1, 1]: which images' operation is one of the names."""
    member = jnp.asarray([name in names for name in policies.OPERATIONS])
    return member[operation][:, None, None]


def _tables(images, operation, bits, threshold, added):
    """uint8 [B, 3, 256]: the look-up table of each image's operation."""
    table = jnp.where(_is(("posterize",), operation), color.posterize_table(bits), color.identity_table())
    table = jnp.where(_is(("solarize",), operation), color.solarize_table(threshold), table)
    if added is not None:
        table = jnp.where(_is(("solarize_add",), operation), color.solarize_add_table(added), table)
    table = jnp.where(_is(("invert",), operation), 255 - color.identity_table(), table)
    table = jnp.where(_is(("autocontrast",), operation), color.autocontrast_table(images), table)
    return jnp.where(_is(("equalize",), operation), color.equalize_table(images), table)


def _degenerate(images, operation):
    """uint8 [B, H, W, 3]: what each image's operation blends it with."""
    degenerate = jnp.where(_is(("color",), operation)[..., None], color.luma(images)[..., None], jnp.uint8(0))
    degenerate = jnp.where(_is(("contrast",), operation)[..., None], color.mean_grey(images), degenerate)
    return jnp.where(_is(("sharpness",), operation)[..., None], filters.smooth(images), degenerate)


def _factors(operation, level, sign):
    """float32 [B]: enhancement factor, 1 (no change) for what is not a blend."""
    factors = np.ones((len(policies.OPERATIONS), policies.NUM_LEVELS, 2), np.float32)
    for name in policies.BLEND:
        factors[policies.OPERATIONS.index(name)] = policies.enhancement_factors(name)
    return jnp.asarray(factors)[operation, level, (sign > 0).astype(jnp.int32)]


def random_resized_crop(key: jax.Array, images: jax.Array, *, size: int, scale: Sequence[float]) -> jax.Array:
    """Crop of a share within `scale` of the area and 3/4 to 4/3 of the aspect, scaled to [B, size, size, 3]."""
    boxes = draw_box(key, len(images), images.shape[1], images.shape[2], scale)
    return geometry.resized_crop(images, *boxes, size, size)


def random_square_crop(key: jax.Array, images: jax.Array, *, size: int, progress: jax.Array | float = 1.0) -> jax.Array:
    """A square of each image, scaled to [B, size, size, 3]; `progress`: see `transforms.least_share`."""
    batch, height, width, _ = images.shape
    whole, largest = height * width, min(height, width)
    uniform = jax.random.uniform(key, (batch, 3))
    most = largest**2 / whole
    least = jnp.minimum(transforms.least_share(progress), most)
    share = least + (most - least) * uniform[:, 0]
    side = jnp.clip(jnp.round(jnp.sqrt(share * whole)), 1, largest).astype(jnp.int32)
    top, left = _below(height - side + 1, uniform[:, 1]), _below(width - side + 1, uniform[:, 2])
    return geometry.resized_crop(images, top, left, side, side, size, size)


def draw_box(
    key: jax.Array, batch: int, height: int, width: int, scale: Sequence[float]
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Boxes as torchvision's `RandomResizedCrop` draws them: the first of ten attempts that fits, else the centre.

    Returns:
      (top, left, box height, box width), int32 [B] each.
    """
    uniform = jax.random.uniform(key, (batch, 22))
    area = height * width * (scale[0] + (scale[1] - scale[0]) * uniform[:, :10])
    log_ratio = [math.log(bound) for bound in transforms.BOX_RATIO]
    aspect = jnp.exp(log_ratio[0] + (log_ratio[1] - log_ratio[0]) * uniform[:, 10:20])
    rows = jnp.round(jnp.sqrt(area / aspect)).astype(jnp.int32)
    columns = jnp.round(jnp.sqrt(area * aspect)).astype(jnp.int32)
    fits = (rows > 0) & (rows <= height) & (columns > 0) & (columns <= width)
    first = fits.argmax(axis=1)[:, None]
    rows, columns = [jnp.take_along_axis(sizes, first, axis=1)[:, 0] for sizes in (rows, columns)]

    whole_rows, whole_columns = transforms.largest_box(height, width)
    fitted = fits.any(axis=1)
    rows, columns = jnp.where(fitted, rows, whole_rows), jnp.where(fitted, columns, whole_columns)
    top = jnp.where(fitted, _below(height - rows + 1, uniform[:, 20]), (height - whole_rows) // 2)
    left = jnp.where(fitted, _below(width - columns + 1, uniform[:, 21]), (width - whole_columns) // 2)
    return top, left, rows, columns


def random_jitter(key: jax.Array, images: jax.Array, *, hue: float = 0.1, probability: float = 0.8) -> jax.Array:
    """Colour jitter with a probability: brightness, contrast, saturation and hue (up to a turn's share) in random
    order."""
    key_apply, key_jitter = jax.random.split(key)
    jittered = color_jitter(images, *draw_jitter(key_jitter, images.shape[0], hue))
    applied = jax.random.bernoulli(key_apply, probability, images.shape[:1])
    return jnp.where(applied[:, None, None, None], jittered, images)


def draw_jitter(key: jax.Array, batch: int, hue: float) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Arguments of `color_jitter` as torchvision's `ColorJitter(0.4, 0.4, 0.4, hue)` draws them."""
    uniform = jax.random.uniform(key, (batch, 8))
    order = jnp.argsort(uniform[:, :4], axis=1).astype(jnp.int32)
    factors = 1.0 + jnp.asarray(JITTER, jnp.float32)[None, :] * (2.0 * uniform[:, 4:7] - 1.0)
    turn = hue * (2.0 * uniform[:, 7] - 1.0)
    return order, factors, (255.0 * turn).astype(jnp.int32) if hue else None


def color_jitter(images: jax.Array, order: jax.Array, factors: jax.Array, hue_shift: jax.Array | None) -> jax.Array:
    """Four colour changes in each image's own order.

    Args:
      images: uint8 [B, H, W, 3].
      order: int32 [B, 4], a permutation: 0 brightness, 1 contrast, 2 saturation, 3 hue.
      factors: float32 [B, 3], enhancement factors of the first three.
      hue_shift: int32 [B], in 1/255 of a turn; None leaves the hue alone.

    Returns:
      uint8 [B, H, W, 3].
    """
    factors = jnp.pad(factors, ((0, 0), (0, 1)), constant_values=1.0)  # hue is not a blend

    def change(images, which):  # which int32 [B]
        factor = jnp.take_along_axis(factors, which[:, None], axis=1)[:, 0]
        which = which[:, None, None, None]
        degenerate = jnp.where(which == 1, color.mean_grey(images), jnp.uint8(0))
        degenerate = jnp.where(which == 2, color.luma(images)[..., None], degenerate)
        turned = images if hue_shift is None else color.hue(images, hue_shift)
        return jnp.where(which == 3, turned, color.blend(degenerate, images, factor)), None

    # A loop, because the compiler would otherwise fuse each change into every use of its result.
    return jax.lax.scan(change, images, order.T)[0]


def random_grayscale(key: jax.Array, images: jax.Array) -> jax.Array:
    """Grey with probability 0.2."""
    applied = jax.random.bernoulli(key, 0.2, images.shape[:1])
    return jnp.where(applied[:, None, None, None], color.grayscale(images), images)


def random_blur(key: jax.Array, images: jax.Array) -> jax.Array:
    """Gaussian blur with probability one half, its standard deviation uniform in 0.1 to 2 pixels."""
    uniform = jax.random.uniform(key, (images.shape[0], 2))
    blurred = filters.gaussian_blur(images, 0.1 + (filters.MAX_SIGMA - 0.1) * uniform[:, 1])
    return jnp.where(uniform[:, 0, None, None, None] < 0.5, blurred, images)
