"""What a source is asked, and what it gives."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ncl_jax.data.images import read_file


class Request(NamedTuple):
    """What a source is asked for.

    Attributes:
      name: of the source.
      directory: folder of the data.
      download: whether the network may be used.
      lists: files of lists by split, and of class names (`classes`); a source that has no lists does not look.
      test_share: of each class, cut off for testing where the data has neither a test nor a val split.
    """

    name: str
    directory: Path = Path()
    download: bool = True
    lists: Mapping[str, str] = {}
    test_share: float = 0.2


class Split(NamedTuple):
    """The images of one split and their classes.

    `images` is an array uint8 [N, H, W, 3], or an object that is indexed alike: `images[i]` is one image, decoded or as
    the bytes of its file, `images[rows]` a selection, `images.names` says where each one is. Labels are in [0, C).
    """

    images: Any
    labels: np.ndarray  # int32 [N]

    def take(self, rows: np.ndarray) -> "Split":
        """Some of the images, in the order of `rows`."""
        return Split(self.images[rows], self.labels[rows])

    def __len__(self) -> int:
        return len(self.labels)


class Source(NamedTuple):
    """A data set, in the order of its files."""

    class_names: tuple[str, ...]  # [C]
    splits: Mapping[str, Split]  # train, and test or val or both
    imbalance: float | None = None  # of a training set that is long-tailed and fixed; None: may be cut to a profile
    notes: tuple[str, ...] = ()  # lines to be shown when a run starts


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
        return read_file(self.root / self.names[index])


def name_of(images: Any, row: int) -> str:
    """Where an image is, for messages."""
    return str(images.names[row]) if hasattr(images, "names") else f"image {row}"
