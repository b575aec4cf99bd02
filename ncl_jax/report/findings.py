"""What `ncl-jax inspect` has found in a data set, for its page, its table and the console."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ncl_jax.data import corrections
from ncl_jax.data.dataset import Data
from ncl_jax.data.longtail import CONVENTIONS
from ncl_jax.errors import printable
from ncl_jax.report import spreadsheet
from ncl_jax.trust.duplicates import Pairs
from ncl_jax.trust.labels import Suspects

NAMED = 5  # items that the console names


class Remark(NamedTuple):
    """Something that should be known, and the files or classes that it is about."""

    text: str
    items: Sequence[str] = ()

    def is_warning(self) -> bool:
        """Whether it makes figures doubtful."""
        return self.text.startswith("warning: ")

    def __str__(self) -> str:
        more = [f"... and {len(self.items) - NAMED} more"] if len(self.items) > NAMED else []
        return "\n    ".join([self.text, *self.items[:NAMED], *more])


class Findings(NamedTuple):
    """What was found by comparing images with each other. Rows are those of the data's splits."""

    leaked: Pairs  # training images and their near duplicates in the split that is evaluated
    repeated: Pairs  # training images and later ones that are near duplicates
    compared_by: str  # what the images were compared by, in words
    accuracy: tuple[float, float] | None = None  # of a simple classifier, with and without leaked images
    suspects: Suspects | None = None  # None: labels could not be judged
    examples: np.ndarray | None = None  # int [S, 4]: the nearest two images of the given, then of the suggested class
    unjudged: Sequence[int] = ()  # classes of too few images
    outliers: np.ndarray | None = None  # int [O], of the training images
    distances: np.ndarray | None = None  # float [O]: their mean distances over the usual one
    notes: Sequence[str] = ()  # why something was not looked for


def file_name(data: Data, split: str, row: int) -> str:
    """What an image is called in tables and on pages: its file, or its row in its source."""
    of_split = data.splits()[split]
    if split == "train" and data.rows is not None and isinstance(of_split.images, np.ndarray):
        return str(int(data.rows[row]))
    return corrections.name_of(of_split.images, int(row))


def group_names(data: Data) -> list[str]:
    """The group of each class."""
    masks = data.facts.groups()[CONVENTIONS[0]]
    return [next(name for name, mask in masks.items() if mask[c]) for c in range(data.facts.num_classes)]


def lines(data: Data, found: Findings) -> list[Remark]:
    """The findings for the console."""
    names, split = data.facts.class_names, data.facts.split
    said = []
    if len(found.leaked.first):
        places = [f"{data.place('train', i)} is nearly {data.place(split, j)}" for i, j in _pairs(found.leaked)]
        text = f"warning: near duplicates of training images in {split}: {len(places)}"
        if found.accuracy is not None:
            whole, rest = (f"{100 * share:.1f} %" for share in found.accuracy)
            text += f" (accuracy of ridge regression on the features {whole}, without them {rest})"
        advice = "" if data.groups else "; group_by= keeps bursts and cameras whole (docs/data.md)"
        said.append(Remark(text + advice, places))
    if len(found.repeated.first):
        places = [f"{data.place('train', i)} is nearly {data.place('train', j)}" for i, j in _pairs(found.repeated)]
        said.append(Remark(f"near duplicates among training images: {len(places)}", places))
    if found.suspects is not None and len(found.suspects.rows):
        words = [
            f"{data.place('train', row)}: {printable(names[data.train.labels[row]])}, perhaps {printable(names[label])}"
            for row, label in zip(found.suspects.rows.tolist(), found.suspects.suggested.tolist(), strict=True)
        ]
        said.append(Remark(f"labels of training images that may be wrong: {len(words)}", words))
    if found.unjudged:
        classes = [printable(names[c]) for c in found.unjudged]
        said.append(Remark(f"classes of fewer than 3 images, whose labels cannot be judged: {len(classes)}", classes))
    if found.outliers is not None and len(found.outliers):
        places = [data.place("train", row) for row in found.outliers.tolist()]
        said.append(Remark(f"training images that resemble no other: {len(places)}", places))
    return [*said, *map(Remark, found.notes)]


def _pairs(pairs: Pairs) -> list[tuple[int, int]]:
    return list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))


# The columns of `suspected_labels.csv`.
SUSPECTED = {
    "file": "the training image",
    "label": "the suggested class: what --labels takes for the label; write another class there, or - to remove the "
    "image",
    "given": "the label that the image has now",
    "suggested": "the class that it seems to be of",
    "margin": "the natural logarithm of the given over the suggested class's probability: -3 is 20 to 1 against the "
    "label, -7 is 1,100 to 1",
    "probability": "of the suggested class, where all classes are equally likely",
    "neighbours_vote": "the share of the votes of the ten nearest images, each over the size of its class, that the "
    "suggested class has",
    "group": "of the given class: many, medium or few training images",
}


def suspected_labels(data: Data, suspects: Suspects) -> str:
    """`suspected_labels.csv`: corrections for `--labels`, of which one deletes those that one disagrees with."""
    names, groups = data.facts.class_names, group_names(data)
    rows = []
    for index, row in enumerate(suspects.rows.tolist()):
        given, suggested = names[data.train.labels[row]], names[suspects.suggested[index]]
        numbers = (suspects.margin[index], suspects.probability[index], suspects.vote[index])
        rows.append((
            file_name(data, "train", row), suggested, given, suggested, *(f"{number:.3f}" for number in numbers),
            groups[data.train.labels[row]],
        ))  # fmt: skip
    return spreadsheet.table(tuple(SUSPECTED), rows)
