"""What the images of a data set are, found by decoding every one of them."""

import hashlib
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ncl_jax.data.images import parallel
from ncl_jax.data.types import Split
from ncl_jax.errors import DataError

SIDE = 16  # pixels of the small grey images that near duplicates are confirmed by
FLAT = 16  # grey levels of 256: an image whose values are all nearer to each other shows next to nothing


class Examined(NamedTuple):
    """The images of one split, in its order."""

    sizes: np.ndarray  # int [N, 2], height and width in pixels; 0 for an image that cannot be read
    contents: list[bytes]  # [N], equal where the pixels are; empty for an image that cannot be read
    flat: np.ndarray  # bool [N]: of one colour, or nearly
    small: np.ndarray  # uint8 [N, SIDE, SIDE], grey; black for an image that cannot be read
    errors: list[str]  # of the images that cannot be read, each with its name


def examine(split: Split, text: str) -> Examined:
    """Decodes all images on all cores; `text` is for the progress bar."""

    def look(row: int) -> tuple[tuple[int, int], bytes, bool, np.ndarray, str]:
        try:
            image = parallel.decoded(split.images, row)
        except DataError as error:
            return (0, 0), b"", False, np.zeros((SIDE, SIDE), np.uint8), str(error)
        shape = np.asarray(image.shape, np.int32).tobytes()
        return image.shape[:2], hashlib.sha1(shape + image.tobytes()).digest(), is_flat(image), small_grey(image), ""

    sizes, contents, flat, small, errors = zip(*parallel.in_threads(look, len(split), text), strict=True)
    named = [error for error in errors if error]
    return Examined(np.array(sizes), list(contents), np.array(flat), np.stack(small), named)


def small_grey(image: np.ndarray) -> np.ndarray:
    """An image uint8 [H, W, 3] as grey values uint8 [SIDE, SIDE], whatever its size and aspect."""
    grey = Image.fromarray(np.ascontiguousarray(image)).convert("L")
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX))


def is_flat(image: np.ndarray) -> bool:
    """Whether an image uint8 [H, W, 3] is of one colour, or nearly."""
    extrema: Any = Image.fromarray(image).getextrema()  # of each channel
    return all(high - low < FLAT for low, high in extrema)


Pairs = list[tuple[int, int]]  # (row of the first image with these pixels, row of another one): an image stands once


def shared(first: Examined, second: Examined) -> Pairs:
    """The images of the second split whose pixels an image of the first has too, each with the first such image."""
    rows = _first_rows(first)
    return [(rows[content], row) for row, content in enumerate(second.contents) if content in rows]


def repeated(split: Split, examined: Examined) -> tuple[Pairs, Pairs]:
    """The images of a split whose pixels an earlier one has: of the same class, and of another one."""
    rows = _first_rows(examined)
    pairs = [(rows[content], row) for row, content in enumerate(examined.contents) if rows.get(content, row) != row]
    same = [pair for pair in pairs if split.labels[pair[0]] == split.labels[pair[1]]]
    return same, [pair for pair in pairs if split.labels[pair[0]] != split.labels[pair[1]]]


def _first_rows(examined: Examined) -> dict[bytes, int]:
    """The first row of every content."""
    rows: dict[bytes, int] = {}
    for row, content in enumerate(examined.contents):
        if content:
            rows.setdefault(content, row)
    return rows
