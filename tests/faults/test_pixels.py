"""Faults of image files: turned twice, numbers of more than 8 bits, other formats, odd shapes and sizes, no files."""

import io
import json
import os
import socket
import struct

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps
from test_images import bomb, encoded, picture
from test_own_images import make_folder

from ncl_jax import cli
from ncl_jax.config import base_config
from ncl_jax.data import dataset
from ncl_jax.data.images import decode, parallel, pixels, transforms
from ncl_jax.data.images.decode import NotEnoughMemory, UnreadableImage
from ncl_jax.data.sources.files import Files
from ncl_jax.data.types import Request, Split
from ncl_jax.errors import ConfigError, DataError
from ncl_jax.runs import messages
from ncl_jax.storage.directory import RunDir

# Orientation: of every kind of file, by every way of opening it

DEEP = {
    "I;16": lambda: Image.fromarray(np.arange(64 * 48, dtype=np.uint16).reshape(48, 64) * 21),
    "I": lambda: Image.fromarray(np.arange(64 * 48, dtype=np.int32).reshape(48, 64) * 21),
    "F": lambda: Image.fromarray(np.linspace(0, 255, 64 * 48, dtype=np.float32).reshape(48, 64)),
}
TURNED = {
    "JPEG": (picture, "JPEG", {}), "grey JPEG": (lambda: picture("L"), "JPEG", {}),
    "CMYK JPEG": (lambda: picture("CMYK"), "JPEG", {}), "PNG": (picture, "PNG", {}),
    "palette PNG": (lambda: picture("P"), "PNG", {}), "WebP": (picture, "WEBP", {}), "TIFF": (picture, "TIFF", {}),
    "packed TIFF": (picture, "TIFF", {"compression": "tiff_lzw"}), "CMYK TIFF": (lambda: picture("CMYK"), "TIFF", {}),
    "TIFF of 16 bits": (DEEP["I;16"], "TIFF", {}), "TIFF of 32 bits": (DEEP["I"], "TIFF", {}),
    "TIFF of floats": (DEEP["F"], "TIFF", {}),
}  # fmt: skip


WAYS = {
    2: ["FLIP_LEFT_RIGHT"], 3: ["ROTATE_180"], 4: ["FLIP_TOP_BOTTOM"], 5: ["TRANSPOSE"], 6: ["ROTATE_270"],
    7: ["TRANSVERSE"], 8: ["ROTATE_90"],
}  # fmt: skip


def shown(content, turn):
    """A file without an orientation as Pillow decodes it, then turned; of more than 8 bits the grey levels."""
    image = Image.open(io.BytesIO(content))
    if image.mode in DEEP:
        image = Image.fromarray((np.asarray(image) / (1 if image.mode == "F" else 256)).astype(np.uint8))
    for way in WAYS.get(turn, []):
        image = image.transpose(Image.Transpose[way])
    return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", TURNED)
def test_every_kind_of_file_is_turned_once(kind, turn, monkeypatch):
    make, form, options = TURNED[kind]
    exif = Image.Exif()
    exif[0x0112] = turn
    content, expected = encoded(make(), form, exif=exif, **options), shown(encoded(make(), form, **options), turn)
    np.testing.assert_array_equal(decode.decode(content, "it"), expected)
    assert decode.size(content, "it") == expected.shape[:2] == ((64, 48) if turn > 4 else (48, 64))
    lazy, loaded = (Image.open(io.BytesIO(content)) for _ in range(2))
    loaded.load()
    turned = [] if form == "TIFF" else [ImageOps.exif_transpose(lazy)]  # Pillow 10 turns a TIFF twice
    fitted = transforms.fit(expected, 20, 16)[None]
    for image in (lazy, loaded, loaded.copy(), *turned):
        np.testing.assert_array_equal(decode.prepare([image], (16, 16, 3), 20, 16), fitted)
    monkeypatch.setattr(decode, "simplejpeg", None)
    np.testing.assert_array_equal(decode.decode(content, "it"), expected)


# Values of more than 8 bits

RAMP = np.arange(40 * 40).reshape(40, 40) / 1599  # from 0 to 1


def tiff(values, **tags):
    """A TIFF of an array, with tags by number (`t281=4000`)."""
    return encoded(Image.fromarray(values), "TIFF", tiffinfo={int(name[1:]): value for name, value in tags.items()})


def unsigned(values):
    """A TIFF of 32-bit numbers without a sign."""
    content = tiff(values.astype(np.uint32).view(np.int32))
    return content.replace(struct.pack("<HHII", 339, 3, 1, 2), struct.pack("<HHII", 339, 3, 1, 1))


def pgm(values, most):
    return f"P5 40 40 {most}\n".encode() + values.astype(">u2").tobytes()


def scaled(depth):
    return (RAMP * (2**depth - 1)).astype(np.uint16)


def upper(values, depth):
    return values >> (depth - 8)


SIGNED = (RAMP * 4095 - 1024).astype(np.int32)
LEVELS = {  # the file and its grey levels
    "8 of 16 bits": (lambda: encoded(Image.fromarray(scaled(8)), "PNG"), scaled(8)),
    "12 of 16 bits": (lambda: encoded(Image.fromarray(scaled(12)), "PNG"), upper(scaled(12), 12)),
    "16 bits": (lambda: encoded(Image.fromarray(scaled(16)), "PNG"), upper(scaled(16), 16)),
    "12 of 16 bits, TIFF": (lambda: tiff(scaled(12)), upper(scaled(12), 12)),
    "16 bits, the other end first": (
        lambda: encoded(Image.frombytes("I;16B", (40, 40), scaled(16).astype(">u2").tobytes()), "TIFF"),
        upper(scaled(16), 16),
    ),
    "14 bits that the file declares": (lambda: tiff(scaled(12), t281=2**14 - 1), upper(scaled(12), 14)),
    "a declared range": (lambda: tiff(scaled(12) + 500, t280=500, t281=4595), upper(scaled(12), 12)),
    "a declared range that is wrong": (lambda: tiff(scaled(12), t281=255), upper(scaled(12), 12)),
    "a declared range without a width": (lambda: tiff(scaled(12) * 0, t280=0, t281=0), scaled(12) * 0),
    "a declared range of all 16 bits": (lambda: tiff(scaled(12), t281=65535), upper(scaled(12), 12)),
    "12 bits as PGM": (lambda: pgm(scaled(12), 4095), np.rint(scaled(12) * (65535 / 4095)).astype(int) >> 8),
    "a dark PGM of 16 bits": (lambda: pgm(scaled(8), 65535), scaled(8) >> 8),
    "JPEG 2000 of 16 bits": (
        lambda: encoded(Image.fromarray(scaled(12)), "JPEG2000", irreversible=False), scaled(12) >> 8
    ),
    "32 bits up to 255": (lambda: tiff(scaled(8).astype(np.int32)), scaled(8)),
    "32 bits up to 65535": (lambda: tiff(scaled(16).astype(np.int32)), upper(scaled(16), 16)),
    "32 bits up to 100,000": (
        lambda: tiff((RAMP * 100_000).astype(np.int32)), (RAMP * 100_000).astype(int) * 256 // 100_001
    ),
    "32 bits without a sign": (
        lambda: unsigned(RAMP * (2**32 - 1)), (RAMP * (2**32 - 1)).astype(np.uint32).astype(int) >> 24
    ),
    "negative numbers": (lambda: tiff(SIGNED), (SIGNED + 1024) >> 4),
    "one negative number": (lambda: tiff(SIGNED * 0 - 7), SIGNED * 0),
    "floats up to 1": (lambda: tiff(RAMP.astype(np.float32)), np.minimum(RAMP.astype(np.float32) * 256, 255)),
    "floats a little beyond": (
        lambda: tiff((RAMP * 1.1 - 0.05).astype(np.float32)), np.clip((RAMP * 1.1 - 0.05) * 256, 0, 255)
    ),
    "floats up to 255": (lambda: tiff((RAMP * 255).astype(np.float32)), RAMP.astype(np.float32) * 255),
    "floats up to 4095": (lambda: tiff((RAMP * 4095).astype(np.float32)), (RAMP * 4095).astype(np.float32) / 16),
    "floats from -1 to 1": (
        lambda: tiff((RAMP * 2 - 1).astype(np.float32)), np.minimum((RAMP * 2).astype(np.float32) * 128, 255)
    ),
    "floats of a declared range": (
        lambda: tiff(RAMP.astype(np.float32), t340=0.0, t341=2.0), RAMP.astype(np.float32) * 128
    ),
    "one float": (lambda: tiff((RAMP * 0 + 1e9).astype(np.float32)), RAMP * 0),
}  # fmt: skip


@pytest.mark.parametrize("kind", LEVELS)
def test_values_of_more_than_8_bits_become_grey_levels(kind):
    make, expected = LEVELS[kind]
    content = make()
    ours = decode.decode(content, "it")
    assert ours.dtype == np.uint8 and (ours == ours[..., :1]).all()
    off = np.abs(ours[..., 0] - np.floor(expected))
    assert off.max() <= ("beyond" in kind or "-1 to 1" in kind), off.max()  # where the test rounds as well
    fitted = transforms.fit(ours, 20, 16)[None]
    np.testing.assert_array_equal(decode.prepare(Image.open(io.BytesIO(content)), (16, 16, 3), 20, 16), fitted)


def test_many_values_are_quantized_in_blocks(monkeypatch):
    values = np.random.default_rng(0).integers(0, 65536, (37, 50)).astype(np.uint16)
    for block in (1, 120, 2**20):
        monkeypatch.setattr(pixels, "BLOCK", block)
        np.testing.assert_array_equal(pixels.eight_bits(Image.fromarray(values)), values >> 8)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(value, tmp_path):
    values = RAMP.astype(np.float32)
    values[3, 4] = value
    (tmp_path / "x.tif").write_bytes(tiff(values))
    for image in (tmp_path / "x.tif", Image.open(tmp_path / "x.tif"), [Image.fromarray(values)]):
        with pytest.raises(UnreadableImage, match=r"(x\.tif|a given image) cannot be read .*not a number"):
            decode.prepare(image, (16, 16, 3), 20, 16)


def data_of(folder):
    return dataset.load(Request("folder", make_folder(folder)), size=8)


def test_a_run_keeps_by_which_rule_its_images_were_read(tmp_path):
    directory, data = RunDir(tmp_path / "run"), data_of(tmp_path / "data")
    directory.path.mkdir()
    noted = lambda: json.loads(directory.config.read_text())["pixels"]  # noqa: E731
    directory.begin(base_config(), data, {})
    assert noted() == directory.read_pixels() == pixels.VERSION
    (directory.checkpoints / "4").mkdir(parents=True)  # from here on it continues
    for stored, expected in (({"pixels": 1}, 1), ({}, 0)):
        content = {name: v for name, v in json.loads(directory.config.read_text()).items() if name != "pixels"}
        directory.config.write_text(json.dumps(content | stored))
        directory.check(base_config(), data)
        directory.begin(base_config(), data, {})
        assert noted() == directory.read_pixels() == expected
        assert str(expected or "unknown") in messages.other_pixels(directory.read_pixels(), True)[0]
    assert not messages.other_pixels(pixels.VERSION, True) and not messages.other_pixels(0, False)


# Formats that are not read


def wmf():
    header = struct.pack("<IHhhhhHIH", 0x9AC6CDD7, 0, 0, 0, 100, 100, 1440, 0, 0)
    return header + b"\x01\0\x09\0" + bytes(60)


OTHERS = {
    "EPS": lambda: encoded(picture(), "EPS"), "ICO": lambda: encoded(picture(), "ICO"),
    "TGA": lambda: encoded(picture(), "TGA"), "PCX": lambda: encoded(picture(), "PCX"),
    "SGI": lambda: encoded(picture(), "SGI"), "DDS": lambda: encoded(picture(), "DDS"), "WMF": wmf,
    "HDF5": lambda: b"\x89HDF\r\n\x1a\n" + bytes(60), "GRIB": lambda: b"GRIB\0\0\0\1" + bytes(60),
    "BUFR": lambda: b"BUFR" + bytes(60), "MPEG": lambda: b"\0\0\1\xb3\x04\0\x30" + bytes(60),
    "FITS": lambda: b"".join(line.ljust(80).encode() for line in (
        "SIMPLE  =                    T", "BITPIX  =                    8", "NAXIS   =                    2",
        "NAXIS1  =                    4", "NAXIS2  =                    4", "END")).ljust(2880) + bytes(2880),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_other_formats_are_refused_unopened(kind, monkeypatch):
    content = OTHERS[kind]()
    assert Image.open(io.BytesIO(content)).format == kind  # Pillow would
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("loaded"))
    with pytest.raises(UnreadableImage, match=r"x\.jpg cannot be read .*JPEG, PNG, TIFF"):
        decode.decode(content, "x.jpg")
    with pytest.raises(UnreadableImage, match=r"x\.jpg"):
        decode.size(content, "x.jpg")


# Shapes and sizes

STRIPS = {"wide": (1, 1_000_000), "tall": (1_000_000, 1), "wide, of three": (3, 400_000)}


@pytest.mark.parametrize("name", STRIPS)
def test_of_a_strip_only_what_is_needed_is_scaled(name, monkeypatch):
    resize = Image.Image.resize

    def watched(image, size, *args, **kwargs):
        assert size[0] * size[1] <= 2**24, size
        return resize(image, size, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "resize", watched)
    height, width = STRIPS[name]
    strip = np.zeros((height, width, 3), np.uint8)
    strip[height // 2 :, width // 2 :] = 200
    fitted = transforms.fit(strip, 256, 224)
    middle = fitted.astype(int)
    assert fitted.shape == (224, 224, 3) and middle.min() < 100 < middle.max()
    cut = transforms.random_resized_crop(np.random.default_rng(0), strip, size=224, scale=(0.08, 1.0))
    assert cut.shape == (224, 224, 3)


def test_a_part_that_is_scaled_alone_is_that_of_the_whole(monkeypatch):
    rng, files = np.random.default_rng(0), [(20, 700), (900, 31), (5, 3000), (64, 330), (48, 64)]
    for shape in files:
        image = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
        whole = transforms.fit(image, 37, 32)
        with monkeypatch.context() as small:
            small.setattr(transforms, "MOST_SCALED", 1)
            part = transforms.fit(image, 37, 32)
        assert np.abs(whole.astype(int) - part).max() <= 1
        scale = [int(37 * side / min(shape)) for side in shape]
        top, left = (round((side - 32) / 2) for side in scale)
        plain = np.asarray(Image.fromarray(image).resize(scale[::-1], Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(whole, plain[top : top + 32, left : left + 32])


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_bound_is_named_and_can_be_raised(monkeypatch):
    monkeypatch.setattr(decode, "MOST_PIXELS", 60_000)
    for side, size in ((300, "300 x 300"), (400, "160,000")):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60_000)  # Pillow refuses twice as many
        content = encoded(Image.new("L", (side, side), 9), "PNG")
        with pytest.raises(UnreadableImage, match=rf"{size}.* 60,000.*smaller.*{decode.BOUND}={side * side}\b"):
            decode.decode(content, "it")
        with monkeypatch.context() as raised:
            raised.setenv(decode.BOUND, str(side * side))
            assert decode.decode(content, "it").shape == (side, side, 3)


@pytest.mark.parametrize("value", ["x", "0", "-3", "1e8", "9" * 30])
def test_a_bound_that_is_no_number_is_named(value, monkeypatch):
    monkeypatch.setenv(decode.BOUND, value)
    with pytest.raises(ConfigError, match=f"{decode.BOUND}={value} "):
        decode.decode(bomb(4, 4), "it")


def test_an_image_without_memory_for_it_is_named_and_not_skipped(monkeypatch):
    def none(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(decode, "to_rgb", none)
    split = Split([encoded(picture(), "PNG")], np.zeros(1, np.int32))
    with pytest.raises(NotEnoughMemory, match="^image 0 cannot be decoded"):
        parallel.decoded(split.images, 0)
    with pytest.raises(NotEnoughMemory):
        parallel.errors(split, "")
    with pytest.raises(NotEnoughMemory, match="^a given image cannot"):
        decode.prepare(picture(), (16, 16, 3), 20, 16)
    monkeypatch.setattr(transforms, "fit", none)
    with pytest.raises(NotEnoughMemory, match="^a given image cannot"):
        decode.prepare(np.zeros((1, 9, 9, 3), np.uint8), (16, 16, 3), 20, 16)


# What is not a file of an image


def device(path):
    path.symlink_to("/dev/zero")


def pipe(path):
    os.mkfifo(path)


def link_to_pipe(path):
    os.mkfifo(path.with_suffix(".pipe"))
    path.symlink_to(path.with_suffix(".pipe"))


def unix_socket(path):
    os.chdir(path.parent)  # its name may be 100 letters long
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)


def sparse(path):
    with path.open("wb") as file:
        file.truncate(2**40)


NO_IMAGES = {
    "empty": lambda path: path.write_bytes(b""), "text": lambda path: path.write_text("no image"),
    "cut": lambda path: path.write_bytes(encoded(picture(), "JPEG")[:900]),
    "bomb": lambda path: path.write_bytes(bomb(60_000, 50_000)), "device": device, "pipe": pipe,
    "link_to_pipe": link_to_pipe, "socket": unix_socket, "sparse": sparse,
    "link_to_nothing": lambda path: path.symlink_to("nothing"), "folder": lambda path: path.mkdir(),
}  # fmt: skip


@pytest.mark.parametrize("kind", NO_IMAGES)
def test_what_is_no_image_is_named_without_waiting(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"{kind}.jpg"
    NO_IMAGES[kind](path)
    for read in (lambda: decode.read_image(path), lambda: decode.prepare([path], (16, 16, 3), 20, 16)):
        with pytest.raises(DataError, match=rf"^{path}"):
            read()
    split = Split(Files(tmp_path, np.array([path.name], object), np.zeros(1, int)), np.zeros(1, np.int32))
    with pytest.raises(DataError, match=path.name):
        parallel.needed(split.images, 0)
    if kind != "cut":  # whose header is good
        with pytest.raises(DataError, match=path.name):
            parallel.sizes(split, "")
    assert path.name in parallel.errors(split, "")[0]


def test_inspect_names_them_all_and_images_of_one_colour(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = make_folder(tmp_path / "data")
    for kind, make in NO_IMAGES.items():
        make(folder / "train" / "cat" / f"{kind}.jpg")
    grey = np.full((12, 10, 3), 7, np.uint8)
    grey[3, 4] = 7 + 15
    Image.fromarray(grey).save(folder / "test" / "dog" / "grey.png")
    grey[3, 4, 1] += 1
    Image.fromarray(grey).save(folder / "test" / "dog" / "contrast.png")
    monkeypatch.setattr("ncl_jax.report.findings.NAMED", 99)
    message, code = cli.attempt("inspect", [f"--config=folder:dir={folder},image_size=16", "--picture=x.png"])
    output = capfd.readouterr().out
    assert code == 1 and "1 problem " in message
    assert f"unreadable images in train: {len(NO_IMAGES) - 1}" in output  # a folder is none
    assert all(f"cat/{kind}.jpg " in output for kind in NO_IMAGES if kind != "folder")
    assert "in test: 1\n    test test/dog/grey.png" in output and "contrast.png" not in output


# Whatever bytes


def changed(rng, content):
    """Some bits turned, bytes lost, added, or cut off, more often near the beginning."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        place = int(rng.integers(min(len(data), 300) if rng.random() < 0.7 else len(data)))
        kind, some = rng.integers(5), int(rng.integers(1, 20))
        if kind == 0:
            data[place] ^= 1 << some % 8
        elif kind == 1:
            data[place] = int(rng.choice([0, 1, 127, 128, 255]))
        elif kind == 2:
            data[place : place + 4] = b"\xff\xff\xff\xff"
        elif kind == 3:
            data[place : place + some] = b""
        data = data[: max(place, 8)] if kind == 4 or not data else data
    return bytes(data)


def damaged(kind):
    small = picture().resize((16, 12))
    exif = Image.Exif()
    exif[0x0112] = 6
    floats = Image.fromarray(np.linspace(0, 1, 192, dtype=np.float32).reshape(12, 16))
    return {
        "JPEG": lambda: encoded(small, "JPEG", exif=exif),
        "progressive JPEG": lambda: encoded(small.convert("L"), "JPEG", progressive=True),
        "PNG": lambda: encoded(small, "PNG", exif=exif),
        "palette": lambda: encoded(small.convert("P"), "PNG", transparency=3),
        "PNG of 16 bits": lambda: encoded(Image.fromarray(scaled(12)), "PNG"),
        "TIFF": lambda: encoded(small, "TIFF", exif=exif),
        "packed TIFF": lambda: encoded(small, "TIFF", compression="tiff_lzw"),
        "TIFF of floats": lambda: encoded(floats, "TIFF"),
        "WebP": lambda: encoded(small, "WEBP", exif=exif),
        "GIF": lambda: encoded(small, "GIF", save_all=True, append_images=[small.rotate(90)]),
        "BMP": lambda: encoded(small, "BMP"), "PPM": lambda: encoded(small, "PPM"),
        "JPEG 2000": lambda: encoded(small, "JPEG2000"),
    }[kind]()  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [
    "JPEG", "progressive JPEG", "PNG", "palette", "PNG of 16 bits", "TIFF", "packed TIFF", "TIFF of floats", "WebP",
    "GIF", "BMP", "PPM", "JPEG 2000",
])  # fmt: skip
def test_of_damaged_bytes_comes_an_image_or_an_error_that_names_it(kind, monkeypatch):
    monkeypatch.setenv(decode.BOUND, "100000")  # no time is spent on large ones
    rng, content, images = np.random.default_rng(0), damaged(kind), 0
    for _ in range(250):
        data = changed(rng, content)
        for read in (decode.decode, decode.size):
            try:
                read(data, "it.jpg")
                images += 1
            except DataError as error:
                assert str(error).startswith("it.jpg cannot be ") and "\n" not in str(error)
    assert 0 < images < 500


# HEIC, which a plugin reads, and AVIF


@pytest.mark.skipif(decode.HEIF in decode.decoders(), reason="pillow-heif is installed")
def test_a_picture_of_many_scans_is_refused_before_it_is_decoded(monkeypatch):
    """Each is thirty bytes, and the decoder goes through all pixels for it. A film behind the picture is no scan."""
    good = encoded(picture(), "JPEG", progressive=True)
    scan = good[good.rindex(b"\xff\xda") : -2]
    assert decode.scans(good) == good.count(b"\xff\xda") > 5
    film = good + 1000 * scan
    np.testing.assert_array_equal(decode.decode(film, "film.jpg"), decode.decode(good, "good.jpg"))
    segments = good[:2] + 101_000 * b"\xff\xe0\x00\x04\xff\xda" + good[2:]  # which are not scans, but take long to tell
    assert decode.scans(segments) > decode.MOST_SCANS
    few, many = (good[:-2] + scan * number + good[-2:] for number in (9, 1000))
    assert decode.scans(few) == decode.scans(good) + 9
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("it was decoded"))
    with pytest.raises(UnreadableImage, match="many.jpg .*more than 500 scans"):
        decode.decode(many, "many.jpg")


def test_heic_without_its_plugin_says_what_to_install():
    with pytest.raises(UnreadableImage, match=r"HEIC, .*pip install 'pillow-heif.*: convert it"):
        decode.decode(b"\0\0\0\x18ftypheic" + bytes(12), "x.heic")


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_heic_and_avif_are_read_upright(kind, turn):
    if kind not in decode.decoders():
        pytest.skip(f"no plugin reads {kind}")
    exif = Image.Exif()
    exif[0x0112] = turn
    image = picture().resize((64, 48))
    content = encoded(image, kind, exif=exif.tobytes(), quality=95)
    upright = image
    for way in WAYS.get(turn, []):
        upright = upright.transpose(Image.Transpose[way])
    found = decode.decode(content, f"x.{kind.lower()}")
    assert decode.size(content, "x") == found.shape[:2] == (upright.height, upright.width)
    assert np.abs(found.astype(int) - np.asarray(upright).astype(int)).mean() < 12
