"""Augmentation on the device: pure functions of (key, images), for use inside a jitted training step.

`make_augment` gives the views of the training recipes; `random_*` are their random stages, `draw_*` the draws behind
them, and geometry.py, color.py and filters.py the operations, which equal Pillow's. Every image gets its own draw.
Nothing here depends on how a batch is spread over devices: draws have the global batch's shape, operations see one
image at a time.

AutoAugment's fifteen operations are not branches (under `vmap` every branch would run): `apply_operation` is one
gather, one look-up table and one blend, each of which leaves an image alone that does not need it.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ncl_jax.data import color, filters, geometry, policies

CROP_PADDING = 4
CUTOUT_SIZE = 16
BOX_SCALE, BOX_RATIO = (0.2, 1.0), (3 / 4, 4 / 3)  # share of the area, width over height
MAX_BRIGHTNESS, MAX_CONTRAST, MAX_SATURATION, MAX_HUE = 0.4, 0.4, 0.4, 0.1


def make_augment(
    name: str, *, mean: Sequence[float], std: Sequence[float]
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The augmentation of one view.

    Args:
      name: "none"; "crop_flip"; "autoaugment", the classifier's view on CIFAR: random crop, flip, AutoAugment's
        CIFAR-10 policy, Cutout; or "moco_key", the momentum encoder's view on CIFAR: random resized crop, flip,
        colour jitter, greyscale, Gaussian blur.
      mean, std: three numbers each, of pixels scaled to [0, 1].

    Returns:
      f(key, images uint8 [B, H, W, 3]) -> float32 [B, H, W, 3], normalised. "none" does not use its key.

    Raises:
      ValueError: unknown name.
    """
    if name not in VIEWS:
        raise ValueError(f"unknown augmentation {name!r}: use one of {', '.join(map(repr, VIEWS))}")
    stages = VIEWS[name]

    def augment(key, images):
        keys = jax.random.split(key, len(stages)) if stages else ()
        for stage, stage_key in zip(stages, keys, strict=True):
            images = stage(stage_key, images)
        return normalize(images, mean, std)

    return augment


def normalize(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """uint8 [..., 3] to float32: scaled to [0, 1], then mean subtracted and divided by std (three numbers each)."""
    shape = (1,) * (images.ndim - 1) + (3,)
    centre, scale = (np.asarray(values, np.float32).reshape(shape) for values in (mean, std))
    return (images.astype(jnp.float32) / 255.0 - centre) / scale


def _below(count, uniform):
    """int32: whole numbers 0 to count - 1 (count an int or int32 [B]) from uniform draws in [0, 1).

    One call of `uniform` per stage, of all the numbers that it needs, because each call costs compile time.
    """
    return jnp.floor(uniform * jnp.asarray(count, jnp.float32)).astype(jnp.int32)


def random_crop(key: jax.Array, images: jax.Array) -> jax.Array:
    """Crop of the original size from the image with four pixels of zeros around it."""
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
    # Side by side rather than in sequence: whatever the compiler fuses, each family reads the images themselves.
    warped = geometry.warp(images, operation, level, sign)
    mapped = color.apply_table(images, _tables(images, operation, level))
    blended = color.blend(_degenerate(images, operation), images, _factors(operation, level, sign))
    mapped = jnp.where(_is(policies.BLEND, operation)[..., None], blended, mapped)
    return jnp.where(_is(policies.GEOMETRIC, operation)[..., None], warped, mapped)


def _is(names, operation):
    """bool [B, 1, 1]: which images' operation is one of the names."""
    member = jnp.asarray([name in names for name in policies.OPERATIONS])
    return member[operation][:, None, None]


def _tables(images, operation, level):
    """uint8 [B, 3, 256]: the look-up table of each image's operation."""
    bits = jnp.asarray(policies.MAGNITUDES["posterize"].astype(np.int32))[level]
    # A grey level is below a threshold if and only if it is below the next whole number.
    threshold = jnp.asarray(np.ceil(policies.MAGNITUDES["solarize"]).astype(np.int32))[level]
    table = jnp.where(_is(("posterize",), operation), color.posterize_table(bits), color.identity_table())
    table = jnp.where(_is(("solarize",), operation), color.solarize_table(threshold), table)
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


def random_resized_crop(key: jax.Array, images: jax.Array) -> jax.Array:
    """Crop of 0.2 to 1 of the area and 3/4 to 4/3 of the aspect, scaled to the image's size (bilinear)."""
    return geometry.resized_crop(images, *draw_box(key, *images.shape[:3]))


def draw_box(key: jax.Array, batch: int, height: int, width: int) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Boxes as torchvision's `RandomResizedCrop` draws them: the first of ten attempts that fits, else the centre.

    Returns:
      (top, left, box height, box width), int32 [B] each.
    """
    uniform = jax.random.uniform(key, (batch, 22))
    area = height * width * (BOX_SCALE[0] + (BOX_SCALE[1] - BOX_SCALE[0]) * uniform[:, :10])
    log_ratio = [math.log(bound) for bound in BOX_RATIO]
    aspect = jnp.exp(log_ratio[0] + (log_ratio[1] - log_ratio[0]) * uniform[:, 10:20])
    rows = jnp.round(jnp.sqrt(area / aspect)).astype(jnp.int32)
    columns = jnp.round(jnp.sqrt(area * aspect)).astype(jnp.int32)
    fits = (rows > 0) & (rows <= height) & (columns > 0) & (columns <= width)
    first = fits.argmax(axis=1)[:, None]
    rows, columns = [jnp.take_along_axis(sizes, first, axis=1)[:, 0] for sizes in (rows, columns)]

    # The largest box at the centre whose aspect is within bounds.
    whole_rows = min(height, round(width / BOX_RATIO[0]))
    whole_columns = min(width, round(height * BOX_RATIO[1]))
    fitted = fits.any(axis=1)
    rows, columns = jnp.where(fitted, rows, whole_rows), jnp.where(fitted, columns, whole_columns)
    top = jnp.where(fitted, _below(height - rows + 1, uniform[:, 20]), (height - whole_rows) // 2)
    left = jnp.where(fitted, _below(width - columns + 1, uniform[:, 21]), (width - whole_columns) // 2)
    return top, left, rows, columns


def random_jitter(key: jax.Array, images: jax.Array) -> jax.Array:
    """Colour jitter with probability 0.8: brightness, contrast, saturation and hue in random order."""
    key_apply, key_jitter = jax.random.split(key)
    jittered = color_jitter(images, *draw_jitter(key_jitter, images.shape[0]))
    applied = jax.random.bernoulli(key_apply, 0.8, images.shape[:1])
    return jnp.where(applied[:, None, None, None], jittered, images)


def draw_jitter(key: jax.Array, batch: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Arguments of `color_jitter` as torchvision's `ColorJitter(0.4, 0.4, 0.4, 0.1)` draws them."""
    uniform = jax.random.uniform(key, (batch, 8))
    order = jnp.argsort(uniform[:, :4], axis=1).astype(jnp.int32)
    spread = jnp.asarray([MAX_BRIGHTNESS, MAX_CONTRAST, MAX_SATURATION], jnp.float32)
    factors = 1.0 + spread[None, :] * (2.0 * uniform[:, 4:7] - 1.0)
    turn = MAX_HUE * (2.0 * uniform[:, 7] - 1.0)
    return order, factors, (255.0 * turn).astype(jnp.int32)


def color_jitter(images: jax.Array, order: jax.Array, factors: jax.Array, hue_shift: jax.Array) -> jax.Array:
    """Four colour changes in each image's own order.

    Args:
      images: uint8 [B, H, W, 3].
      order: int32 [B, 4], a permutation: 0 brightness, 1 contrast, 2 saturation, 3 hue.
      factors: float32 [B, 3], enhancement factors of the first three.
      hue_shift: int32 [B], in 1/255 of a turn.

    Returns:
      uint8 [B, H, W, 3].
    """
    factors = jnp.pad(factors, ((0, 0), (0, 1)), constant_values=1.0)  # hue is not a blend

    def change(images, which):  # which int32 [B]
        factor = jnp.take_along_axis(factors, which[:, None], axis=1)[:, 0]
        which = which[:, None, None, None]
        degenerate = jnp.where(which == 1, color.mean_grey(images), jnp.uint8(0))
        degenerate = jnp.where(which == 2, color.luma(images)[..., None], degenerate)
        turned = color.hue(images, hue_shift)
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


VIEWS = {
    "none": (),
    "crop_flip": (random_crop, random_flip),
    "autoaugment": (random_crop, random_flip, random_policy, random_cutout),
    "moco_key": (random_resized_crop, random_flip, random_jitter, random_grayscale, random_blur),
}
