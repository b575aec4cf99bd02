"""Arrays in an `.npz` file that somebody else may have made: read with limits, and checked before they are used."""

import io
import math
import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import IO, Any, NamedTuple

import numpy as np

from ncl_jax.runtime.files import open_regular

SMALL, PACKED = 2**26, 100  # bytes that any file may unpack to; how often a larger one may be packed


class Wanted(NamedTuple):
    """What an array must be."""

    kind: type  # NumPy's, of the same letter; converted to
    axes: int
    least: float | None = None  # of its values; None: anything, NaN too
    most: float = math.inf


def packed(arrays: Mapping[str, Any]) -> bytes:
    """The content of a file of arrays by name."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def read(path: pathlib.Path, wanted: Mapping[str, Wanted], most: int) -> dict[str, np.ndarray]:
    """The arrays by name, of at most `most` bytes together: what they take is known before it is taken.

    Raises:
      OSError: as for `open`.
      DataError: it is a pipe or a device.
      Exception: whatever its content provokes.
    """
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        return from_archive(archive, wanted, limit(file, most))


def limit(file: IO[bytes], most: int) -> int:
    """How many bytes a file may unpack to: `most`, or what its own size makes likely."""
    return min(most, SMALL + PACKED * os.fstat(file.fileno()).st_size)


def from_archive(archive: zipfile.ZipFile, wanted: Mapping[str, Wanted], most: int) -> dict[str, np.ndarray]:
    """As `read`, from an open file."""
    members = {name: archive.getinfo(f"{name}.npy") for name in wanted}
    if sum(member.file_size for member in members.values()) > most:
        raise ValueError(f"the arrays take more than {most:,} bytes")
    found = {}
    for name, member in members.items():
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{name} is packed as NumPy packs nothing")
        with archive.open(member) as part:
            found[name] = _array(part, member.file_size, wanted[name])
    return found


def _array(file: IO[bytes], size: int, wanted: Wanted) -> np.ndarray:
    """An array of a file of `size` bytes, once its header says that it is one of ours."""
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"the array is of format {version}")
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
    length = math.prod(shape) * dtype.itemsize
    fits = dtype.kind == np.dtype(wanted.kind).kind and len(shape) == wanted.axes and min(shape, default=0) >= 0
    if not fits or length > size:
        raise ValueError(f"the array is {dtype} {shape}")
    array = np.frombuffer(file.read(length), dtype).reshape(shape, order="F" if by_columns else "C")
    if wanted.least is not None and array.size and not (array.min() >= wanted.least and array.max() <= wanted.most):
        raise ValueError("the array is out of its range")
    return array.astype(wanted.kind)
