"""Numbers of more than 8 bits to grey levels: one rule, decided by each file alone.

Pictures of 8 bits a channel (Pillow's modes 1, L, LA, P, PA, RGB, RGBA, CMYK, YCbCr, LAB) are none of its business:
Pillow converts them. Whole numbers (modes I and I;16) and floats (F) have no range of their own, since 12 bits are
commonly kept in 16 and fractions in floats. So the range is

1. what the file says: Pillow scales PPM and JPEG 2000 to 16 bits; a TIFF's BitsPerSample, and its sample values' least
   and most where all lie within and where they say more than how many bits there are;
2. else 0 to the first of 1 (floats only), 255, 4095 and 65535 that no value exceeds; floats may by a tenth, and be
   negative by a tenth of the largest;
3. else the file's own, from its least value to its most.

It is cut into 256 equal steps: of 8, 12 or 16 bits the upper 8, of floats up to 255 the whole part.
"""

from typing import Any

import numpy as np
from PIL import Image

VERSION = 2  # of the rule, written down with each run; 0: unknown, of a run from before it was
LIMITS = (1, 255, 4095, 65535)
BEYOND = 0.1  # of its range that a float may lie outside of it: what resampling does to edges
BLOCK = 2**20  # values at a time: their float64s take 8 MB
_BITS, _FORMAT = 258, 339  # TIFF's tags
_LEAST, _MOST = (340, 280), (341, 281)  # SMinSampleValue, MinSampleValue; SMaxSampleValue, MaxSampleValue


def eight_bits(image: Image.Image) -> Image.Image:
    """The image itself if it has 8 bits a channel, otherwise its grey levels, of mode L.

    Raises:
      ValueError: a value is infinite or NaN.
    """
    if image.mode != "F" and not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    if image.mode == "I" and (tag_of(image, _FORMAT), tag_of(image, _BITS)) == (1, 32):
        values = values.view(np.uint32)  # Pillow takes them for signed
    low, high = values.min().item(), values.max().item()
    if not np.isfinite([low, high]).all():
        raise ValueError("it holds values that are infinite or not a number: replace them")
    return Image.fromarray(_levels(values, *_range(image, low, high)))


def _levels(values: np.ndarray, least: float, width: float) -> np.ndarray:
    """Grey levels uint8 [H, W]: 256 equal steps from `least` on; what lies outside gets the first or the last."""
    levels = np.empty(values.shape, np.uint8)
    rows = max(1, BLOCK // values.shape[1])
    for top in range(0, len(values), rows):
        part = (values[top : top + rows].astype(np.float64) - least) * 256 / width
        levels[top : top + rows] = np.clip(part, 0, 255)
    return levels


def _range(image: Image.Image, low: float, high: float) -> tuple[float, float]:
    """The least value and the width of the range of values that lie from `low` to `high`."""
    floats = image.mode == "F"
    declared = _declared(image)
    if declared and declared[0] <= low and high <= declared[1]:
        return declared[0], declared[1] - declared[0] + (not floats)
    slack = BEYOND if floats else 0
    for limit in LIMITS if floats else LIMITS[1:]:
        if high <= limit * (1 + slack) and low >= -slack * high:
            return 0, limit + (limit > 1)
    return low, high - low + (not floats) or 1


def _declared(image: Image.Image) -> tuple[float, float] | None:
    """The least and the most value that the file says there are; None where it says nothing of use."""
    floats = image.mode == "F"
    if image.format in ("PPM", "JPEG2000"):
        return None if floats else (0, 65535)
    least, most = ([tag_of(image, tag) for tag in tags if tag_of(image, tag) is not None] for tags in (_LEAST, _MOST))
    bits = 0 if floats else tag_of(image, _BITS) or 0
    if most and (floats or most[0] < 2**bits - 1):
        found = (least[0] if least else 0), most[0]
        return found if found[0] < found[1] else None
    return (0, 2**bits - 1) if 0 < bits < 16 else None


def tag_of(image: Image.Image, number: int) -> Any:
    """A TIFF's number of that tag, the first of several; None where there is none."""
    value = getattr(image, "tag_v2", {}).get(number)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int | float) else None
