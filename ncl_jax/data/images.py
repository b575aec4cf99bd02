"""Image files to pixels: one documented way for every kind of file, the pixels that Pillow gives.

The first frame of an animation; turned as EXIF's orientation says; grey, palette and CMYK converted to RGB as Pillow's
`convert` does, which leaves alpha out (so do torchvision's data sets); of 16 bits the upper 8; of 32-bit floats the
whole part, from 0 to 255. JPEGs go through simplejpeg where it is installed: the same pixels, faster.
"""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ncl_jax.errors import DataError

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

MOST_PIXELS = 2**26  # of one image: larger ones are refused before they are decoded
_ORIENTATION = 0x0112  # EXIF's tag
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # MOST_PIXELS is less


class UnreadableImage(DataError):
    """A file that is no image, is damaged, or too large."""

    def __init__(self, name: str, reason: str):
        super().__init__(
            f"{name} cannot be read as an image ({reason}): replace or remove it, or set data.skip_unreadable=True. "
            "ncl-jax inspect finds all such files"
        )


def decode(encoded: bytes, name: str) -> np.ndarray:
    """The pixels of an image file, uint8 [H, W, 3] RGB. Raises UnreadableImage, which names it by `name`."""
    try:
        image = open_image(encoded, name)
        turned = image.getexif().get(_ORIENTATION, 1) != 1
        if simplejpeg and image.format == "JPEG" and image.mode in ("L", "RGB") and not turned:
            try:
                return simplejpeg.decode_jpeg(encoded, "RGB")
            except ValueError:
                pass  # Pillow decides what is damaged
        return to_rgb(ImageOps.exif_transpose(image) if turned else image)
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UnreadableImage(name, " ".join(str(error).split())[:200] or type(error).__name__) from error


def read_image(path: Path) -> np.ndarray:
    """The pixels of a file. Raises DataError, naming it, where it cannot be read."""
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    return decode(encoded, str(path))


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
        sideways = image.getexif().get(_ORIENTATION, 1) >= 5
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UnreadableImage(name, " ".join(str(error).split())[:200]) from error
    return (width, height) if sideways else (height, width)


def to_rgb(image: Image.Image) -> np.ndarray:
    """uint8 [H, W, 3] of a Pillow image of any mode."""
    if image.mode.startswith("I"):
        grey = (np.clip(np.asarray(image).astype(np.int64), 0, 65535) >> 8).astype(np.uint8)
    elif image.mode == "F":
        grey = np.nan_to_num(np.clip(np.asarray(image), 0, 255)).astype(np.uint8)
    else:
        return np.asarray(image.convert("RGB"))
    return np.repeat(grey[..., None], 3, axis=-1)
