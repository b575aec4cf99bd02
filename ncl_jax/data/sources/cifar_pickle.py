"""CIFAR's pickles: dictionaries of numbers, byte strings, lists of them, and arrays of bytes."""

import io
import math
from typing import Any, NoReturn

import numpy as np

from ncl_jax.errors import DataError, one_line
from ncl_jax.runtime import pickles

MOST_DIMENSIONS = 8


def load(content: bytes, place: str) -> Any:
    """The values in a pickle. Raises DataError for one that is damaged or asks for more than values and arrays."""
    try:
        return pickles.load(io.BytesIO(content), _ALLOWED, _REASON, encoding="bytes")
    except DataError as error:
        raise DataError(f"{place}: {error}") from error
    except Exception as error:  # of many types, whatever a malformed stream provokes
        what = f"{type(error).__name__}: {one_line(error)}"
        raise DataError(f"{place} is cut short or damaged ({what}): unpack or download it again") from error


def array(value: Any) -> np.ndarray:
    """An array of a pickle. Raises TypeError for any other value, of which NumPy might make a far larger one."""
    if type(value) is not _Array:
        raise TypeError(f"{pickles.shown(value)} is not an array")
    return value.content


def numbers(value: Any) -> np.ndarray:
    """A list of whole numbers, or an array, as int32 `[N]`. Raises TypeError or OverflowError for any other value."""
    if type(value) is _Array:
        return value.content.astype(np.int32)
    if type(value) is not list or not all(type(number) is int for number in value):
        raise TypeError(f"{pickles.shown(value)} is not a list of whole numbers")
    return np.array(value, np.int32)


class _Array:
    """Stands in for an array of bytes; empty until its state is set."""

    __slots__ = ("content",)

    def __init__(self) -> None:
        self.content: np.ndarray = np.empty(0, np.uint8)

    def build(self, state: Any) -> None:
        _, shape, _, fortran_order, content = state
        if type(shape) is not tuple or len(shape) > MOST_DIMENSIONS or not all(type(n) is int for n in shape):
            raise DataError("refused to unpickle an array whose shape is not a short tuple of whole numbers")
        # Sizes are compared before any array is made: nothing is allocated on the pickle's word.
        if type(content) is not bytes or len(content) != math.prod(shape):
            raise DataError(f"refused to unpickle an array of shape {shape!s:.100} whose content does not fill it")
        self.content = np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran_order else "C")


class _Type:
    """Stands in for the type of an array of bytes: NumPy's own would accept a state that describes anything."""

    __slots__ = ()

    def build(self, state: Any) -> None:
        pass


def _make(*_: Any) -> _Array:
    return _Array()


def _refuse(*_: Any) -> NoReturn:
    raise DataError("refused to unpickle an array without _reconstruct")


def _dtype(code: Any, *_: Any) -> _Type:
    if code not in ("u1", b"u1"):
        raise DataError(
            f"refused to unpickle an array of type {pickles.shown(code)}: images are bytes, and labels are lists"
        )
    return _Type()


def _encode(text: Any, encoding: Any) -> bytes:
    if encoding not in ("latin1", b"latin1"):
        raise DataError(f"refused to unpickle bytes encoded as {pickles.shown(encoding)}")
    return text.encode("latin1")


_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _make,  # numpy 1, and Python 2's pickles
    ("numpy._core.multiarray", "_reconstruct"): _make,  # numpy 2
    ("numpy", "ndarray"): _refuse,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,  # bytes, as Python 3 writes them in protocol 2
}
_REASON = (
    "a CIFAR archive holds values and arrays only, so this file is not one, and opening it otherwise may run what it "
    "contains"
)
