"""What lists may say beside paths and labels: splits and groups in columns, several labels in one."""

import os
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ncl_jax.data.sources.entries import GROUP_COLUMNS, Entries
from ncl_jax.data.sources.groups import COLUMN, FOLDER, NONE, by_pattern
from ncl_jax.data.sources.names import first_few
from ncl_jax.data.sources.splits import SPLITS, WORDS
from ncl_jax.data.types import Request
from ncl_jax.errors import DataError

SEVERAL = re.compile(r"[;|]|^\[.*,.*\]$|^\{.*\[.*,.*\].*\}$")  # what stands between the labels of one image


def divided(entries: dict[str, Entries], named: str = "") -> dict[str, Entries]:
    """The lists by split: a single one is divided by its column of splits, where that says train, val or test
    throughout; one that is `named` must.

    Raises DataError for other values in a column that is named, and without a training image.
    """
    train = entries["train"]
    if len(entries) > 1 or not train.splits:
        return entries
    roles = [WORDS.get(value.casefold(), "") for value in train.splits]
    others = [row for row, role in enumerate(roles) if not role]
    if others and not named:
        return entries
    if others:
        raise DataError(
            f"{train.place(others[0])}: split_column={named} says {train.splits[others[0]]!r}, and so it is in "
            f"{len(others):,} of {len(roles):,} rows: write train, val or test"
        )
    rows = {split: [row for row, role in enumerate(roles) if role == split] for split in SPLITS}
    if not rows["train"]:
        raise DataError(f"{train.file} has no row of the split train: {first_few(sorted(set(train.splits)))}")
    counts = ", ".join(f"{len(of):,} {split}" for split, of in rows.items() if of)
    note = f"{train.file} is divided by its column of splits: {counts}"
    parts = {split: train.take(of)._replace(notes=()) for split, of in rows.items() if of}
    return parts | {"train": parts["train"]._replace(notes=(*train.notes, note))}


def check_single(entries: dict[str, Entries]) -> None:
    """Raises DataError for labels that are several: with ; or | between them, in a list of JSON, or with commas between
    what stands alone elsewhere."""
    for split, of_split in entries.items():
        counts = Counter(of_split.labels)
        several = [label for label in counts if SEVERAL.search(label) or _are_labels(label.split(","), counts)]
        if several:
            row = of_split.labels.index(several[0])
            number = sum(counts[label] for label in several)
            raise DataError(
                f"{of_split.place(row)}: {number:,} of {len(of_split.labels):,} images of the {split} list have "
                f"several labels ({first_few(several)}), and a classifier gives each image one: remove these rows, or "
                "write one label for each (a class's name may hold neither ; nor |)"
            )


def _are_labels(parts: Sequence[str], known: Counter) -> bool:
    return len(parts) > 1 and all(part.strip() in known for part in parts)


def groups_of(request: Request, entries: Entries, names: np.ndarray) -> np.ndarray | None:
    """The groups of images by `request.group_by`, an object array [N]; None where there are none.

    Args:
      request: of the lists.
      entries: of the images.
      names: their paths below the root, [N].

    Raises:
      DataError: there is no column of groups, a cell of it is empty, or a regular expression matches nothing.
    """
    by = request.group_by or (COLUMN if request.columns.get("group") else NONE)
    if by == NONE:
        return None
    if by == FOLDER:
        return np.array([os.path.dirname(name) or "." for name in names], object)  # noqa: PTH120 - speed
    if by != COLUMN:
        return by_pattern(names, by)
    if not entries.groups:
        raise DataError(
            f"{entries.file} has no column of groups ({', '.join(GROUP_COLUMNS)}): pass group_column=NAME, or another "
            "data.group_by"
        )
    if empty := [row for row, group in enumerate(entries.groups) if not group.strip()]:
        raise DataError(
            f"{entries.place(empty[0])}: {len(empty):,} of {len(entries.groups):,} rows have no group: write one into "
            "each, such as the image's own name"
        )
    return np.array([group.strip() for group in entries.groups], object)
