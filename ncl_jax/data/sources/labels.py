"""The labels of lists: numbers of classes, or their names."""

import re

import numpy as np

from ncl_jax.data.sources.entries import Entries
from ncl_jax.data.sources.names import PERHAPS_MISSING, first_few
from ncl_jax.errors import DataError, did_you_mean

NUMBER = re.compile(r"-?\d+(\.\d+)?")
WHOLE = re.compile(r"\d+(\.0+)?")


def are_numbers(entries: dict[str, Entries]) -> bool:
    """Whether the labels of all lists are the numbers of classes, as those of the training images are."""
    return all(label.removeprefix("-").isdecimal() for label in entries["train"].labels)


def as_whole_numbers(entries: dict[str, Entries]) -> dict[str, Entries]:
    """The lists with labels such as 2.0 as whole numbers, where all are; a note where only some labels are numbers.

    Raises DataError where the others mean that a label is missing (nan).
    """
    every = [label for of_split in entries.values() for label in of_split.labels]
    train = entries["train"]
    if (with_point := next((label for label in every if "." in label), None)) and all(map(WHOLE.fullmatch, every)):
        found = {s: e._replace(labels=[label.partition(".")[0] for label in e.labels]) for s, e in entries.items()}
        note = f"labels such as {with_point} are read as whole numbers"
        return found | {"train": found["train"]._replace(notes=(*train.notes, note))}
    others = [row for row, label in enumerate(train.labels) if not NUMBER.fullmatch(label)]
    if not others or len(others) == len(train.labels):
        return entries
    first = f"{train.labels[others[0]]!r}, {train.place(others[0])}"
    if all(train.labels[row].casefold() in PERHAPS_MISSING for row in others):
        raise DataError(f"{len(others):,} labels are not numbers, as the others are ({first}): write them")
    number = len(train.labels) - len(others)
    note = f"{number:,} labels are numbers and {len(others):,} are not ({first}): all are taken for names of classes"
    return entries | {"train": train._replace(notes=(*train.notes, note))}


def with_categories(entries: dict[str, Entries], keep: bool) -> dict[str, Entries]:
    """The lists with their categories numbered alike, by those of the training list; unless `keep`, a category without
    a training image is skipped. Raises DataError for images of a category that the training list has not."""
    train = entries["train"]
    if not train.names:
        return entries
    used = {int(label) for label in train.labels}
    names = tuple(name for place, name in enumerate(train.names) if keep or place in used)
    left = set(names)
    lacking = [name for name in train.names if name not in left]
    found = {split: _renumbered(of_split, train.names, names, split) for split, of_split in entries.items()}
    note = f"{len(lacking)} of {len(train.names)} categories have no training image and are skipped"
    notes = (*train.notes, *(f"{note}: {first_few(lacking, 5)}",) * bool(lacking))
    return found | {"train": found["train"]._replace(names=names, notes=notes)}


def _renumbered(entries, train_names, names, split):
    """A list whose labels are places in `names`."""
    own, places = entries.names or train_names, {name: str(place) for place, name in enumerate(names)}
    of_label = {label: own[int(label)] if label.isdecimal() and int(label) < len(own) else label
                for label in set(entries.labels)}  # fmt: skip
    strange = [row for row, label in enumerate(entries.labels) if of_label[label] not in places]
    if strange:
        raise DataError(
            f"{entries.place(strange[0])}: {len(strange):,} images of the {split} list have a category without a "
            f"training image, such as {of_label[entries.labels[strange[0]]]!r}: remove them, or add training images"
        )
    return entries._replace(labels=[places[of_label[label]] for label in entries.labels])


def of_splits(entries: dict[str, Entries], names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The labels of every split, int32 [N]. Raises DataError for one that is not a class."""
    numeric = are_numbers(entries)
    return {split: numbers(of_split, names, split, numeric) for split, of_split in entries.items()}


def check_classes(entries: dict[str, Entries], train: np.ndarray, names: tuple[str, ...]) -> None:
    """Raises DataError for classes without a training image, by the labels of those."""
    used = sorted(set(train.tolist()))
    if lacking := [names[c] for c in sorted(set(range(len(names))) - set(used))]:
        numeric = are_numbers(entries)
        advice = _numbering(used) if numeric else "add images, or remove the names from data.list.classes"
        raise DataError(
            f"the train list {entries['train'].file} has no image of {len(lacking)} of the {len(names)} classes "
            f"({first_few(lacking, 5)}): {advice}"
        )


def _numbering(used):
    """What to do about classes that no number stands for."""
    if used == list(range(len(used))):
        return "add images, or remove their names from data.list.classes"
    if used[0] and used[-1] - used[0] + 1 == len(used):
        return (
            f"its labels go from {used[0]} to {used[-1]}, but must count from 0: subtract {used[0]} from the labels of "
            "every list, or write names instead of numbers"
        )
    return (
        f"its labels are {first_few(used, 5)}, but must count the classes from 0 without a gap: number the classes "
        "anew, write names instead of numbers, or add images"
    )


def numbers(entries: Entries, names: tuple[str, ...], split: str, numeric: bool) -> np.ndarray:
    """Labels, numbers of classes or names, as int32 [N]. Raises DataError for one that is not a class."""
    index = {str(number) if numeric else name: number for number, name in enumerate(names)}
    found = [index.get(label.lstrip("0") or "0" if numeric else label, -1) for label in entries.labels]
    if strange := [row for row, number in enumerate(found) if number < 0]:
        raise DataError(_strange(entries, strange, names, split, numeric))
    return np.array(found, np.int32)


def _strange(entries, rows, names, split, numeric):
    """Names the labels that are not classes, and says what to do."""
    label = entries.labels[rows[0]]
    classes = f"0 to {len(names) - 1} ({first_few(names)})" if numeric else first_few(names)
    if numeric and {entries.labels[row] for row in rows} == {str(len(names))} and "0" not in entries.labels:
        advice = "the labels seem to count from 1: subtract 1 from all of them"
    elif split == "train" or numeric:
        advice = "correct the list, or data.list.classes"
    else:
        advice = f"remove these rows, or add images of the class to the train list{did_you_mean(label, names)}"
    more = f" (and so do {len(rows) - 1:,} more)" if len(rows) > 1 else ""
    return (
        f"{entries.place(rows[0])}: image {rows[0] + 1} of the {split} list has the label {label!r}{more}, but the "
        f"{len(names)} classes are {classes}: {advice}"
    )
