"""What a source is asked, and what it gives."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ncl_jax.data.holdout import RULE
from ncl_jax.errors import printable


class Request(NamedTuple):
    """What a source is asked for.

    Attributes:
      name: of the source.
      directory: folder of the data.
      download: whether the network may be used.
      lists: files of lists by split, and of class names (`classes`); of a folder of images the splits' folders, where
        their names do not say so. Other sources do not look.
      test_share: of each class, cut off for testing where the data has neither a test nor a val split.
      layout: of a folder's levels, one of `levels.LAYOUTS`.
      group_by: how images are grouped: `folder`, `column`, a regular expression of paths, or `none`; empty: by folder
        where the layout has groups.
      columns: names of a table's columns for `path`, `label`, `split` and `group`, where they are not the usual ones.
      skip: whether rows of lists without a label or a file are skipped, instead of an error.
      rule: by which images are held out, see `holdout`.
      pinned: splits that images of a run have, see `holdout.held_out`.
    """

    name: str
    directory: Path = Path()
    download: bool = True
    lists: Mapping[str, str] = {}
    test_share: float = 0.2
    layout: str = "auto"
    group_by: str = ""
    columns: Mapping[str, str] = {}
    skip: bool = False
    rule: int = RULE
    pinned: Mapping[str, str] = {}


class Preprocessing(NamedTuple):
    """From an image file to what a network sees.

    Attributes:
      resize: shorter side, in pixels, before the centre is cut out; see `transforms.fit`.
      size: side of the centre.
      mean, std: of red, green and blue in [0, 1]; subtracted and divided by.
      interpolation: how images are scaled, one of `transforms.INTERPOLATIONS`.
    """

    resize: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"


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
    """A dataset, in the order of its files."""

    class_names: tuple[str, ...]  # [C]
    splits: Mapping[str, Split]  # train, and test or val or both
    imbalance: float | None = None  # of a training set that is long-tailed and fixed; None: may be cut to a profile
    notes: tuple[str, ...] = ()  # lines to be shown when a run starts
    left_out: Mapping[str, Sequence[tuple[str, str]]] = {}  # by split: the class and what is wrong, of what is skipped
    faults: Sequence[str] = ()  # lines on what is wrong, though it stops no run
    is_cut: bool = False  # whether test was held out of train by `holdout`


def name_of(images: Any, row: int) -> str:
    """Where an image is, for messages."""
    return printable(str(images.names[row])) if hasattr(images, "names") else f"image {row}"
