"""Image files to pixels: one documented way for every kind of file, the pixels that Pillow gives.

The first frame of an animation; turned as EXIF's orientation says; grey, palette and CMYK converted to RGB as Pillow's
`convert` does, which leaves alpha out (so do torchvision's data sets); numbers of more than 8 bits by the rule of
`pixels`. JPEGs go through simplejpeg where it is installed: the same pixels, faster.
"""

import contextlib
import functools
import importlib
import io
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ncl_jax.data.images import pixels, transforms
from ncl_jax.errors import ConfigError, DataError, NclError, one_line
from ncl_jax.runtime import extras
from ncl_jax.runtime.files import read_file

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

Images = np.ndarray | Sequence[Any] | str | os.PathLike | Image.Image
MOST_PIXELS = 2**26  # of one image: larger ones are refused before they are decoded
BOUND = "NCL_JAX_MOST_PIXELS"  # the environment variable that raises it
MOST_BYTES = 16  # of a file for each of those pixels: four numbers of 32 bits
MOST_SCANS = 500  # of a JPEG: of thirty bytes each, they are decoded over the whole picture; programs write ten
MOST_SEGMENTS = 100_000  # of a JPEG: of one with more the scans are not counted
# What a file may be, by Pillow's names: of the others some start programs (EPS), some are read by code that few use.
DECODERS = {
    "JPEG": "Jpeg", "PNG": "Png", "TIFF": "Tiff", "WEBP": "WebP", "GIF": "Gif", "BMP": "Bmp", "PPM": "Ppm",
    "JPEG2000": "Jpeg2K", "AVIF": "Avif",
}  # fmt: skip
HEIF = "HEIF"  # where pillow-heif is installed
HEIC = (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypheim", b"ftyphevc")  # how such a file begins, after 4 bytes
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # of JPEG: but for those without a length, which stand in scans
_SCAN = b"\xff\xda"
_ORIENTATION, _WIDTH, _LENGTH = 0x0112, 256, 257  # tags of EXIF and TIFF
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
# What Pillow says of damaged metadata: the pixels may be good all the same.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")  # which reads EXIF, too
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # MOST_PIXELS is less


class UnreadableImage(DataError):
    """A file that is not an image, is damaged, or too large."""

    def __init__(self, name: str, reason: str):
        self._arguments = name, reason
        super().__init__(f"{name} cannot be read as an image ({reason})")

    def __reduce__(self) -> tuple:
        """For the processes that decode: they send it to the one that reports it."""
        return UnreadableImage, self._arguments


class NotEnoughMemory(DataError):
    """An image that the machine has no memory for now: nothing is wrong with the file."""


def decode(encoded: bytes, name: str) -> np.ndarray:
    """The pixels of an image file, uint8 [H, W, 3] RGB.

    Raises:
      UnreadableImage: it is none, or damaged, or too large; named by `name`.
      NotEnoughMemory: likewise.
      ConfigError: see `most_pixels`.
    """
    with _naming(name):
        image = open_image(encoded, name)
        if simplejpeg and image.format == "JPEG" and image.mode in ("L", "RGB") and orientation(image) == 1:
            try:
                return simplejpeg.decode_jpeg(encoded, "RGB")
            except ValueError:
                pass  # Pillow decides what is damaged
        return to_rgb(image)


def reduced(encoded: bytes, name: str, least: int) -> Image.Image:
    """An image file for a small picture of at least `least` pixels: a JPEG is decoded at a fraction of its size, which
    takes little time. Errors as for `decode`."""
    with _naming(name):
        image = open_image(encoded, name)
        image.draft(None, (2 * least, 2 * least))
        return Image.fromarray(to_rgb(image))


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Whatever a malformed image provokes (Pillow lets all of it through) becomes an error that names it."""
    try:
        yield
    except NclError:
        raise
    except MemoryError as error:
        raise _no_memory(name) from error
    except Exception as error:
        raise UnreadableImage(name, one_line(error, 200) or type(error).__name__) from error


def _no_memory(name: str) -> NotEnoughMemory:
    return NotEnoughMemory(f"{name} cannot be decoded: there is not enough memory for it; make it smaller")


def orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8, that is still to be followed; 1, upright, where there is none or it cannot be read.

    Of a TIFF it is 1: Pillow turns those itself when they are loaded.
    """
    return 1 if image.format == "TIFF" else _exif_orientation(image)


def _exif_orientation(image):
    try:
        turn = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # as above; the pixels may be good all the same
        return 1
    return turn if turn in _UPRIGHT else 1


def to_rgb(image: Image.Image) -> np.ndarray:
    """uint8 [H, W, 3] of a Pillow image of any mode, as its orientation says that it is to be shown.

    Raises ValueError for values that are infinite or NaN, and what Pillow does for damaged files.
    """
    turn = orientation(image)
    image = pixels.eight_bits(image)
    return np.asarray((image if turn == 1 else image.transpose(_UPRIGHT[turn])).convert("RGB"))


def read_encoded(path: Path) -> bytes:
    """The content of an image file. Raises DataError, naming it, where it cannot be read or is far too long."""
    with _naming(str(path)):
        return read_file(path, MOST_BYTES * most_pixels())


def read_image(path: Path) -> np.ndarray:
    """The pixels of a file. Raises DataError, naming it, where it cannot be read."""
    return decode(read_encoded(path), str(path))


def most_pixels() -> int:
    """Pixels of the largest image that is decoded. Raises ConfigError for a bad value of the environment variable."""
    text = os.environ.get(BOUND)
    if not text:
        return MOST_PIXELS
    if not re.fullmatch("[1-9][0-9]{0,11}", text):
        raise ConfigError(f"{BOUND}={text} must be a number of pixels, such as {2 * MOST_PIXELS}")
    return int(text)


@functools.cache
def decoders() -> tuple[str, ...]:
    """The names of `DECODERS` that this Pillow has, and `HEIF`."""
    for module in DECODERS.values():
        with contextlib.suppress(ImportError):  # older ones have no AVIF
            importlib.import_module(f"PIL.{module}ImagePlugin")
    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()
    return tuple(name for name in (*DECODERS, HEIF) if name in Image.OPEN)


def open_image(encoded: bytes, name: str) -> Image.Image:
    """The image with its header read, not yet decoded: the one place where image files are opened.

    Raises UnreadableImage if it is none of `DECODERS` or too large; what Pillow does for damaged files.
    """
    if not encoded:
        raise UnreadableImage(name, "the file is empty")
    most = most_pixels()
    if Image.MAX_IMAGE_PIXELS is not None and most > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = most  # Pillow refuses what has twice as many
    try:
        image = Image.open(io.BytesIO(encoded), formats=decoders())
    except Image.UnidentifiedImageError as error:
        known, heic = ", ".join(decoders()), encoded[4:12] in HEIC and HEIF not in decoders()
        why = f"HEIC, which needs {extras.install('heif')}" if heic else "not a known image format"
        raise UnreadableImage(name, f"{why}: convert it to one of {known}") from error
    except Image.DecompressionBombError as error:
        count = int((re.findall(r"\d+", str(error)) or [0])[0])
        raise UnreadableImage(name, _too_large(f"its {count:,} pixels", count, most)) from error
    width, height = image.size
    if width * height > most:
        raise UnreadableImage(name, _too_large(f"{width} x {height} pixels", width * height, most))
    if image.format in ("JPEG", "MPO") and encoded.count(_SCAN) > MOST_SCANS and scans(encoded) > MOST_SCANS:
        raise UnreadableImage(name, f"it has more than {MOST_SCANS} scans, which would take hours: save it anew")
    return image


def scans(encoded: bytes) -> int:
    """The scans of a JPEG, of which its decoder takes each over the whole picture; at most `MOST_SCANS` + 1, and that
    also for one of more than `MOST_SEGMENTS`. What follows the picture, such as a film, is not counted."""
    place, found = 2, 0
    for _ in range(MOST_SEGMENTS):
        marker = _MARKER.search(encoded, place)
        if marker is None or marker[0] == b"\xff\xd9" or found > MOST_SCANS:
            return found
        found += marker[0] == _SCAN
        place = marker.end() + int.from_bytes(encoded[marker.end() : marker.end() + 2], "big")
    return MOST_SCANS + 1


def _too_large(size: str, count: int, most: int) -> str:
    return f"{size} are more than {most:,}: make it smaller, or set the environment variable {BOUND}={count}"


def size(encoded: bytes, name: str) -> tuple[int, int]:
    """Height and width in pixels, as the image is shown, from its header; errors as for `decode`."""
    with _naming(name):
        image = open_image(encoded, name)
        width, height = image.size
        if image.format == "TIFF":  # Pillow's releases differ in which of the two is the width before it is loaded
            width, height = pixels.tag_of(image, _WIDTH) or width, pixels.tag_of(image, _LENGTH) or height
        return (width, height) if _exif_orientation(image) >= 5 else (height, width)


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
      DataError: a file or PIL image cannot be read.
    """
    if isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.shape[1:] == tuple(image_shape):
        return images
    if isinstance(images, str | os.PathLike | Image.Image):
        images = [images]
    if not len(images):
        raise ValueError("there is no image: pass one or more")
    return np.stack([_fitted(image, resize, size, interpolation) for image in images])


def _fitted(image: Any, resize: int, size: int, interpolation: str) -> np.ndarray:
    """One image by the test transform."""
    try:
        return transforms.fit(_pixels(image), resize, size, interpolation)
    except MemoryError as error:
        raise _no_memory(_name(image)) from error


def _name(image: Any) -> str:
    """What an image is called in messages."""
    path = image if isinstance(image, str | os.PathLike) else getattr(image, "filename", "")
    return os.fsdecode(path) or "a given image"


def _pixels(image: Any) -> np.ndarray:
    """One image as uint8 `[H, W, 3]`."""
    if isinstance(image, str | os.PathLike):
        return read_image(Path(image))
    if isinstance(image, Image.Image):
        with _naming(_name(image)):
            return to_rgb(image)
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"an image is {image.dtype} {image.shape}: pass uint8 [H, W, 3], RGB, a path or a PIL image")
    return image
