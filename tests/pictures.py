"""Images for tests of what is done to images, and Pillow as their oracle."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def real_images():
    """uint8 [12, 32, 32, 3]: images of the CIFAR-100 test set."""
    sheet = np.asarray(Image.open(pathlib.Path(__file__).parent / "data" / "cifar100_test_images.png"))
    return sheet.reshape(3, 32, 4, 32, 3).swapaxes(1, 2).reshape(12, 32, 32, 3)


@functools.cache
def sample_images():
    """uint8 [24, 32, 32, 3]: real images and cases at the edges."""
    rng = np.random.default_rng(0)
    ramp = np.arange(32 * 32).reshape(32, 32)
    made = [np.full((32, 32, 3), grey) for grey in (0, 255, 128, 77)]
    made += [np.stack([ramp // 4, ramp.T // 4, 255 - ramp // 4], -1)]  # all levels
    made += [np.stack([ramp % 2 * 255, ramp % 32 // 2, ramp % 32 // 4 + 100], -1)]  # extremes, low contrast
    made += [rng.integers(0, 256, (32, 32, 3)), rng.integers(100, 104, (32, 32, 3))]
    made += [rng.choice([low, high], (32, 32, 3)) for low, high in ((3, 46), (20, 255), (254, 255))]
    made += [np.where(ramp[..., None] == 500, 9, np.full(3, 200))]  # all but one pixel alike
    return np.concatenate([real_images(), np.array(made).astype(np.uint8)])


def on_pillow(function, images, *arguments):
    """Applies function(Pillow image, one of each argument) to each image of uint8 [B, H, W, 3]."""
    pairs = zip(images, *arguments, strict=True)
    return np.stack([np.asarray(function(Image.fromarray(image), *values)) for image, *values in pairs])


def difference(ours, theirs):
    """Largest difference in grey levels."""
    return np.abs(np.asarray(ours).astype(int) - theirs.astype(int)).max()


BATCH = 480  # one size for everything whose compilation tests share
jitted = functools.cache(jax.jit)


def batch_of(images, count=BATCH):
    return jnp.asarray(np.resize(images, (count, *images.shape[1:])))


def assert_rate(observed, rate):
    """The observed booleans have this expectation, within five standard deviations."""
    tolerance = 5 * np.sqrt(rate * (1 - rate) / len(observed)) + 1e-9
    observed = np.mean(observed, axis=0)
    assert (np.abs(observed - rate) <= tolerance).all(), (observed, rate)


def torchvision_boxes(rng, count, height, width, scale=(0.2, 1)):
    """RandomResizedCrop.get_params of square images, one box at a time."""
    boxes = []
    for _ in range(count):
        box = (0, 0, height, width)
        for _ in range(10):
            area, aspect = height * width * rng.uniform(*scale), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
            columns, rows = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
            if 0 < columns <= width and 0 < rows <= height:
                box = rng.integers(height - rows + 1), rng.integers(width - columns + 1), rows, columns
                break
        boxes.append(box)
    return np.array(boxes)
