"""Small pictures of images as people see them: of the files themselves, in their own aspect."""

import io
from typing import Any

import numpy as np
from PIL import Image

from ncl_jax.data.images import decode
from ncl_jax.data.types import name_of

QUALITY = 70  # of the JPEGs


def jpeg(of_split: Any, row: int, longest: int) -> bytes:
    """One image of a split as a JPEG whose longer side has `longest` pixels at most; nothing is enlarged.

    Raises:
      DataError: its file cannot be read.
    """
    image, file = of_split[row], io.BytesIO()
    small = (
        Image.fromarray(image)
        if isinstance(image, np.ndarray)
        else decode.reduced(image, name_of(of_split, row), longest)
    )
    small.thumbnail((longest, longest))
    small.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()
