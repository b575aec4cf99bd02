"""Image files below a folder, read when they are asked for."""

from pathlib import Path
from typing import Any

import numpy as np

from ncl_jax.data.images.decode import read_encoded


class Files:
    """Image files below a folder.

    Args:
      root: the folder.
      names: paths [N] relative to it.
      sizes: bytes [N].
    """

    def __init__(self, root: Path, names: np.ndarray, sizes: np.ndarray):
        self.root, self.names, self.sizes = root, names, sizes

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: Any) -> Any:
        """One file's bytes, or the `Files` of several rows. Raises DataError for a file that cannot be read."""
        if not isinstance(index, int | np.integer):
            return Files(self.root, self.names[index], self.sizes[index])
        return read_encoded(self.root / self.names[index])

    def stamps(self) -> list[str]:
        """Name, size and time of the last change of every file: other images have other stamps."""
        times = [_changed(self.root / name) for name in self.names]
        return [f"{name}\t{size}\t{time}" for name, size, time in zip(self.names, self.sizes, times, strict=True)]


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:  # it cannot be read either
        return 0
