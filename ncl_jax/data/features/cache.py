"""The cache of features: a folder for each set, shards in it that are written whole and named by their content.

What lies under a key was computed from exactly what the key is made of, so that nothing in the cache is ever stale; a
shard whose content is not what its name says is computed again.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import pathlib
import re
import time
from typing import Any, NamedTuple

import numpy as np

from ncl_jax.errors import DataError
from ncl_jax.runtime import console
from ncl_jax.runtime.files import read_file, write_bytes

VERSION = 1  # of the format and of what a key is made of
ROWS = 512  # images in a shard: what a kill costs at most
ABOUT = "about.json"
KEY = re.compile("[0-9a-f]{24}")
OWN = re.compile(r"(about\.json|\d{6}-[0-9a-f]{16}\.f32)(\.partial)?")  # names of files in a set's folder


class Cached(NamedTuple):
    """A set of features in the cache."""

    key: str
    about: dict[str, Any]
    bytes: int
    used: float  # seconds since 1970


def key_of(about: dict[str, Any]) -> str:
    """The folder's name of what `about` describes."""
    text = json.dumps(about | {"version": VERSION}, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]


class Shards:
    """The shards of one set of features, `[N, V, D]` float32, each the bytes of its rows.

    Args:
      root: the cache; None: nothing is kept.
      about: what the features are made of, as JSON; its digest is the key.
      shape: N, V, D.
    """

    def __init__(self, root: pathlib.Path | None, about: dict[str, Any], shape: tuple[int, int, int]):
        self._folder = None if root is None else root / key_of(about)
        self._about, self.shape, self._failed = about, shape, False
        self.count = -(-shape[0] // ROWS)

    def slice(self, number: int) -> slice:
        """The rows of a shard."""
        return slice(number * ROWS, min((number + 1) * ROWS, self.shape[0]))

    def read(self, number: int) -> np.ndarray | None:
        """A shard, None where it is missing or damaged; a damaged one is deleted."""
        rows = self.slice(number)
        shape = (rows.stop - rows.start, *self.shape[1:])
        for path in sorted(self._folder.glob(f"{number:06d}-*.f32")) if self._folder else ():
            content = _content(path, 4 * math.prod(shape))
            if content is None:
                continue
            if path.stem.endswith(_digest(content)) and len(content) == 4 * math.prod(shape):
                features = np.frombuffer(content, "<f4").reshape(shape)
                if np.isfinite(features).all():
                    return features
            with contextlib.suppress(OSError):
                path.unlink()
        return None

    def read_all(self) -> np.ndarray | None:
        """All features, where none is missing."""
        found = []
        for number in range(self.count):
            shard = self.read(number)
            if shard is None:
                return None
            found.append(shard)
        self.touch()
        return np.concatenate(found) if found else None

    def missing_rows(self) -> np.ndarray:
        """The rows of the shards that are missing or damaged."""
        every = np.arange(self.shape[0])
        return np.concatenate([every[:0], *(every[self.slice(n)] for n in range(self.count) if self.read(n) is None)])

    def write(self, number: int, features: np.ndarray) -> None:
        """Keeps a shard; where that is not possible, says so once."""
        if self._folder is None or self._failed:
            return
        content = features.astype("<f4").tobytes()
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not (self._folder / ABOUT).exists():
                _write_unless_busy(self._folder / ABOUT, (json.dumps(self._about, indent=1) + "\n").encode())
            _write_unless_busy(self._folder / f"{number:06d}-{_digest(content)}.f32", content)
        except OSError as error:
            self._failed = True
            console.say(
                f"note: the features cannot be kept in {self._folder} ({error.strerror}), so the next run computes "
                "them again: make it writable, free disk space, or set data.cache=DIR",
                error=True,
            )

    def touch(self) -> None:
        """Notes that the set was used."""
        if self._folder is not None and (self._folder / ABOUT).exists():
            with contextlib.suppress(OSError):  # of a cache that can only be read
                os.utime(self._folder / ABOUT)


def _write_unless_busy(path: pathlib.Path, content: bytes) -> None:
    """Writes a file, unless another process is writing it: it writes the same content."""
    try:
        write_bytes(path, content)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise


def listing(root: pathlib.Path) -> list[Cached]:
    """The sets in a cache, the one that was used last first. Raises DataError where the folder cannot be read."""
    try:
        folders = [place for place in root.iterdir() if KEY.fullmatch(place.name)] if root.exists() else []
    except OSError as error:
        raise DataError(f"{root} is not a folder that can be read ({error.strerror})") from error
    found = []
    for place in folders:
        with contextlib.suppress(OSError):  # another program cleans the cache
            if place.is_dir() and not place.is_symlink() and (place / ABOUT).is_file():
                size = sum(path.stat().st_size for path in _files(place))
                found.append(Cached(place.name, _described(place / ABOUT), size, (place / ABOUT).stat().st_mtime))
    return sorted(found, key=lambda one: -one.used)


def _files(place: pathlib.Path) -> list[pathlib.Path]:
    """What the cache has written into the folder of a set."""
    return [path for path in place.iterdir() if OWN.fullmatch(path.name)]


def clean(root: pathlib.Path, days: float = 0.0) -> list[Cached]:
    """Deletes the sets that were not used for `days`, and nothing else; returns them. Raises DataError where one
    cannot be deleted."""
    old = [one for one in listing(root) if max(time.time() - one.used, 0) >= 86400 * days]
    for one in old:
        try:
            for path in sorted(_files(root / one.key), key=lambda path: path.name == ABOUT):
                path.unlink(missing_ok=True)
            (root / one.key).rmdir()
        except OSError as error:
            raise DataError(f"{root / one.key} cannot be deleted as a whole ({error.strerror})") from error
    return old


def _described(path: pathlib.Path) -> dict[str, Any]:
    try:
        found = json.loads(_content(path) or b"")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _content(path: pathlib.Path, most: int = 2**20) -> bytes | None:
    try:
        return read_file(path, most)
    except Exception:  # whatever the file system says: it is computed again
        return None


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()
