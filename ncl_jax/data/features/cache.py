"""The cache of features: a folder for each set, shards in it that are written whole and named by their content.

What lies under a key was computed from exactly what the key is made of, so that nothing in the cache is ever stale; a
shard whose content is not what its name says is computed again.
"""

import hashlib
import io
import json
import pathlib
import shutil
import time
from typing import Any, NamedTuple

import numpy as np

from ncl_jax.errors import WriteError
from ncl_jax.runtime.files import read_file, write_bytes

VERSION = 1  # of the format and of what a key is made of
ROWS = 512  # images in a shard: what a kill costs at most
ABOUT = "about.json"


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
    """The shards of one set of features, `[N, V, D]` float32.

    Args:
      root: the cache; None: nothing is kept.
      about: what the features are made of, as JSON; its digest is the key.
      rows: N.
    """

    def __init__(self, root: pathlib.Path | None, about: dict[str, Any], rows: int):
        self._folder = None if root is None else root / key_of(about)
        self._about, self.rows = about, rows
        self.count = -(-rows // ROWS)

    def slice(self, number: int) -> slice:
        """The rows of a shard."""
        return slice(number * ROWS, min((number + 1) * ROWS, self.rows))

    def read(self, number: int) -> np.ndarray | None:
        """A shard, None where it is missing or damaged; a damaged one is deleted."""
        for path in sorted(self._folder.glob(f"{number:06d}-*.npy")) if self._folder else ():
            content = _content(path)
            if content is not None and path.stem.endswith(_digest(content)):
                return np.load(io.BytesIO(content), allow_pickle=False)
            path.unlink(missing_ok=True)
        return None

    def write(self, number: int, features: np.ndarray) -> None:
        """Keeps a shard. Raises WriteError where the cache cannot be written."""
        if self._folder is None:
            return
        buffer = io.BytesIO()
        np.save(buffer, features)
        content = buffer.getvalue()
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not (self._folder / ABOUT).exists():
                write_bytes(self._folder / ABOUT, (json.dumps(self._about, indent=1) + "\n").encode())
            write_bytes(self._folder / f"{number:06d}-{_digest(content)}.npy", content)
        except OSError as error:
            raise WriteError(
                f"the features cannot be kept in {self._folder} ({error.strerror}): free disk space, or set "
                "data.cache=DIR, or data.cache=none to keep nothing; what is there already serves the next run"
            ) from error

    def touch(self) -> None:
        """Notes that the set was used."""
        if self._folder is not None and (self._folder / ABOUT).exists():
            (self._folder / ABOUT).touch()


def listing(root: pathlib.Path) -> list[Cached]:
    """The sets in a cache, the one that was used last first."""
    found = []
    for about in root.glob(f"*/{ABOUT}"):
        content = _content(about)
        size = sum(path.stat().st_size for path in about.parent.iterdir())
        found.append(Cached(about.parent.name, json.loads(content or b"{}"), size, about.stat().st_mtime))
    return sorted(found, key=lambda one: -one.used)


def clean(root: pathlib.Path, days: float = 0.0) -> list[Cached]:
    """Deletes the sets that were not used for `days`; returns them."""
    old = [one for one in listing(root) if time.time() - one.used >= 86400 * days]
    for one in old:
        shutil.rmtree(root / one.key, ignore_errors=True)
    return old


def _content(path: pathlib.Path) -> bytes | None:
    try:
        return read_file(path)
    except Exception:  # whatever the file system says: it is computed again
        return None


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()
