"""Which data is decoded once and lives on the devices, and how."""

import numpy as np

from ncl_jax.data import decoding
from ncl_jax.data.sources.source import Split

LARGEST_RESIDENT = 2**31  # bytes of decoded images; larger sets are streamed


def decoded_bytes(num_images: int, size: int) -> int:
    """What images of a size take as uint8."""
    return num_images * size**2 * 3


def alike(shapes: np.ndarray) -> bool:
    """Whether all heights and widths, int [N, 2], are the same."""
    return bool((shapes == shapes[:1]).all())


def stored(split: Split, *, feed: str, size: int, resize: int, resizes: bool, text: str) -> np.ndarray | None:
    """The images of a split as an array for the devices; None where they are to be streamed.

    Args:
      split: the images.
      feed: "resident", "stream", or "auto" for whichever suits.
      size, resize: of the test transform, see `transforms.fit`.
      resizes: whether the views begin by cutting an image of any size to the network's. Such images are stored as they
        are if all are of one size; otherwise "auto" streams them, and "resident" stores the test transform's square
        of side `resize`.
      text: for the progress bar.

    Returns:
      uint8 [N, H, W, 3]: of the network's size, unless the views resize.
    """
    in_memory = isinstance(split.images, np.ndarray)
    if feed == "stream" or (feed == "auto" and not in_memory and decoded_bytes(len(split), size) > LARGEST_RESIDENT):
        return None
    if in_memory and (resizes or split.images.shape[1:3] == (size, size)):
        return split.images
    if not resizes:
        return decoding.fitted(split, resize, size, text)
    shapes = decoding.sizes(split, "reading the images' sizes")
    if alike(shapes) and (feed == "resident" or shapes.prod(1).sum() * 3 <= LARGEST_RESIDENT):
        return decoding.whole(split, text)
    return decoding.fitted(split, resize, resize, text) if feed == "resident" else None
