"""PyTorch's files of weights, read without PyTorch: the zip format of today and the legacy one before version 1.6.

Both hold a pickle, which could run anything. Here it can build tensors, numbers, strings, lists and dictionaries, and
nothing else: every name that it may ask for has a stand-in without attributes, and any other is refused.
"""

import io
import math
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from ncl_jax.errors import DataError
from ncl_jax.runtime.pickles import RestrictedUnpickler

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
DTYPES = {
    "FloatStorage": np.dtype("<f4"), "DoubleStorage": np.dtype("<f8"), "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16), "LongStorage": np.dtype("<i8"), "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"), "CharStorage": np.dtype("i1"), "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}  # fmt: skip


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

    def array(self) -> np.ndarray:
        """The tensor. Raises DataError where it leads out of its storage."""
        numbers = (self.offset, *self.shape, *self.strides)
        if not all(isinstance(n, int) and n >= 0 for n in numbers) or len(self.shape) != len(self.strides):
            raise DataError(f"a tensor of shape {self.shape} and strides {self.strides} is refused")
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        size, itemsize = math.prod(self.shape), self.storage.dtype.itemsize
        if size and (last >= self.storage.count or size > self.storage.count):
            raise DataError(f"a tensor of shape {self.shape} leads out of its storage of {self.storage.count}")
        if len(self.storage.content) != self.storage.count * itemsize:
            raise DataError("a storage is cut short")
        flat = np.frombuffer(self.storage.content, self.storage.dtype)
        steps = tuple(step * itemsize for step in self.strides)
        return np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, steps).copy()


class _StorageType(NamedTuple):
    name: str


class _Rebuild:
    """Stands in for PyTorch's functions that make a tensor of a storage."""

    __slots__ = ()

    def __call__(self, storage, offset, shape, strides, *_):
        if not isinstance(storage, Storage):
            raise DataError("a tensor without a storage is refused")
        return Tensor(storage, offset, tuple(shape), tuple(strides))


class _Parameter:
    """Stands in for PyTorch's function that makes a parameter of a tensor."""

    __slots__ = ()

    def __call__(self, tensor, *_):
        return tensor


class _Nothing:
    """Stands in for NumPy's scalars, such as the best accuracy of a run, which nobody needs here."""

    __slots__ = ()

    def __call__(self, *_):
        return self

    def __setstate__(self, _):
        pass


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _Rebuild(),
    ("torch._utils", "_rebuild_tensor_v2"): _Rebuild(),
    ("torch._utils", "_rebuild_parameter"): _Parameter(),
    ("torch", "Size"): tuple,
    **{("torch", name): _StorageType(name) for name in DTYPES},
    ("numpy.core.multiarray", "scalar"): _Nothing(),
    ("numpy._core.multiarray", "scalar"): _Nothing(),
    ("numpy", "dtype"): _Nothing(),
    ("_codecs", "encode"): _Nothing(),
}


def _unpickler(file: BinaryIO, storages: dict[str, Storage]) -> RestrictedUnpickler:
    """Builds what the module's text says; `storages` collects what tensors lie in, by key."""

    def storage(pid: Any) -> Storage:
        kind, storage_type, key, _, count = pid[:5]
        if kind != "storage" or not isinstance(storage_type, _StorageType) or any(pid[5:]):
            raise DataError(f"a storage of the kind {kind!r} is refused")
        if not isinstance(count, int) or count < 0:
            raise DataError(f"a storage of {count!r} numbers is refused")
        return storages.setdefault(str(key), Storage(DTYPES[storage_type.name], count))

    reason = "weights need no such thing, and it may be harmful"
    return RestrictedUnpickler(file, _ALLOWED, reason, persistent=storage)


def is_zip(head: bytes) -> bool:
    """Whether a file that begins so is in today's format."""
    return head.startswith(b"PK\x03\x04")


def is_legacy(head: bytes) -> bool:
    """Whether a file that begins so is in the legacy format, or another pickle."""
    return head.startswith(b"\x80")


def read(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file by name; what else it holds is left out.

    A `state_dict` or `model` inside is taken, and `module.` (of PyTorch's data parallelism) left out of names.

    Raises:
      DataError: the file is damaged, or asks for anything but values and tensors.
    """
    try:
        with path.open("rb") as file:
            content = _read_zip(file) if is_zip(file.read(4)) else _read_legacy(file)
        return {name.replace("module.", ""): tensor.array() for name, tensor in _tensors(content)}
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except Exception as error:  # the unpickler lets through whatever a malformed stream provokes
        raise DataError(f"{path} is cut short or damaged ({type(error).__name__}: {error})") from error


def _tensors(content: Any) -> Iterator[tuple[str, Tensor]]:
    for inner in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(dict.get(content, inner), dict):
            content = dict.__getitem__(content, inner)
    if not isinstance(content, dict):
        raise DataError("it holds no dictionary of tensors")
    values: dict = content  # of the class itself: the pickle may have set attributes
    return ((str(name), value) for name, value in dict.items(values) if isinstance(value, Tensor))


def _read_zip(file: BinaryIO) -> Any:
    with zipfile.ZipFile(file) as archive:
        entries = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        if any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
            raise DataError("its parts are compressed, which PyTorch never does")
        if "byteorder" in entries and archive.read(entries["byteorder"]) != b"little":
            raise DataError("it was written on a big-endian machine")
        storages: dict[str, Storage] = {}
        content = _unpickler(io.BytesIO(archive.read(entries["data.pkl"])), storages).load()
        for key, storage in storages.items():
            storage.content = archive.read(entries[f"data/{key}"])
        return content


def _read_legacy(file: BinaryIO) -> Any:
    file.seek(0)
    storages: dict[str, Storage] = {}
    magic, _, system = (_unpickler(file, {}).load() for _ in range(3))
    if magic != LEGACY_MAGIC or not system["little_endian"]:
        raise DataError("it is a pickle, but not of PyTorch's on a little-endian machine")
    content = _unpickler(file, storages).load()
    for key in _unpickler(file, {}).load():
        storage = storages[str(key)]
        if int.from_bytes(file.read(8), "little") != storage.count:
            raise DataError(f"the storage {key} is not of the size that its tensors need")
        storage.content = file.read(storage.count * storage.dtype.itemsize)
    return content
