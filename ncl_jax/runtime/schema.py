"""JSON that somebody else may have written: read with limits, and checked before anything is made of it.

A check is a function `(value, name) -> None` that raises ValueError, naming the value, where it is not what it must be;
the functions below make checks.
"""

import json
import math
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from ncl_jax.runtime.files import open_regular

Check = Callable[[Any, str], None]

LARGEST = 2**53  # of a whole number: JSON's readers agree up to here
MOST_DEPTH = 32
MOST_CONTAINERS = 200_000  # lists and objects: each takes a hundred times the memory of its two bytes
_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


def read_json(path: str | os.PathLike[str], most: int, check: Check, *, finite: bool = True) -> Any:
    """The content of a JSON file of at most `most` bytes.

    Raises:
      OSError: as for `open`.
      DataError: it is a pipe or a device.
      ValueError: it is larger, or see `parse`; the message does not name the file.
    """
    content = read_bytes(path, most)
    value = parse(content, finite=finite)
    check(value, "")
    return value


def read_bytes(path: str | os.PathLike[str], most: int) -> bytes:
    """The content of a regular file; errors as for `read_json`."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > most:  # reading up to `most` would take that memory at once
            raise ValueError(f"it is larger than {most:,} bytes, which is more than such a file can have")
        return file.read()


def parse(content: bytes, *, finite: bool = True, most: int = MOST_CONTAINERS) -> Any:
    """The value of a JSON text in UTF-8.

    Args:
      content: the text.
      finite: whether the words NaN and Infinity, which Python writes and JSON does not know, are refused.
      most: lists and objects that it may have.

    Raises:
      ValueError: it is not such a text, has a key twice, or is too deep or too large to be what a run writes.
    """
    containers = content.count(b"[") + content.count(b"{")
    if containers > most:
        raise ValueError(f"it has more than {most:,} lists and objects")
    if containers > MOST_DEPTH and _is_deep(_STRINGS.sub(b"", content)):
        raise ValueError(f"its lists and objects are nested more than {MOST_DEPTH} deep")
    refuse = _refuse_constant if finite else None
    return json.loads(content.decode(), object_pairs_hook=_without_twins, parse_constant=refuse)


def _is_deep(content: bytes) -> bool:
    depth = 0
    for byte in content.translate(None, _NOT_BRACKETS):
        depth += 1 if byte in b"[{" else -1
        if depth > MOST_DEPTH:
            return True
    return False


def _without_twins(pairs):
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the key {_shown(name)} appears twice in an object")
        found[name] = value
    return found


def _refuse_constant(word):
    raise ValueError(f"{word} is not a number that JSON has")


def integer(least: int = 0, most: int = LARGEST) -> Check:
    """A whole number within bounds."""

    def check(value: Any, name: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            refuse(value, name, f"a whole number from {least} to {most}")

    return check


def number(least: float = -math.inf, most: float = math.inf, *, finite: bool = True) -> Check:
    """A number within bounds."""
    bounds = f" from {least:g} to {most:g}" if (least, most) != (-math.inf, math.inf) else ""

    def check(value: Any, name: str) -> None:
        good = isinstance(value, int | float) and not isinstance(value, bool)
        if good and isinstance(value, int):  # of any length in JSON
            good = abs(value) <= sys.float_info.max
        if not good or (finite and not (least <= value <= most and abs(value) < math.inf)):
            refuse(value, name, f"a number{bounds}")

    return check


def text(most: int = 10_000, choices: tuple[str, ...] = ()) -> Check:
    """A text of at most so many characters, one of the `choices` if there are any."""

    def check(value: Any, name: str) -> None:
        if not isinstance(value, str) or len(value) > most or (choices and value not in choices):
            refuse(value, name, f"one of: {', '.join(choices)}" if choices else f"a text of at most {most} characters")

    return check


def anything(value: Any, name: str) -> None:
    """Whatever there is."""


def maybe(inner: Check) -> Check:
    """null, or what `inner` takes."""
    return lambda value, name: None if value is None else inner(value, name)


def list_of(inner: Check, least: int = 0, most: int = LARGEST) -> Check:
    """A list of `least` to `most` items."""
    bounds = f"{least} items" if least == most else f"at least {least} items" if least else "items"

    def check(value: Any, name: str) -> None:
        if not isinstance(value, list) or not least <= len(value) <= most:
            refuse(value, name, f"a list of {bounds}" + (f", at most {most}" if least < most < LARGEST else ""))
        for index, item in enumerate(value):
            inner(item, f"{name}[{index}]")

    return check


def mapping(inner: Check) -> Check:
    """An object with any keys."""

    def check(value: Any, name: str) -> None:
        if not isinstance(value, dict):
            refuse(value, name, "an object")
        for key, item in value.items():
            inner(item, _joined(name, key))

    return check


def record(fields: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """An object with these keys, and perhaps some of the optional ones. Other keys are let be: of later versions."""

    def check(value: Any, name: str) -> None:
        if not isinstance(value, dict):
            refuse(value, name, "an object")
        if missing := [key for key in fields if key not in value]:
            raise ValueError(f"{_joined(name, missing[0])} is missing")
        for key, inner in {**fields, **(optional or {})}.items():
            if key in value:
                inner(value[key], _joined(name, key))

    return check


def refuse(value: Any, name: str, wanted: str) -> None:
    """Raises ValueError for a value."""
    raise ValueError(f"{name or 'the content'}={_shown(value)} must be {wanted}")


def _joined(name: str, key: str) -> str:
    key = key if len(key) <= 60 else f"{key[:60]}…"
    return f"{name}.{key}" if name else key


def _shown(value: Any) -> str:
    """A value in a message: its beginning, without line breaks."""
    if isinstance(value, dict):
        return f"an object of {len(value)} keys"
    if isinstance(value, list):
        return f"a list of {len(value)} items"
    words = repr(value)
    return words if len(words) <= 60 else f"{words[:60]}…"
