"""What the images of a data set are, found by decoding every one of them."""

import hashlib
from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ncl_jax.data.images import parallel
from ncl_jax.data.types import Split
from ncl_jax.errors import DataError

FLAT = 16  # grey levels of 256: an image whose values are all nearer to each other shows next to nothing


class Examined(NamedTuple):
    """The images of one split, in its order."""

    sizes: np.ndarray  # int [N, 2], height and width in pixels; 0 for an image that cannot be read
    contents: list[bytes]  # [N], equal where the pixels are; empty for an image that cannot be read
    flat: np.ndarray  # bool [N]: of one colour, or nearly
    errors: list[str]  # of the images that cannot be read, each with its name


def examine(split: Split, text: str) -> Examined:
    """Decodes all images on all cores; `text` is for the progress bar."""

    def look(row: int) -> tuple[tuple[int, int], bytes, bool, str]:
        try:
            image = parallel.decoded(split.images, row)
        except DataError as error:
            return (0, 0), b"", False, str(error)
        shape = np.asarray(image.shape, np.int32).tobytes()
        return image.shape[:2], hashlib.sha1(shape + image.tobytes()).digest(), is_flat(image), ""

    sizes, contents, flat, errors = zip(*parallel.in_threads(look, len(split), text), strict=True)
    return Examined(np.array(sizes), list(contents), np.array(flat), [error for error in errors if error])


def is_flat(image: np.ndarray) -> bool:
    """Whether an image uint8 [H, W, 3] is of one colour, or nearly."""
    extrema: Any = Image.fromarray(image).getextrema()  # of each channel
    return all(high - low < FLAT for low, high in extrema)


def shared(first: Examined, second: Examined) -> list[tuple[int, int]]:
    """Pairs of rows, one of each split, with the same pixels."""
    rows: dict[bytes, list[int]] = defaultdict(list)
    for row, content in enumerate(first.contents):
        rows[content].append(row)
    return [(mine, row) for row, content in enumerate(second.contents) if content for mine in rows.get(content, ())]


def in_two_classes(split: Split, examined: Examined) -> list[tuple[int, int]]:
    """Pairs of rows of one split with the same pixels and different labels; the earlier one is the first such image."""
    first: dict[bytes, int] = {}
    pairs = []
    for row, content in enumerate(examined.contents):
        earlier = first.setdefault(content, row)
        if content and split.labels[earlier] != split.labels[row]:
            pairs.append((earlier, row))
    return pairs
