"""Image files of every kind to RGB: against Pillow, and what is refused."""

import contextlib
import io
import pickle
import struct
import zlib

import numpy as np
import pytest
from pictures import real_images
from PIL import Image, ImageOps

from ncl_jax.data.images import decode
from ncl_jax.data.images.decode import UnreadableImage


def picture(mode="RGB"):
    """A photograph of 64 x 48 pixels in a mode of Pillow's."""
    rows = np.concatenate(list(real_images()[:4]), axis=1)[:, :64]
    return Image.fromarray(np.concatenate([rows, rows[:16]])).convert(mode)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def oriented(turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    return encoded(picture(), "JPEG", exif=exif)


def sixteen_bits():
    grey = np.arange(64 * 48, dtype=np.uint16).reshape(48, 64) * 21
    return encoded(Image.fromarray(grey), "PNG")


def animated(kind):
    frames = [picture(), ImageOps.invert(picture())]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


def transparent_palette():
    return encoded(picture("P"), "PNG", transparency=3)


PILLOWS = {  # whose conversion to RGB is ours
    "JPEG": lambda: encoded(picture(), "JPEG"),
    "progressive JPEG": lambda: encoded(picture(), "JPEG", progressive=True, quality=70),
    "JPEG of all colours": lambda: encoded(picture(), "JPEG", subsampling=0),
    "grey JPEG": lambda: encoded(picture("L"), "JPEG"),
    "CMYK JPEG": lambda: encoded(picture("CMYK"), "JPEG"),
    "PNG": lambda: encoded(picture(), "PNG"),
    "PNG with alpha": lambda: encoded(picture("RGBA"), "PNG"),
    "grey PNG with alpha": lambda: encoded(picture("LA"), "PNG"),
    "palette": lambda: encoded(picture("P"), "PNG"),
    "palette with transparency": transparent_palette,
    "black and white": lambda: encoded(picture("1"), "PNG"),
    "BMP": lambda: encoded(picture(), "BMP"),
    "TIFF": lambda: encoded(picture(), "TIFF"),
    "CMYK TIFF": lambda: encoded(picture("CMYK"), "TIFF"),
    "WebP": lambda: encoded(picture(), "WEBP"),
    "PPM": lambda: encoded(picture(), "PPM"),
    "GIF": lambda: encoded(picture(), "GIF"),
}


@pytest.mark.parametrize("decoder", ["simplejpeg", "pillow"])
@pytest.mark.parametrize("kind", PILLOWS)
def test_the_pixels_are_pillows(kind, decoder, monkeypatch):
    if decoder == "pillow":
        monkeypatch.setattr(decode, "simplejpeg", None)
    elif decode.simplejpeg is None:
        pytest.skip("simplejpeg is not installed")
    content = PILLOWS[kind]()
    ours = decode.decode(content, "it")
    assert ours.dtype == np.uint8 and ours.shape == (48, 64, 3)
    np.testing.assert_array_equal(ours, np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))
    assert decode.size(content, "it") == (48, 64)


def test_jpegs_go_through_the_faster_decoder(monkeypatch):
    if decode.simplejpeg is None:
        pytest.skip("simplejpeg is not installed")
    monkeypatch.setattr(decode, "to_rgb", lambda image: pytest.fail("Pillow decoded"))
    for kind in ("JPEG", "progressive JPEG", "grey JPEG"):
        decode.decode(PILLOWS[kind](), "it")


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_orientation_is_honoured(turn):
    turned = {
        1: [], 2: ["FLIP_LEFT_RIGHT"], 3: ["ROTATE_180"], 4: ["FLIP_TOP_BOTTOM"], 5: ["TRANSPOSE"], 6: ["ROTATE_270"],
        7: ["TRANSVERSE"], 8: ["ROTATE_90"],
    }[turn]  # fmt: skip
    content = oriented(turn)
    expected = Image.open(io.BytesIO(content))
    for name in turned:
        expected = expected.transpose(Image.Transpose[name])
    ours = decode.decode(content, "it")
    np.testing.assert_array_equal(ours, np.asarray(expected))
    assert decode.size(content, "it") == ours.shape[:2] == ((64, 48) if turn > 4 else (48, 64))


def test_of_sixteen_bits_the_upper_eight():
    ours = decode.decode(sixteen_bits(), "it")
    assert (ours == (np.arange(64 * 48).reshape(48, 64, 1) * 21 >> 8)).all()


def test_of_floats_the_whole_part():
    values = np.linspace(-10, 275, 64 * 48, dtype=np.float32).reshape(48, 64)
    ours = decode.decode(encoded(Image.fromarray(values), "TIFF"), "it")
    np.testing.assert_array_equal(ours[..., 1], np.clip(values, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame(kind):
    single = decode.decode(encoded(picture(), kind), "it").astype(int)
    assert np.abs(decode.decode(animated(kind), "it") - single).mean() < 12


def bomb(width, height):
    """A PNG's header alone, of any size."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"hello", "not a known image format"),
        (b"\xff\xd8\xff", "not a known image format"),
        (bomb(100_000, 100_000), "its 10,000,000,000 pixels are more than 67,108,864"),
        (bomb(10_000, 10_000), "10000 x 10000 pixels are more than 67,108,864"),
        (encoded(picture(), "JPEG")[:900], "truncated"),
        (encoded(picture(), "PNG")[:900], "truncated"),
        (encoded(picture("L"), "JPEG")[:700], "truncated"),
        (encoded(picture(), "WEBP")[:200], "."),
    ],
    ids=["empty", "text", "start of a JPEG", "bomb", "large", "cut JPEG", "cut PNG", "cut grey JPEG", "cut WebP"],
)  # fmt: skip
def test_what_cannot_be_read_is_named(content, reason):
    with pytest.raises(UnreadableImage, match=rf"^the/file.jpg cannot be read as an image \(.*{reason}.*\)$"):
        decode.decode(content, "the/file.jpg")


def exif_of(kind, content):
    """EXIF with an orientation of any type, as 2: text, 3: a number, 7: undefined."""
    return b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHI4s", 0x0112, kind, 1, content) + bytes(4)


BAD_EXIF = {
    "text": exif_of(2, b"6"), "undefined": exif_of(7, b"\x06"), "no turn": exif_of(3, b"\x63"), "nothing": b"Exif",
    "cut": exif_of(3, b"\x06")[:20],
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_EXIF)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_damaged_exif_is_passed_over(kind, name):
    content = encoded(picture(), kind, exif=BAD_EXIF[name])
    assert decode.decode(content, "it").shape == (48, 64, 3) and decode.size(content, "it") == (48, 64)


def test_the_error_travels_between_processes():
    error = pickle.loads(pickle.dumps(UnreadableImage("a.jpg", "empty")))
    assert str(error) == str(UnreadableImage("a.jpg", "empty")) and type(error) is UnreadableImage


def test_every_truncation_is_an_error_or_an_image():
    for content in (encoded(picture(), "JPEG"), encoded(picture("P"), "PNG"), encoded(picture(), "GIF")):
        for length in range(0, len(content), 97):
            with contextlib.suppress(UnreadableImage):
                assert decode.decode(content[:length], "it").shape == (48, 64, 3)
