"""The file of a run's predictions, `predictions.npz`: written, and read whoever wrote it."""

import io
import pathlib
import zipfile
from typing import Any

import numpy as np
from PIL import Image

from ncl_jax.evaluation import shown
from ncl_jax.evaluation.predictions import MOST_BYTES as MOST_OF_PICTURES
from ncl_jax.evaluation.predictions import SIDE, Near, Pictures, Predictions
from ncl_jax.runtime import arrays
from ncl_jax.runtime.arrays import Wanted
from ncl_jax.runtime.files import open_regular

MOST_BYTES = 2**29  # of all arrays together, unpacked
_ROW = Wanted(np.int32, 1, 0, 2**31 - 1)
_SHARE = Wanted(np.float32, 1, 0, 1.001)
# By what must be there together.
_FIRST: dict[str, Wanted] = {
    "labels": _ROW, "top": Wanted(np.int32, 2, 0, 2**31 - 1), "confidence": Wanted(np.float32, 2, 0, 1.001),
}  # fmt: skip
_OTHERS: dict[str, dict[str, Wanted]] = {
    "true": {"true": _SHARE}, "margin": {"margin": _SHARE}, "known": {"known": _SHARE},
    "near": {
        "mistakes": _ROW, "near": Wanted(np.int32, 2, 0, 2**31 - 1), "near_labels": Wanted(np.int32, 2, 0, 2**31 - 1),
        "distances": Wanted(np.float32, 2, 0, 2.001),
    },
    "pictures": {
        "tested": _ROW, "trained": _ROW, "trained_labels": _ROW, "ends": Wanted(np.int64, 1, 0, MOST_OF_PICTURES),
        "jpegs": Wanted(np.uint8, 1, 0, 255),
    },
    "sets": {"sets": Wanted(np.uint8, 2, 0, 255)},
}  # fmt: skip


def packed(predictions: Predictions) -> bytes:
    """The content of an `.npz` file of them; sets take a bit for each class."""
    made: dict[str, Any] = {}
    for name, value in predictions._asdict().items():
        if isinstance(value, Near | Pictures):
            made |= value._asdict()
        elif value is not None:
            made[name] = np.packbits(value, axis=1) if name == "sets" else value
    return arrays.packed(made)


def read(path: pathlib.Path, num_classes: int, num_predictors: int | None = None) -> Predictions | None:
    """Reads a file of what `packed` gave; None without it, and for one that is damaged or of another run.

    Args:
      path: of the file.
      num_classes: C.
      num_predictors: P; None: any.
    """
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            found = _predictions(archive, num_classes, arrays.limit(file, MOST_BYTES))
        _check(found, num_classes, num_predictors)
    except Exception:  # whatever bytes provoke that are no such file
        return None
    return found


def _predictions(archive: zipfile.ZipFile, num_classes: int, most: int) -> Predictions:
    there = {member.filename.removesuffix(".npy") for member in archive.infolist()}
    parts = {part: fields for part, fields in _OTHERS.items() if there & fields.keys()}
    wanted = _FIRST | {name: kind for fields in parts.values() for name, kind in fields.items()}
    made = arrays.from_archive(archive, wanted, most)
    found: dict[str, Any] = {name: made[name] for name in _FIRST}
    for part, fields in parts.items():
        values = {name: made[name] for name in fields}
        found[part] = {"near": Near, "pictures": Pictures}[part](**values) if len(fields) > 1 else values[part]
    if "sets" in found:
        if found["sets"].shape[1] != -(-num_classes // 8):
            raise ValueError("the sets are of other classes")
        found["sets"] = np.unpackbits(found["sets"], axis=1, count=num_classes).astype(bool)
    return Predictions(**found)


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
