"""RandAugment: every operation against Pillow at random levels, and the frequencies of its draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pictures import assert_rate, difference, on_pillow, sample_images
from PIL import Image, ImageEnhance, ImageOps

from ncl_jax.data.augment import policies, randaugment

FILL = randaugment.FILL
SAMPLES = 20_000


def pillow_operation(image, name, level, sign, cubic):
    """One operation as timm's program does it, written with Pillow."""
    resample = Image.Resampling.BICUBIC if cubic else Image.Resampling.BILINEAR
    share, (width, height) = level / 10, image.size
    shapes = {
        "shear_x": (1, sign * share * 0.3, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, sign * share * 0.3, 1, 0),
        "translate_x": (1, 0, sign * share * 0.45 * width, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, sign * share * 0.45 * height),
    }
    enhancers = {"color": "Color", "contrast": "Contrast", "brightness": "Brightness", "sharpness": "Sharpness"}
    if name in shapes:
        return image.transform(image.size, Image.Transform.AFFINE, shapes[name], resample, fillcolor=FILL)
    if name in enhancers:
        return getattr(ImageEnhance, enhancers[name])(image).enhance(share * 1.8 + 0.1)
    if name == "rotate":
        return image.rotate(sign * share * 30, resample, fillcolor=FILL)
    if name == "posterize":
        return ImageOps.posterize(image, int(share * 4))
    if name == "solarize":
        return ImageOps.solarize(image, int(share * 256))
    if name == "solarize_add":
        table = [min(255, grey + int(share * 110)) if grey < 128 else grey for grey in range(256)]
        return image.point(table * 3)
    return getattr(ImageOps, name)(image)


apply_operation = jax.jit(randaugment.apply_operation)


@pytest.mark.parametrize("name", randaugment.OPERATIONS)
def test_an_operation_equals_pillow(name):
    images, rng = np.tile(sample_images(), (4, 1, 1, 1)), np.random.default_rng(0)
    count = len(images)
    level = np.minimum(10, rng.normal(10, 0.5, count)).astype(np.float32)
    level[:12] = rng.uniform(3, 10, 12)
    sign, cubic = rng.choice([-1.0, 1.0], count).astype(np.float32), rng.random(count) < 0.5
    number = np.full(count, policies.OPERATIONS.index(name), np.int32)
    ours = np.asarray(apply_operation(jnp.asarray(images), randaugment.Draw(number, level, sign, cubic)))
    theirs = on_pillow(
        lambda image, *draw: pillow_operation(image, name, *draw), images, level.tolist(), sign.tolist(), cubic
    )
    if name in policies.GEOMETRIC:  # by a level at most, but for single pixels from the image's very edge
        assert np.mean(np.abs(ours.astype(int) - theirs) > 1) < 1e-4
    else:
        assert difference(ours, theirs) <= (1 if name in policies.BLEND else 0)


def test_frequencies():
    operation, level, sign, cubic = map(np.asarray, randaugment.draw(jax.random.key(0), SAMPLES))
    index = [policies.OPERATIONS.index(name) for name in ("identity", *randaugment.OPERATIONS)]
    assert len(index) == 16
    rates = np.array([0.5] + [0.5 / 15] * 15)
    for draw in range(2):
        assert_rate(operation[:, draw, None] == np.array(index), rates)
    assert_rate(operation[:, :1] == operation[:, 1:], 0.25 + 15 * (0.5 / 15) ** 2)
    assert_rate(level == 10, 0.5)
    assert level.max() == 10 and abs(level[level < 10].mean() - (10 - 0.5 * np.sqrt(2 / np.pi))) < 0.02
    assert_rate(sign > 0, 0.5)
    assert_rate(cubic, 0.5)


@pytest.mark.slow
def test_two_operations_one_after_the_other():
    images, key = jnp.asarray(sample_images()), jax.random.key(3)
    expected = images
    draws = randaugment.draw(key, len(images))
    for number in range(2):
        expected = apply_operation(expected, randaugment.Draw(*(values[:, number] for values in draws)))
    np.testing.assert_array_equal(jax.jit(randaugment.random_augment)(key, images), expected)
