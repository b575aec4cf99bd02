"""The cache of features: a folder for each kind, and in it shards of rows that are written whole and named by their
content.

A kind is everything that features follow from but the image: weights, preprocessing, views, what computes them. Under
its key a row is found by the key of its image, so that nothing in the cache is ever stale, and an image that is added
or changed is the only one whose features are computed. A shard whose content is not what its name says is deleted.
"""

import contextlib
import errno
import hashlib
import json
import math
import mmap
import os
import pathlib
import re
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ncl_jax.data.features.rows import Found
from ncl_jax.errors import DataError
from ncl_jax.runtime import console
from ncl_jax.runtime.files import open_regular, read_file, write_bytes

VERSION = 2  # of the format and of what a key is made of
ROWS = 512  # images in a shard at most: what a kill costs at most
KEY_BYTES = 16  # of an image's key
ABOUT = "about.json"
KEY = re.compile("[0-9a-f]{24}")
SHARD = re.compile(r"[0-9a-f]{16}\.rows")
# Names of files in a kind's folder, those of version 1 as well.
OWN = re.compile(rf"(about\.json|{SHARD.pattern}|\d{{6}}-[0-9a-f]{{16}}\.f32)(\.partial)?")


class Cached(NamedTuple):
    """A kind of features in the cache."""

    key: str
    about: dict[str, Any]
    bytes: int
    used: float  # seconds since 1970


def key_of(about: dict[str, Any]) -> str:
    """The folder's name of what `about` describes."""
    text = json.dumps(about | {"version": VERSION}, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]


class Store:
    """The shards of one kind of features. A shard holds the keys of its images and then their rows `[n, V, D]` float32.

    Args:
      root: the cache; None: nothing is kept.
      about: what the features follow from beside the image, as JSON; its digest is the key.
      shape: V, D.

    Attributes:
      keeps: whether there is a cache, which has been written without an error so far.
    """

    def __init__(self, root: pathlib.Path | None, about: dict[str, Any], shape: tuple[int, int]):
        self._folder = None if root is None else root / key_of(about)
        self._about, self.shape, self.keeps = about, shape, root is not None

    def find(self, keys: Sequence[bytes]) -> Found:
        """The features of these images, as far as they are there; damaged shards are deleted, the others touched."""
        found, wanted = Found([], {}), set(keys)
        for path, content, number in self._shards():
            own = {key: row for row, key in enumerate(_keys(content, number)) if key in wanted}
            if not own.keys() - found.places.keys():
                continue
            features = self._rows(content, number)
            if path.stem != _digest(content) or not np.isfinite(features).all():
                _delete(path)
                continue
            found.places.update({key: (len(found.parts), row) for key, row in own.items() if key not in found.places})
            found.parts.append(features)
            with contextlib.suppress(OSError):  # of a cache that can only be read
                os.utime(path)
        return found

    def count_missing(self, keys: Sequence[bytes]) -> int:
        """How many of these images are not there; nothing but keys is read."""
        there = {key for _, content, number in self._shards() for key in _keys(content, number)}
        return sum(key not in there for key in keys)

    def write(self, keys: Sequence[bytes], features: np.ndarray) -> np.ndarray:
        """Keeps a shard and returns its rows as they lie in it; where that is not possible, prints so once and returns
        them as they were given."""
        features = features.astype("<f4")
        if self._folder is None or not self.keeps:
            return features
        content = b"".join(keys) + features.tobytes()
        path = self._folder / f"{_digest(content)}.rows"
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not (self._folder / ABOUT).exists():
                _write_unless_busy(self._folder / ABOUT, (json.dumps(self._about, indent=1) + "\n").encode())
            _write_unless_busy(path, content)
        except OSError as error:
            self.keeps = False
            console.say(
                f"note: the features cannot be kept in {self._folder} ({error.strerror}), so the next run computes "
                "them again: make it writable, free disk space, or set data.cache=DIR",
                error=True,
            )
            return features
        mapped = _mapped(path)
        return features if mapped is None or len(mapped) != len(content) else self._rows(mapped, len(keys))

    def _shards(self):
        """Path, content and number of rows of every shard; what cannot be one is deleted."""
        each = KEY_BYTES + 4 * math.prod(self.shape)
        for path in sorted(self._folder.glob("*.rows")) if self._folder else ():
            content = _mapped(path)
            if content is not None and (not len(content) or len(content) % each):
                _delete(path)
            elif content is not None:
                yield path, content, len(content) // each

    def _rows(self, content, number):
        return np.frombuffer(content, "<f4", offset=KEY_BYTES * number).reshape(number, *self.shape)


def _keys(content: Any, number: int) -> list[bytes]:
    head = bytes(content[: KEY_BYTES * number])
    return [head[first : first + KEY_BYTES] for first in range(0, len(head), KEY_BYTES)]


def _mapped(path: pathlib.Path) -> Any:
    """A file's content, mapped into memory; None where it cannot be read."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    except Exception:  # whatever the file system says: it is computed again
        return None


def _delete(path: pathlib.Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _write_unless_busy(path: pathlib.Path, content: bytes) -> None:
    """Writes a file, unless another process is writing it: it writes the same content."""
    try:
        write_bytes(path, content)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise


def listing(root: pathlib.Path) -> list[Cached]:
    """The kinds in a cache, the one that was used last first. Raises DataError where the folder cannot be read."""
    try:
        folders = [place for place in root.iterdir() if KEY.fullmatch(place.name)] if root.exists() else []
    except OSError as error:
        raise DataError(f"{root} is not a folder that can be read ({error.strerror})") from error
    found = []
    for place in folders:
        with contextlib.suppress(OSError):  # another program cleans the cache
            if place.is_dir() and not place.is_symlink() and (place / ABOUT).is_file():
                states = [path.stat() for path in _files(place)]
                used = max(state.st_mtime for state in states)
                found.append(
                    Cached(place.name, _described(place / ABOUT), sum(state.st_size for state in states), used)
                )
    return sorted(found, key=lambda one: -one.used)


def _files(place: pathlib.Path) -> list[pathlib.Path]:
    """What the cache has written into the folder of a kind."""
    return [path for path in place.iterdir() if OWN.fullmatch(path.name)]


def clean(root: pathlib.Path, days: float = 0.0) -> list[Cached]:
    """Deletes the shards that were not used for `days`, and nothing else; returns the kinds that they are of, with the
    bytes that were deleted. Raises DataError where one cannot be deleted."""
    deleted = []
    for one in listing(root):
        try:
            if size := _clean(root / one.key, days):
                deleted.append(one._replace(bytes=size))
        except OSError as error:
            raise DataError(f"{root / one.key} cannot be deleted as a whole ({error.strerror})") from error
    return deleted


def _clean(place: pathlib.Path, days: float) -> int:
    """Deletes what is old in the folder of a kind, and the folder where nothing of it is left; returns the bytes."""
    size, left = 0, 0
    for path in sorted(_files(place), key=lambda path: path.name == ABOUT):  # which lists the others
        with contextlib.suppress(FileNotFoundError):  # another program cleans the cache
            state = path.stat()
            if max(time.time() - state.st_mtime, 0) < 86400 * days or (path.name == ABOUT and left):
                left += 1
                continue
            path.unlink()
            size += state.st_size
    if not left:
        place.rmdir()
    return size


def _described(path: pathlib.Path) -> dict[str, Any]:
    try:
        found = json.loads(read_file(path, 2**20))
    except (ValueError, RecursionError, DataError):
        return {}
    return found if isinstance(found, dict) else {}


def _digest(content: Any) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()
