"""Image files to pixels: one documented way for every kind of file, the pixels that Pillow gives.

The first frame of an animation; turned as EXIF's orientation says; grey, palette and CMYK converted to RGB as Pillow's
`convert` does, which leaves alpha out (so do torchvision's data sets); of 16 bits the upper 8; of 32-bit floats the
whole part, from 0 to 255. JPEGs go through simplejpeg where it is installed: the same pixels, faster.
"""

import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ncl_jax.data.images import transforms
from ncl_jax.errors import DataError, one_line
from ncl_jax.runtime.files import read_file

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

Images = np.ndarray | Sequence[Any] | str | os.PathLike | Image.Image
MOST_PIXELS = 2**26  # of one image: larger ones are refused before they are decoded
_ORIENTATION = 0x0112  # EXIF's tag
_UPRIGHT: dict[int, Any] = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
warnings.filterwarnings("ignore", message="Corrupt EXIF data")  # the pixels may be good all the same
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # MOST_PIXELS is less


class UnreadableImage(DataError):
    """A file that is no image, is damaged, or too large."""

    def __init__(self, name: str, reason: str):
        self._arguments = name, reason
        super().__init__(f"{name} cannot be read as an image ({reason})")

    def __reduce__(self) -> tuple:
        """For the processes that decode: they send it to the one that reports it."""
        return UnreadableImage, self._arguments


def decode(encoded: bytes, name: str) -> np.ndarray:
    """The pixels of an image file, uint8 [H, W, 3] RGB. Raises UnreadableImage, which names it by `name`."""
    try:
        image = open_image(encoded, name)
        turn = orientation(image)
        if simplejpeg and image.format == "JPEG" and image.mode in ("L", "RGB") and turn == 1:
            try:
                return simplejpeg.decode_jpeg(encoded, "RGB")
            except ValueError:
                pass  # Pillow decides what is damaged
        return to_rgb(upright(image, turn))
    except (UnreadableImage, MemoryError):
        raise
    except Exception as error:  # Pillow lets through whatever a malformed file provokes
        raise UnreadableImage(name, one_line(error, 200) or type(error).__name__) from error


def orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1, upright, where there is none or it cannot be read."""
    try:
        turn = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # as above; the pixels may be good all the same
        return 1
    return turn if turn in _UPRIGHT else 1


def upright(image: Image.Image, turn: int) -> Image.Image:
    """The image as its orientation says that it is to be shown."""
    return image if turn == 1 else image.transpose(_UPRIGHT[turn])


def read_image(path: Path) -> np.ndarray:
    """The pixels of a file. Raises DataError, naming it, where it cannot be read."""
    return decode(read_file(path), str(path))


def open_image(encoded: bytes, name: str) -> Image.Image:
    """The image with its header read, not yet decoded. Raises UnreadableImage if it is too large, OSError if none."""
    if not encoded:
        raise UnreadableImage(name, "the file is empty")
    try:
        image = Image.open(io.BytesIO(encoded))
    except Image.UnidentifiedImageError as error:
        raise UnreadableImage(name, "no known image format") from error
    except Image.DecompressionBombError as error:  # more than Pillow opens
        raise UnreadableImage(name, f"its pixels are more than {MOST_PIXELS:,}") from error
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise UnreadableImage(name, f"{width} x {height} pixels are more than {MOST_PIXELS:,}")
    return image


def size(encoded: bytes, name: str) -> tuple[int, int]:
    """Height and width in pixels, as the image is shown, from its header. Raises UnreadableImage."""
    try:
        image = open_image(encoded, name)
        width, height = image.size
        return (width, height) if orientation(image) >= 5 else (height, width)
    except (UnreadableImage, MemoryError):
        raise
    except Exception as error:  # as in decode
        raise UnreadableImage(name, one_line(error, 200)) from error


def to_rgb(image: Image.Image) -> np.ndarray:
    """uint8 [H, W, 3] of a Pillow image of any mode."""
    if image.mode.startswith("I"):
        grey = (np.clip(np.asarray(image).astype(np.int64), 0, 65535) >> 8).astype(np.uint8)
    elif image.mode == "F":
        grey = np.nan_to_num(np.clip(np.asarray(image), 0, 255)).astype(np.uint8)
    else:
        return np.asarray(image.convert("RGB"))
    return np.repeat(grey[..., None], 3, axis=-1)


def prepare(
    images: Images, image_shape: Sequence[int], resize: int, size: int, interpolation: str = "bilinear"
) -> np.ndarray:
    """Images as a network takes them, uint8 `[B, H, W, 3]`.

    Args:
      images: an array of exactly that, which is taken as it is; or a sequence of files' paths, PIL images and RGB
        arrays uint8 `[H, W, 3]` of any size, to each of which the test transform is applied; or one path or PIL image.
      image_shape: H, W, 3.
      resize, size, interpolation: of the test transform, see `transforms.fit`.

    Raises:
      ValueError: for an array of another type or shape, or no image.
      DataError: a file cannot be read.
    """
    if isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.shape[1:] == tuple(image_shape):
        return images
    if isinstance(images, str | os.PathLike | Image.Image):
        images = [images]
    if not len(images):
        raise ValueError("there is no image: give one or more")
    return np.stack([transforms.fit(_pixels(image), resize, size, interpolation) for image in images])


def _pixels(image: Any) -> np.ndarray:
    """One image as uint8 `[H, W, 3]`."""
    if isinstance(image, str | os.PathLike):
        return read_image(Path(image))
    if isinstance(image, Image.Image):
        return to_rgb(upright(image, orientation(image)))
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"an image is {image.dtype} {image.shape}: give uint8 [H, W, 3], RGB, a path or a PIL image")
    return image
