"""What the host does to a decoded image before it goes to the devices: crop and resize, uint8 to uint8."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

BOX_RATIO = (3 / 4, 4 / 3)  # width over height
INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
MOST_SCALED = 2**24  # pixels of an image that is scaled as a whole before its centre is cut out


def scale_to(image: np.ndarray, height: int, width: int, interpolation: str = "bilinear") -> np.ndarray:
    """With antialiasing, as `Image.resize`, by one of `INTERPOLATIONS`: uint8 [H, W, 3] to [height, width, 3]."""
    if image.shape[:2] == (height, width):
        return image
    resized = Image.fromarray(np.ascontiguousarray(image)).resize((width, height), INTERPOLATIONS[interpolation])
    return np.asarray(resized)


def fit(image: np.ndarray, resize: int, size: int, interpolation: str = "bilinear") -> np.ndarray:
    """The test transform: the shorter side scaled to `resize`, then the centre, uint8 [size, size, 3].

    Equivalent to torchvision's `Resize(resize)` and `CenterCrop(size)`.
    """
    height, width = image.shape[:2]
    shorter = min(height, width)
    rows, columns = int(resize * height / shorter), int(resize * width / shorter)
    top, left = (round((side - size) / 2) for side in (rows, columns))
    if rows * columns > max(MOST_SCALED, 4 * resize**2):
        return _scaled_part(image, rows, columns, top, left, size, interpolation)
    return scale_to(image, rows, columns, interpolation)[top : top + size, left : left + size]


def _scaled_part(
    image: np.ndarray, rows: int, columns: int, top: int, left: int, size: int, interpolation: str
) -> np.ndarray:
    """What `scale_to(image, rows, columns)` has at `[top : top + size, left : left + size]`, up to rounding.

    The rest of a strip of a million by one pixels is not made: it would take gigabytes.
    """
    vertical, horizontal = image.shape[0] / rows, image.shape[1] / columns
    bottom, right = min((top + size) * vertical, image.shape[0]), min((left + size) * horizontal, image.shape[1])
    box = (left * horizontal, top * vertical, right, bottom)
    whole = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(whole.resize((size, size), INTERPOLATIONS[interpolation], box=box))


def random_resized_crop(
    rng: np.random.Generator,
    image: np.ndarray,
    *,
    size: int,
    scale: Sequence[float],
    interpolation: str = "bilinear",
) -> np.ndarray:
    """A box of a share within `scale` of the area, scaled to [size, size, 3]; see `draw_box`."""
    top, left, height, width = draw_box(rng, image.shape[0], image.shape[1], scale)
    return resized_crop(image, top, left, height, width, size, interpolation)


def random_square_crop(
    rng: np.random.Generator, image: np.ndarray, *, size: int, progress: float = 1.0, interpolation: str = "bicubic"
) -> np.ndarray:
    """A square of the image, scaled to [size, size, 3]; `progress`: see `least_share`."""
    height, width = image.shape[:2]
    whole, largest = height * width, min(height, width)
    most = largest**2 / whole
    share = rng.uniform(min(least_share(progress), most), most)
    side = min(max(round(math.sqrt(share * whole)), 1), largest)
    top, left = (int(rng.integers(length - side + 1)) for length in (height, width))
    return resized_crop(image, top, left, side, side, size, interpolation)


CHANGING = (random_square_crop,)  # that take the share of the epochs that are done, `progress`


def least_share(progress: Any) -> Any:
    """The least share of an image's area that a crop shows after a share `progress` of the epochs: from 0.08 to 1 on a
    quarter of a circle (minimalist data augmentation of LIFT+, arXiv 2504.13282)."""
    return 1 - 0.92 * (1 - progress**2) ** 0.5


def resized_crop(
    image: np.ndarray, top: int, left: int, height: int, width: int, size: int, interpolation: str = "bilinear"
) -> np.ndarray:
    """`Image.crop`, then `Image.resize` (antialiased), as torchvision's `resized_crop`."""
    return scale_to(image[top : top + height, left : left + width], size, size, interpolation)


def largest_box(height: int, width: int) -> tuple[int, int]:
    """Height and width of the largest box whose aspect is within `BOX_RATIO`."""
    return min(height, round(width / BOX_RATIO[0])), min(width, round(height * BOX_RATIO[1]))


def draw_box(rng: np.random.Generator, height: int, width: int, share: Sequence[float]) -> tuple[int, int, int, int]:
    """A box (top, left, height, width) as torchvision's `RandomResizedCrop` draws it: the first of ten attempts that
    fits, else the largest at the centre whose aspect is within bounds."""
    least, most = (math.log(bound) for bound in BOX_RATIO)
    for _ in range(10):
        area = height * width * rng.uniform(share[0], share[1])
        aspect = math.exp(rng.uniform(least, most))
        columns, rows = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < columns <= width and 0 < rows <= height:
            return int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1)), rows, columns
    rows, columns = largest_box(height, width)
    return (height - rows) // 2, (width - columns) // 2, rows, columns
