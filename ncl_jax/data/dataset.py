"""From a data set's name to the arrays that a run trains and is tested on."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ncl_jax.data import corrections, holdout, longtail, sources
from ncl_jax.data.images import parallel
from ncl_jax.data.sources import groups
from ncl_jax.data.types import Request, Source, Split, name_of
from ncl_jax.errors import DataError


class Facts(NamedTuple):
    """What must be known of the data to build a run's model and to read its figures."""

    name: str
    image_shape: tuple[int, int, int]  # H, W, 3
    class_names: tuple[str, ...]  # [C]
    class_counts: tuple[int, ...]  # [C] training images
    rows_checksum: str  # of the long-tailed subset, see longtail.checksum; of image files, see `checksum`
    split: str = "test"  # that is evaluated
    skipped: Mapping[str, Mapping[str, int]] = {}  # unreadable files that were left out, by split and class
    corrected: Mapping[str, int] = {}  # training images that have another label than their source says, or none

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_counts)

    @property
    def num_train(self) -> int:
        """Training images."""
        return sum(self.class_counts)

    def groups(self) -> dict[str, dict[str, np.ndarray]]:
        """Masks [C] of the many, medium and few classes under each convention, the papers' first."""
        return {name: longtail.groups(np.asarray(self.class_counts), name) for name in longtail.CONVENTIONS}

    def to_json(self) -> str:
        """The text of `dataset.json`."""
        return json.dumps(self._asdict(), indent=1) + "\n"

    @classmethod
    def of(cls, content: dict[str, Any]) -> "Facts":
        """From what `to_json` wrote, read; what only later versions know is ignored."""
        known: dict[str, Any] = {name: value for name, value in content.items() if name in cls._fields}
        return cls(**known | {name: tuple(v) for name, v in known.items() if isinstance(v, list)})


class Data(NamedTuple):
    """What a run is trained on and evaluated on."""

    facts: Facts
    train: Split
    test: Split  # the split that is evaluated
    others: dict[str, Split]  # of the source, by name
    notes: tuple[str, ...] = ()  # lines to be shown when a run starts
    rows: np.ndarray | None = None  # int [N]: of the training images in their source
    groups: Mapping[str, np.ndarray] = {}  # of the images of each split, where they are grouped; objects [N]
    left_out: tuple[str, ...] = ()  # a line for every file, or row of a list, that is skipped
    faults: tuple[str, ...] = ()  # what else is wrong with the data, a line each

    def lines(self) -> list[str]:
        """What is to be shown when a run starts, what makes figures doubtful first."""
        warnings = [note for note in self.notes if note.startswith("warning: ")]
        return [f"warning: {line}" for line in self.faults] + [*warnings, *(n for n in self.notes if n not in warnings)]

    def splits(self) -> dict[str, Split]:
        """All of them by name, train first."""
        return {"train": self.train, self.facts.split: self.test, **self.others}

    def place(self, split: str, row: int) -> str:
        """Where an image is, for messages: its file, or its row in the source."""
        if split == "train" and self.rows is not None and isinstance(self.train.images, np.ndarray):
            row = int(self.rows[row])
        return f"{split} {name_of(self.splits()[split].images, row)}"

    def listing(self) -> list[str]:
        """A line for every image file: split, class, path, size in bytes and, if there are groups, its group; empty
        for data in memory."""
        splits = {"train": self.train, self.facts.split: self.test}
        return [line for name, split in splits.items() for line in _lines(name, split, self.facts.class_names)]


def _lines(name: str, split: Split, class_names: Sequence[str]) -> list[str]:
    if not hasattr(split.images, "names"):
        return []
    sizes = getattr(split.images, "sizes", np.zeros(len(split), np.int64))
    columns = [[class_names[label] for label in split.labels], map(str, split.images.names), map(str, sizes)]
    if getattr(split.images, "groups", None) is not None:
        columns.append(split.images.groups)
    table = [(name, *cells) for cells in zip(*columns, strict=True)]
    return ["\t".join(cells).replace("\n", "\\n") for cells in table]


def load(
    request: Request,
    imbalance: float = 0.0,
    *,
    size: int = 0,
    evaluated: str = "test",
    skip_unreadable: bool = False,
    val_share: float = 0.0,
    labels: Path | None = None,
) -> Data:
    """Reads a data set and keeps its long-tailed subset (`longtail.select`), unless it is long-tailed already.

    Args:
      request: what is asked of the source.
      imbalance: images of the largest class over those of the smallest; 0 takes the data as it is.
      size: side of the images that the network sees, in pixels; 0: as they are, where all are alike.
      evaluated: the split that the run is evaluated on.
      skip_unreadable: leave out the files that cannot be read.
      val_share: of every class of the training images, held out as the split val.
      labels: a file of corrected labels of training images, see `corrections.read`; they change labels of the subset,
        not which images it has.

    Raises:
      DataError: see `sources.load` and `corrections.read`; the profile does not fit the data (`longtail.select`); data
        that is long-tailed already is asked for with another imbalance than its own; there is no split `evaluated`, or
        already one that is to be held out.
    """
    source = sources.load(request)
    if source.imbalance and imbalance not in (0, source.imbalance):
        raise DataError(f"data.imbalance={imbalance}: the data {request.name} is fixed at {source.imbalance:g}")
    if evaluated not in source.splits or evaluated == "train":
        others = [name for name in source.splits if name != "train"]
        raise DataError(f"data.eval_split={evaluated}: {request.name} has {' and '.join(others)}")
    splits, skipped = dict(source.splits), {name: [*lines] for name, lines in source.left_out.items()}
    rows = np.arange(len(splits["train"]))
    if skip_unreadable:
        for name in ("train", evaluated):
            splits[name], good, lines = readable(splits[name], source.class_names, name)
            skipped[name] = [*skipped.get(name, ()), *lines]
            if not len(good):
                raise DataError(f"no image of {name} can be read: replace them; ncl-jax inspect shows what is wrong")
            rows = good if name == "train" else rows
    train = splits.pop("train")
    if not source.imbalance and imbalance:
        train, kept = long_tailed(train, imbalance, source.class_names, request)
        rows = rows[kept]
    changed: dict[str, int] = {}
    if labels is not None:
        train, rows, changed = correct(train, rows, corrections.read(labels, source))
    if val_share:
        train, rows, splits["val"] = hold_out(train, rows, val_share, source, request)
    counts = count_classes(train.labels, source.class_names, request)
    facts = Facts(
        request.name, image_shape(train, size), source.class_names, counts,
        longtail.checksum(rows if labels is None else np.stack([rows, train.labels])), evaluated,
        {name: dict(Counter(label for label, _ in lines)) for name, lines in skipped.items() if lines}, changed,
    )  # fmt: skip
    test = splits.pop(evaluated)
    of_group = groups.of_splits({"train": train, evaluated: test, **splits})
    left_out = tuple(f"{name}: {line}" for name, of_split in skipped.items() for _, line in of_split)
    notes = (*source.notes, *_said(labels, changed), *groups.remarks(of_group))
    notes += groups.hints({"train": train, evaluated: test, **splits}, source.is_cut)
    data = Data(facts, train, test, splits, notes, rows, of_group, left_out, tuple(source.faults))
    if hasattr(train.images, "names"):
        data = data._replace(facts=facts._replace(rows_checksum=checksum(data.listing())))
    return data


def hold_out(
    train: Split, rows: np.ndarray, share: float, source: Source, request: Request
) -> tuple[Split, np.ndarray, Split]:
    """What is left of the training images with its rows, and what is held out. Raises DataError where there is a val
    split already."""
    if "val" in source.splits:
        raise DataError(f"data.val_share={share:g}: the data has a val split already; leave it out")
    names: Any = getattr(train.images, "names", rows)
    held = holdout.held_out(
        train.labels, names, share, "val",
        groups=getattr(train.images, "groups", None), rule=request.rule, pinned=request.pinned,
    )  # fmt: skip
    return train.take(np.flatnonzero(~held)), rows[~held], train.take(np.flatnonzero(held))


def correct(train: Split, rows: np.ndarray, labels: np.ndarray) -> tuple[Split, np.ndarray, dict[str, int]]:
    """The training images with the corrected `labels` of all rows of their source, where -1 removes an image; their
    rows, and how many were `relabelled` and `removed`."""
    wanted = labels[rows]
    kept = np.flatnonzero(wanted >= 0)
    count = int((wanted != train.labels).sum())
    removed = len(wanted) - len(kept)
    corrected = Split(train.images[kept], wanted[kept])
    return corrected, rows[kept], {"relabelled": count - removed, "removed": removed}


def _said(labels: Path | None, changed: Mapping[str, int]) -> list[str]:
    """What corrections have changed, in a line."""
    numbers = ", ".join(f"{kind} {count:,}" for kind, count in changed.items())
    return [] if labels is None else [f"training images corrected by {labels}: {numbers}"]


def checksum(listing: list[str]) -> str:
    """Identifies the files of a run: the first 16 hexadecimal digits of the SHA-256 of their lines."""
    return hashlib.sha256("\n".join(listing).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def long_tailed(
    train: Split, imbalance: float, class_names: Sequence[str], request: Request
) -> tuple[Split, np.ndarray]:
    """The images that the long-tailed profile keeps, and their rows. Raises DataError if it does not fit."""
    count_classes(train.labels, class_names, request)
    try:
        rows = longtail.select(train.labels, imbalance, len(class_names))
    except ValueError as error:
        raise DataError(f"{request.name}: {error}") from error
    return train.take(rows), rows


def count_classes(labels: np.ndarray, class_names: Sequence[str], request: Request) -> tuple[int, ...]:
    """Images of each class. Raises DataError, naming them, if classes have none."""
    counts = longtail.count_labels(labels, len(class_names))
    empty = [name for name, count in zip(class_names, counts, strict=True) if not count]
    if empty:
        raise DataError(
            f"{request.name} in {request.directory} has no training image of {len(empty)} classes "
            f"({', '.join(empty[:5])}): add images or leave these classes out; an archive that should have them is "
            "incomplete: download it again"
        )
    return tuple(counts.tolist())


def image_shape(train: Split, size: int) -> tuple[int, int, int]:
    """What the network sees of an image. Raises DataError where that cannot be known."""
    if size:
        return size, size, 3
    if isinstance(train.images, np.ndarray):
        return train.images.shape[1:]
    raise DataError("data.image_size=0: image files need the side that the network sees, in pixels, such as 224")


def readable(split: Split, class_names: Sequence[str], name: str) -> tuple[Split, np.ndarray, list[tuple[str, str]]]:
    """The images that can be decoded, their rows, and the class of each that cannot with what is wrong."""
    if isinstance(split.images, np.ndarray):
        return split, np.arange(len(split)), []
    errors = parallel.errors(split, f"decoding every image of {name}")
    lost = [(class_names[label], error) for label, error in zip(split.labels, errors, strict=True) if error]
    rows = np.flatnonzero([error is None for error in errors])
    return split.take(rows), rows, lost
