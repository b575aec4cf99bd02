"""Augmentation: every operation against Pillow at every magnitude, the draws' statistics, the whole views."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pictures import (
    BATCH,
    assert_rate,
    batch_of,
    difference,
    jitted,
    on_pillow,
    real_images,
    sample_images,
    torchvision_boxes,
)
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from ncl_jax.data.augment import color, filters, geometry, operations, policies

GREY = (128, 128, 128)
LEVELS, SIGNS = [grid.ravel() for grid in np.meshgrid(np.arange(10), [-1, 1])]

# Largest difference from Pillow in grey levels; what is not named must be equal.
BOUNDS = {"shear_x": 1, "shear_y": 1}
AUTOAUGMENT = [name for name in policies.OPERATIONS if name != "solarize_add"]


def pillow_operation(image, name, level, sign):
    """One AutoAugment operation, written with Pillow."""
    magnitude = sign * policies.MAGNITUDES.get(name, np.zeros(10))[level]
    affine = functools.partial(image.transform, image.size, Image.Transform.AFFINE, fillcolor=GREY)
    enhancers = {
        "color": ImageEnhance.Color,
        "contrast": ImageEnhance.Contrast,
        "sharpness": ImageEnhance.Sharpness,
        "brightness": ImageEnhance.Brightness,
    }
    match name:
        case "identity":
            return image
        case "shear_x":
            return affine((1, magnitude, 0, 0, 1, 0), Image.Resampling.BICUBIC)
        case "shear_y":
            return affine((1, 0, 0, magnitude, 1, 0), Image.Resampling.BICUBIC)
        case "translate_x":
            return affine((1, 0, magnitude * image.size[0], 0, 1, 0))
        case "translate_y":
            return affine((1, 0, 0, 0, 1, magnitude * image.size[1]))
        case "rotate":
            return image.rotate(magnitude, fillcolor=GREY)
        case "posterize":
            return ImageOps.posterize(image, int(abs(magnitude)))
        case "solarize":
            return ImageOps.solarize(image, abs(magnitude))
        case "autocontrast" | "equalize" | "invert":
            return getattr(ImageOps, name)(image)
        case _:
            return enhancers[name](image).enhance(1 + magnitude)


def every_magnitude(images):
    """Each image at each (level, sign): images [20 N, H, W, 3], level int32 [20 N], sign int32 [20 N]."""
    count = len(images)
    repeated = np.repeat(images, len(LEVELS), axis=0)
    return repeated, np.tile(LEVELS, count).astype(np.int32), np.tile(SIGNS, count).astype(np.int32)


apply_operation = jax.jit(operations.apply_operation)


@pytest.mark.parametrize("name", AUTOAUGMENT)
def test_operation_equals_pillow_at_every_magnitude(name):
    images, level, sign = every_magnitude(sample_images())
    operation = np.full_like(level, policies.OPERATIONS.index(name))
    ours = apply_operation(images, operation, level, sign)
    theirs = on_pillow(lambda image, *at: pillow_operation(image, name, *at), images, level, sign)
    assert ours.dtype == jnp.uint8
    assert difference(ours, theirs) <= BOUNDS.get(name, 0)


@pytest.mark.parametrize("shape", [(28, 28), (20, 33)])
def test_operations_equal_pillow_at_other_sizes(shape):
    images = np.random.default_rng(1).integers(0, 256, (2, *shape, 3)).astype(np.uint8)
    images[1] = np.cumsum(images[1] % 5, axis=1)
    images, level, sign = every_magnitude(images)
    for name in AUTOAUGMENT:
        operation = np.full_like(level, policies.OPERATIONS.index(name))
        theirs = on_pillow(lambda image, *at, name=name: pillow_operation(image, name, *at), images, level, sign)
        assert difference(apply_operation(images, operation, level, sign), theirs) <= BOUNDS.get(name, 0), name


def test_autocontrast_equals_pillow_for_every_darkest_and_lightest_level():
    low, high = np.triu_indices(256, 1)
    images = np.stack([low, high], axis=1).reshape(-1, 3, 2).swapaxes(1, 2)[:, :, None, :]  # [10880, 2, 1, 3]
    tables = np.asarray(jax.jit(color.autocontrast_table)(images.astype(np.uint8))).reshape(-1, 256)
    scale = 255.0 / (high - low)  # Pillow's own arithmetic: Python floats
    expected = np.clip((np.arange(256) * scale[:, None] + (-low * scale)[:, None]).astype(int), 0, 255)
    occurs = np.arange(256) <= high[:, None]
    np.testing.assert_array_equal(np.where(occurs, tables, 0), np.where(occurs, expected, 0))


def test_blend_equals_pillow_for_every_pair_of_levels():
    rng = np.random.default_rng(2)
    factors = np.unique(np.concatenate([policies.enhancement_factors("color").ravel(), rng.uniform(0.6, 1.4, 60)]))
    factors = np.resize(factors.astype(np.float32), 80)
    first, second = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    ours = jax.jit(color.blend)(first[None, :, :, None], np.tile(second[None, :, :, None], (80, 1, 1, 1)), factors)
    pair = Image.fromarray(first), Image.fromarray(second)
    theirs = np.stack([np.asarray(Image.blend(*pair, float(factor))) for factor in factors])
    assert difference(ours[..., 0], theirs) == 0


def test_crop_and_flip_equal_pillow():
    images = np.repeat(real_images()[:1], 81, axis=0)
    top, left = [side.ravel().astype(np.int32) for side in np.meshgrid(np.arange(9), np.arange(9))]
    ours = jax.jit(geometry.crop, static_argnums=3)(images, top, left, 4)
    padded = ImageOps.expand(Image.fromarray(images[0]), 4)
    theirs = [padded.crop((x, y, x + 32, y + 32)) for x, y in zip(left.tolist(), top.tolist(), strict=True)]
    assert difference(ours, np.stack(theirs)) == 0

    mask = np.arange(81) % 2 == 0
    mirrored = on_pillow(ImageOps.mirror, images)
    assert difference(geometry.flip(images, mask), np.where(mask[:, None, None, None], mirrored, images)) == 0


# Sides that are no power of two have weights that float32 does not hold, which decides values halfway between levels.
@pytest.mark.parametrize("shape,share", [((32, 32), 1e-4), ((20, 33), 0.02)])
def test_resized_crop_is_within_one_level_of_pillow(shape, share):
    rng = np.random.default_rng(3)
    images = np.resize(sample_images(), (480, 32, 32, 3))
    images = np.concatenate([images, images], axis=2)[:, : shape[0], : shape[1]]
    rows, columns = [rng.integers(1, side + 1, 480).astype(np.int32) for side in shape]
    rows[:2], columns[1:3] = shape
    top, left = rng.integers(0, shape[0] - rows + 1), rng.integers(0, shape[1] - columns + 1)
    top, left = top.astype(np.int32), left.astype(np.int32)
    ours = jax.jit(geometry.resized_crop, static_argnums=(5, 6))(images, top, left, rows, columns, *shape)

    def resized_crop(image, y, x, height, width):
        return image.crop((x, y, x + width, y + height)).resize(shape[::-1], Image.Resampling.BILINEAR)

    theirs = on_pillow(resized_crop, images, *[side.tolist() for side in (top, left, rows, columns)])
    assert difference(ours, theirs) <= 1
    assert np.mean(np.asarray(ours) != theirs) < share


def torchvision_hue(image, shift):
    """What torchvision's `adjust_hue` does to a Pillow image, given its factor as a whole number of 1/255."""
    angle, saturation, value = image.convert("HSV").split()
    angle = Image.fromarray(np.asarray(angle) + np.int32(shift).astype(np.uint8))
    return Image.merge("HSV", (angle, saturation, value)).convert("RGB")


def test_hue_and_grayscale_equal_pillow():
    rng = np.random.default_rng(4)
    shades = np.stack(np.meshgrid(*[np.arange(0, 256, 17)] * 3), axis=-1).reshape(1, 64, 64, 3)
    images = np.concatenate([shades, rng.integers(0, 256, (50, 64, 64, 3))]).astype(np.uint8)
    shift = np.arange(-25, 26).astype(np.int32)
    assert difference(jax.jit(color.hue)(images, shift), on_pillow(torchvision_hue, images, shift)) == 0
    theirs = on_pillow(lambda image: image.convert("L").convert("RGB"), images)
    assert difference(color.grayscale(jnp.asarray(images)), theirs) == 0


def test_gaussian_blur_is_within_one_level_of_pillow():
    images = np.repeat(sample_images(), 40, axis=0)
    sigma = np.tile(np.linspace(0.1, 2.0, 40, dtype=np.float32), len(sample_images()))
    ours = jax.jit(filters.gaussian_blur)(images, sigma)
    theirs = on_pillow(lambda image, sigma: image.filter(ImageFilter.GaussianBlur(sigma)), images, sigma.tolist())
    assert difference(ours, theirs) <= 1
    assert np.mean(np.asarray(ours) != theirs) < 1e-4


def test_cutout_is_a_clipped_square():
    images = np.ones((4, 32, 28, 3), np.float32)
    center_y, center_x = np.array([0, 16, 31, 20], np.int32), np.array([0, 14, 5, 27], np.int32)
    holes = np.asarray(geometry.cutout(images, center_y, center_x, 16))[..., 0] == 0
    for hole, y, x in zip(holes, center_y, center_x, strict=True):
        expected = np.zeros((32, 28), bool)
        expected[max(0, y - 8) : y + 8, max(0, x - 8) : x + 8] = True
        np.testing.assert_array_equal(hole, expected)


@pytest.mark.slow
def test_policy_equals_pillow_given_its_draws():
    key, images = jax.random.key(5), np.asarray(batch_of(sample_images()))
    ours = np.asarray(jitted(operations.random_policy)(key, images))

    def policy(image, *draws):
        for name, level, sign in zip(*draws, strict=True):
            image = pillow_operation(image, policies.OPERATIONS[name], level, sign)
        return image

    theirs = on_pillow(policy, images, *[np.asarray(draw) for draw in operations.draw_policy(key, BATCH)])
    # Not a bound in levels: posterize may follow a shear and turn its one level into a whole step.
    assert np.mean(ours != theirs) < 1e-4


def test_color_jitter_equals_pillow_given_its_draws():
    images = np.asarray(batch_of(sample_images()))
    draws = operations.draw_jitter(jax.random.key(6), BATCH, 0.1)
    ours = jax.jit(operations.color_jitter)(images, *draws)

    def jitter(image, order, factors, shift):
        enhancers = ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color
        for change in order:
            is_hue = change == 3
            image = torchvision_hue(image, shift) if is_hue else enhancers[change](image).enhance(factors[change])
        return image

    assert difference(ours, on_pillow(jitter, images, *[np.asarray(draw).tolist() for draw in draws])) == 0


SAMPLES = 20_000


def test_policy_frequencies():
    operation, level, sign = [np.asarray(draw) for draw in operations.draw_policy(jax.random.key(11), SAMPLES)]
    for slot in range(2):
        for index, name in enumerate(policies.OPERATIONS[1:], 1):
            for at in range(10):
                expected = sum(sub[slot][0] for sub in policies.CIFAR10 if sub[slot][1:] == (name, at)) / 25
                assert_rate((operation[:, slot] == index) & (level[:, slot] == at), expected)
            positive = sign[:, slot][operation[:, slot] == index] == 1
            share = positive.mean() if len(positive) else None
            assert share is None or share == 1 or (name in policies.SIGNED and abs(share - 0.5) < 0.1), name
    # The two operations are drawn independently within a sub-policy: solarize 5 with 0.4, then autocontrast 3 with 0.9.
    first = (operation[:, 0] == policies.OPERATIONS.index("solarize")) & (level[:, 0] == 5)
    second = (operation[:, 1] == policies.OPERATIONS.index("autocontrast")) & (level[:, 1] == 3)
    assert_rate(first & second, 0.4 * 0.9 / 25)


def test_crop_and_flip_frequencies():
    places = np.zeros((1, 9, 9, 3), np.uint8)
    places[..., 0] = np.arange(81).reshape(9, 9)
    cropped = jax.jit(operations.random_crop)(jax.random.key(12), np.repeat(places, SAMPLES, axis=0))
    assert_rate(np.asarray(cropped[:, 4, 4, :1]) == np.arange(81), 1 / 81)

    flipped = np.asarray(jax.jit(operations.random_flip)(jax.random.key(13), np.repeat(places, SAMPLES, axis=0)))
    flipped = flipped[:, 0, 0, 0] == 8
    assert_rate(flipped, 0.5)
    assert_rate(flipped == np.roll(flipped, 1), 0.5)


def test_cutout_coverage():
    white = jnp.full((SAMPLES, 32, 24, 3), 255, jnp.uint8)
    covered = np.asarray(jax.jit(operations.random_cutout)(jax.random.key(14), white))[..., 0] == 0

    def chance(length):  # that a uniform centre is from 7 before to 8 after the pixel
        return np.array([len(set(range(i - 7, i + 9)) & set(range(length))) / length for i in range(length)])

    assert_rate(covered, chance(32)[:, None] * chance(24)[None, :])


def test_box_frequencies():
    top, left, rows, columns = [
        np.asarray(draw) for draw in operations.draw_box(jax.random.key(15), SAMPLES, 32, 32, (0.2, 1.0))
    ]
    assert (top >= 0).all() and (left >= 0).all() and (top + rows <= 32).all() and (left + columns <= 32).all()
    assert (rows * columns > 0.15 * 1024).all()
    reference = torchvision_boxes(np.random.default_rng(16), SAMPLES, 32, 32)
    for ours, theirs in zip((top, left, rows, columns), reference.T, strict=True):
        spread = np.sqrt((ours.var() + theirs.var()) / SAMPLES)
        assert abs(ours.mean() - theirs.mean()) < 5 * spread
        levels = np.arange(33)
        assert np.abs(np.mean(ours[:, None] <= levels, 0) - np.mean(theirs[:, None] <= levels, 0)).max() < 0.025


def test_a_box_that_never_fits_is_the_centre():
    draws = operations.draw_box(jax.random.key(17), 3, 8, 80, (0.2, 1.0))
    assert [np.unique(draw).tolist() for draw in draws] == [[0], [34], [8], [11]]


@pytest.mark.slow
def test_key_view_frequencies(monkeypatch):
    images = np.random.default_rng(18).integers(0, 256, (BATCH, 32, 32, 3)).astype(np.uint8)
    for stage, rate in (
        (operations.random_jitter, 0.8),
        (operations.random_grayscale, 0.2),
        (operations.random_blur, 0.5),
    ):
        batches = [np.asarray(jitted(stage)(jax.random.key(seed), images)) for seed in range(4)]
        assert_rate(np.concatenate([(batch != images).any(axis=(1, 2, 3)) for batch in batches]), rate)
    sigmas = []
    monkeypatch.setattr(operations.filters, "gaussian_blur", lambda images, sigma: sigmas.append(sigma) or images)
    operations.random_blur(jax.random.key(21), jnp.zeros((SAMPLES, 1, 1, 3), jnp.uint8))
    assert 0.1 <= sigmas[0].min() < 0.11 and 1.99 < sigmas[0].max() <= 2 and abs(sigmas[0].mean() - 1.05) < 0.02
    order, factors, shift = [np.asarray(draw) for draw in operations.draw_jitter(jax.random.key(20), SAMPLES, 0.1)]
    orders = (order @ np.array([64, 16, 4, 1]))[:, None]
    every = np.unique(orders)
    assert len(every) == 24
    assert_rate(orders == every, 1 / 24)
    assert factors.min() > 0.6 - 1e-6 and factors.max() < 1.4 and abs(factors.mean() - 1) < 0.01
    assert set(shift.tolist()) == set(range(-25, 26))
