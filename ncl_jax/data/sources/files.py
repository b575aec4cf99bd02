"""Image files below a folder, read when they are asked for."""

import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ncl_jax.data.images.decode import read_encoded
from ncl_jax.errors import DataError
from ncl_jax.runtime.files import open_regular


class Unasked(NamedTuple):
    """Groups that the data seems to have, and that were not asked for."""

    what: str  # the groups are, in words
    how: str  # they are asked for
    of: np.ndarray  # object [N]: the group of each image


class Files:
    """Image files below a folder.

    Args:
      root: the folder.
      names: paths [N] relative to it.
      sizes: bytes [N].
      groups: names of the groups that the images are of, an object array [N]; None where there are none.
      unasked: other groups, of which only a hint is made.
    """

    def __init__(
        self,
        root: Path,
        names: np.ndarray,
        sizes: np.ndarray,
        groups: np.ndarray | None = None,
        unasked: Unasked | None = None,
    ):
        self.root, self.names, self.sizes, self.groups, self.unasked = root, names, sizes, groups, unasked

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: Any) -> Any:
        """One file's bytes, or the `Files` of several rows. Raises DataError for a file that cannot be read."""
        if not isinstance(index, int | np.integer):
            groups = None if self.groups is None else self.groups[index]
            unasked = None if self.unasked is None else self.unasked._replace(of=self.unasked.of[index])
            return Files(self.root, self.names[index], self.sizes[index], groups, unasked)
        return read_encoded(self.root / self.names[index])

    def stamps(self) -> list[tuple[str, str]]:
        """Of every file its name, size and a digest of its ends, as a text, and its time of change: other images have
        other stamps."""
        states = [state_of(self.root / name) for name in self.names]
        return [
            (f"{name}\t{size}\t{state.digest}", str(state.changed)) if state else (f"{name}\t{size}", "unreadable")
            for name, size, state in zip(self.names, self.sizes, states, strict=True)
        ]


ENDS = 4096  # bytes of a file's beginning and end that tell it from another one of its size


class State(NamedTuple):
    """What tells a file from others."""

    size: int  # bytes
    digest: str  # of its beginning and end
    changed: int  # nanoseconds since 1970


def state_of(path: Path) -> State | None:
    """What a file is; None where it cannot be read."""
    try:
        with open_regular(path) as file:
            found = os.fstat(file.fileno())
            digest = hashlib.blake2b(file.read(ENDS), digest_size=8)
            file.seek(max(found.st_size - ENDS, 0))
            digest.update(file.read(ENDS))
        return State(found.st_size, digest.hexdigest(), found.st_mtime_ns)
    except (OSError, DataError):  # nor can it be read as an image
        return None
