"""The file of a run's predictions, `predictions.npz`: written, and read whoever wrote it."""

import io
import math
import pathlib
import zipfile
from typing import IO, Any

import numpy as np
from PIL import Image

from ncl_jax.evaluation import shown
from ncl_jax.evaluation.predictions import MOST_BYTES as MOST_OF_PICTURES
from ncl_jax.evaluation.predictions import SIDE, Near, Pictures, Predictions
from ncl_jax.runtime.files import open_regular

MOST_BYTES = 2**29  # of all arrays together, unpacked
_ROW = (np.int32, 1, 0, 2**31 - 1)
_SHARE = (np.float32, 1, 0, 1.001)
# Type, number of axes and the range of every array, by what must be there together.
_FIRST: dict[str, tuple[type, int, float, float]] = {
    "labels": _ROW, "top": (np.int32, 2, 0, 2**31 - 1), "confidence": (np.float32, 2, 0, 1.001),
}  # fmt: skip
_OTHERS: dict[str, dict[str, tuple[type, int, float, float]]] = {
    "true": {"true": _SHARE}, "margin": {"margin": _SHARE}, "known": {"known": _SHARE},
    "near": {
        "mistakes": _ROW, "near": (np.int32, 2, 0, 2**31 - 1), "near_labels": (np.int32, 2, 0, 2**31 - 1),
        "distances": (np.float32, 2, 0, 2.001),
    },
    "pictures": {
        "tested": _ROW, "trained": _ROW, "trained_labels": _ROW, "ends": (np.int64, 1, 0, MOST_OF_PICTURES),
        "jpegs": (np.uint8, 1, 0, 255),
    },
    "sets": {"sets": (np.uint8, 2, 0, 255)},
}  # fmt: skip


def packed(predictions: Predictions) -> bytes:
    """The content of an `.npz` file of them; sets take a bit for each class."""
    arrays: dict[str, Any] = {}
    for name, value in predictions._asdict().items():
        if isinstance(value, Near | Pictures):
            arrays |= value._asdict()
        elif value is not None:
            arrays[name] = np.packbits(value, axis=1) if name == "sets" else value
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def read(path: pathlib.Path, num_classes: int, num_predictors: int | None = None) -> Predictions | None:
    """Reads a file of what `packed` gave; None without it, and for one that is damaged or of another run.

    Args:
      path: of the file.
      num_classes: C.
      num_predictors: P; None: any.
    """
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            found = _predictions(archive, num_classes)
        _check(found, num_classes, num_predictors)
    except Exception:  # whatever bytes provoke that are no such file
        return None
    return found


def _predictions(archive: zipfile.ZipFile, num_classes: int) -> Predictions:
    there = {member.filename.removesuffix(".npy") for member in archive.infolist()}
    parts = {part: fields for part, fields in _OTHERS.items() if there & fields.keys()}
    wanted = _FIRST | {name: kind for fields in parts.values() for name, kind in fields.items()}
    arrays = _arrays(archive, wanted)
    found: dict[str, Any] = {name: arrays[name] for name in _FIRST}
    for part, fields in parts.items():
        values = {name: arrays[name] for name in fields}
        found[part] = {"near": Near, "pictures": Pictures}[part](**values) if len(fields) > 1 else values[part]
    if "sets" in found:
        if found["sets"].shape[1] != -(-num_classes // 8):
            raise ValueError("the sets are of other classes")
        found["sets"] = np.unpackbits(found["sets"], axis=1, count=num_classes).astype(bool)
    return Predictions(**found)


def _arrays(archive: zipfile.ZipFile, wanted: dict[str, tuple[type, int, float, float]]) -> dict[str, np.ndarray]:
    """The arrays by name; what they would take is known before it is taken."""
    members = {name: archive.getinfo(f"{name}.npy") for name in wanted}
    if sum(member.file_size for member in members.values()) > MOST_BYTES:
        raise ValueError("the arrays are larger than a run's")
    found = {}
    for name, member in members.items():
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{name} is packed as NumPy packs nothing")
        with archive.open(member) as file:
            found[name] = _array(file, member.file_size, *wanted[name])
    return found


def _array(file: IO[bytes], size: int, kind: type, axes: int, least: float, most: float) -> np.ndarray:
    """An array of a file of `size` bytes, once its header says that it is one of ours."""
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"the array is of format {version}")
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
    length = math.prod(shape) * dtype.itemsize
    if dtype.kind != np.dtype(kind).kind or len(shape) != axes or min(shape) < 0 or length > size:
        raise ValueError(f"the array is {dtype} {shape}")
    array = np.frombuffer(file.read(length), dtype).reshape(shape, order="F" if by_columns else "C")
    if array.size and not (array.min() >= least and array.max() <= most):
        raise ValueError("the array is out of its range")
    return array.astype(kind)


def _check(found: Predictions, num_classes: int, num_predictors: int | None) -> None:
    """Raises ValueError where the arrays do not fit each other, or the run."""
    number = len(found.labels)
    wanted = found.top.shape[:1] if num_predictors is None else (num_predictors,)
    _require(bool(number and wanted[0]) and found.top.shape == found.confidence.shape == (*wanted, number))
    _require(max(found.labels.max(), found.top.max()) < num_classes)
    _require(all(part is None or len(part) == number for part in (found.true, found.margin, found.known, found.sets)))
    if found.near is not None:
        _check_near(found.near, number, num_classes)
    if found.pictures is not None:
        _check_pictures(found.pictures, number, num_classes)


def _check_near(near: Near, number: int, num_classes: int) -> None:
    shape = len(near.mistakes), near.near.shape[1]
    _require(shape[0] <= shown.MOST and shape[1] <= 10)
    _require(near.near.shape == near.near_labels.shape == near.distances.shape == shape)
    _require((near.mistakes < number).all() and (near.near_labels < num_classes).all())


def _check_pictures(pictures: Pictures, number: int, num_classes: int) -> None:
    """Each picture is a small JPEG or nothing: a browser is to decode them."""
    ends, count = pictures.ends, len(pictures.tested) + len(pictures.trained)
    _require(len(ends) == count <= shown.MOST and len(pictures.trained) == len(pictures.trained_labels))
    _require((np.diff(ends, prepend=0) >= 0).all() and (ends[-1] if count else 0) == len(pictures.jpegs))
    _require((pictures.tested < number).all() and (pictures.trained_labels < num_classes).all())
    for place in range(count):
        if content := pictures.jpeg(place):
            with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
                _require(max(image.size) <= SIDE)


def _require(fits: Any) -> None:
    if not fits:
        raise ValueError("the arrays do not fit each other or the run")
