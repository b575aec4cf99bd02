"""PyTorch's files of weights, read without PyTorch: the zip format of today and the legacy one before version 1.6.

Both hold a pickle, which could run anything. Here it can build tensors, numbers, strings, lists and dictionaries, and
nothing else (`runtime.pickles`). What it says of sizes is compared with the file's before anything is made of it.
"""

import io
import math
import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from ncl_jax.errors import DataError, one_line
from ncl_jax.runtime import pickles
from ncl_jax.runtime.files import open_regular

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
DTYPES = {
    "FloatStorage": np.dtype("<f4"), "DoubleStorage": np.dtype("<f8"), "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16), "LongStorage": np.dtype("<i8"), "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"), "CharStorage": np.dtype("i1"), "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}  # fmt: skip
MOST_DIMENSIONS = 64  # NumPy's
MOST_TIMES = 4  # that all tensors together may be of their file's size: some share a storage


class Storage:
    """The numbers of one or more tensors; `content` follows once the pickle has been read."""

    __slots__ = ("content", "count", "dtype")

    def __init__(self, dtype: np.dtype, count: int):
        self.dtype, self.count, self.content = dtype, count, b""


class Tensor(NamedTuple):
    """Where a tensor lies in its storage; offset and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def size(self) -> int:
        """How many bytes it takes. Raises DataError where it leads out of its storage."""
        numbers = (self.offset, *self.shape, *self.strides)
        if not all(type(n) is int and n >= 0 for n in numbers) or len(self.shape) != len(self.strides):
            raise DataError("a tensor whose shape, offset or strides are not whole numbers from 0 is refused")
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        count, itemsize = math.prod(self.shape), self.storage.dtype.itemsize
        if count and (last >= self.storage.count or count > self.storage.count):
            raise DataError(f"a tensor of shape {self.shape} leads out of its storage of {self.storage.count}")
        if len(self.storage.content) != self.storage.count * itemsize:
            raise DataError("a storage is cut short")
        return count * itemsize

    def array(self) -> np.ndarray:
        """The tensor, whose `size` has been found good."""
        itemsize = self.storage.dtype.itemsize
        flat = np.frombuffer(self.storage.content, self.storage.dtype)
        steps = tuple(step * itemsize if n > 1 else 0 for n, step in zip(self.shape, self.strides, strict=True))
        return np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, steps).copy()


class _StorageType(NamedTuple):
    name: str


def _rebuild(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    """Stands in for PyTorch's functions that make a tensor of a storage."""
    if type(storage) is not Storage:
        raise DataError("a tensor without a storage is refused")
    if any(type(part) is not tuple or len(part) > MOST_DIMENSIONS for part in (shape, strides)):
        raise DataError("a tensor whose shape or strides are not short tuples is refused")
    return Tensor(storage, offset, shape, strides)


def _first(value: Any, *_: Any) -> Any:
    """Stands in for what makes a parameter of a tensor, or bytes of a text."""
    return value


class _Nothing:
    """NumPy's scalars, such as the best accuracy of a run, which nobody needs here."""

    __slots__ = ()

    def build(self, state: Any) -> None:
        pass


def _nothing(*_: Any) -> _Nothing:
    """Stands in for what makes NumPy's scalars."""
    return _Nothing()


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): pickles.ordered_dict,
    ("torch._utils", "_rebuild_tensor"): _rebuild,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch", "Size"): tuple,
    **{("torch", name): _StorageType(name) for name in DTYPES},
    ("numpy.core.multiarray", "scalar"): _nothing,
    ("numpy._core.multiarray", "scalar"): _nothing,
    ("numpy", "dtype"): _nothing,
    ("_codecs", "encode"): _first,
}


def _load(file: BinaryIO, storages: dict[str, Storage]) -> Any:
    """What the pickle at the file's position holds; `storages` collects what tensors lie in, by key."""

    def storage(pid: Any) -> Storage:
        kind, storage_type, key, _, count = pid[:5]
        if kind != "storage" or type(storage_type) is not _StorageType or any(pid[5:]) or type(key) not in (str, int):
            raise DataError(f"a storage of the kind {pickles.shown(kind)} is refused")
        if type(count) is not int or count < 0:
            raise DataError(f"a storage of {pickles.shown(count)} numbers is refused")
        found = storages.setdefault(str(key), Storage(DTYPES[storage_type.name], count))
        if (found.dtype, found.count) != (DTYPES[storage_type.name], count):
            raise DataError(f"the storage {pickles.shown(key)} is said to be of two types or sizes")
        return found

    return pickles.load(file, _ALLOWED, "weights need no such thing, and it may be harmful", persistent=storage)


def is_zip(head: bytes) -> bool:
    """Whether a file that begins so is in today's format."""
    return head.startswith(b"PK\x03\x04")


def is_legacy(head: bytes) -> bool:
    """Whether a file that begins so is in the legacy format, or another pickle."""
    return head.startswith(b"\x80")


def read(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file by name; what else it holds is ignored.

    A `state_dict` or `model` inside is taken, and `module.` (of PyTorch's data parallelism) left out of names.

    Raises:
      DataError: the file is damaged, or asks for anything but values and tensors.
    """
    with open_regular(path) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            tensors = _tensors(_read_zip(file, size) if is_zip(file.read(4)) else _read_legacy(file, size))
            if sum(tensor.size() for tensor in tensors.values()) > MOST_TIMES * size:
                raise DataError("its tensors overlap, and would take far more memory than the file")
            return {name: tensor.array() for name, tensor in tensors.items()}
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
        except Exception as error:  # of many types, whatever a malformed stream provokes
            raise DataError(f"{path} is cut short or damaged ({type(error).__name__}: {one_line(error)})") from error


def _tensors(content: Any) -> dict[str, Tensor]:
    for inner in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(inner), dict):
            content = content[inner]
    if not isinstance(content, dict):
        raise DataError("it holds no dictionary of tensors")
    return {str(name).replace("module.", ""): value for name, value in content.items() if type(value) is Tensor}


def _read_zip(file: BinaryIO, size: int) -> Any:
    with zipfile.ZipFile(file) as archive:
        entries = _entries(archive, size)
        if "byteorder" in entries and archive.read(entries["byteorder"]) != b"little":
            raise DataError("it was written on a big-endian machine")
        storages: dict[str, Storage] = {}
        content = _load(io.BytesIO(archive.read(entries["data.pkl"])), storages)
        for key, storage in storages.items():
            storage.content = archive.read(entries[f"data/{key}"])
        return content


def _entries(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The archive's parts by their names below its folder. Raises DataError for what PyTorch's never have."""
    parts = archive.infolist()
    if any(part.compress_type != zipfile.ZIP_STORED or part.file_size != part.compress_size for part in parts):
        raise DataError("its parts are compressed, which PyTorch never does")
    if sum(part.file_size for part in parts) > size:
        raise DataError("its parts overlap, or are said to be larger than the file")
    if len({part.filename for part in parts}) != len(parts):
        raise DataError("two of its parts have one name")
    return {part.filename.partition("/")[2]: part for part in parts}


def _read_legacy(file: BinaryIO, size: int) -> Any:
    file.seek(0)
    storages: dict[str, Storage] = {}
    magic, _, system = (_load(file, {}) for _ in range(3))
    if magic != LEGACY_MAGIC or not system["little_endian"]:
        raise DataError("it is a pickle, but not of PyTorch's on a little-endian machine")
    content = _load(file, storages)
    for key in _load(file, {}):
        storage = storages[key]
        if int.from_bytes(file.read(8), "little") != storage.count:
            raise DataError(f"the storage {pickles.shown(key)} is not of the size that its tensors need")
        if storage.count * storage.dtype.itemsize > size - file.tell():
            raise DataError("a storage is cut short")
        storage.content = file.read(storage.count * storage.dtype.itemsize)
    return content
