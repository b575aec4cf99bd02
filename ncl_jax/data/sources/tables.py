"""What lists may say beside paths and labels: splits and groups in columns, several labels in one."""

import os
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ncl_jax.data.sources import layouts
from ncl_jax.data.sources.entries import GROUP_COLUMNS, Entries
from ncl_jax.data.sources.files import Unasked
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
    if named and len(entries) == 1 and not train.splits:
        raise DataError(f"{train.file} has no column or field split_column={named}")
    if len(entries) > 1 or not train.splits:
        return entries
    roles = [WORDS.get(value.strip().casefold(), "") for value in train.splits]
    others = [row for row, role in enumerate(roles) if not role]
    if others and not named:
        return {"train": train._replace(notes=(*train.notes, *not_all(train, others)))}
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


def not_all(entries: Entries, others: Sequence[int]) -> list[str]:
    """A line on a column of splits that is not used, where some of it says train, val or test, and `others` do not."""
    if not 0 < len(others) < len(entries.splits):
        return []
    text = (
        f"warning: {entries.file}: the column {entries.columns['split']} is not used, since {len(others):,} of "
        f"{len(entries.splits):,} rows say something else than train, val or test "
        f"({first_few(dict.fromkeys(repr(entries.splits[row]) for row in others))}): correct them"
    )
    return [text]


def unused_splits(entries: dict[str, Entries]) -> list[str]:
    """A line on columns that are not used, although they say train, val and test."""
    train = entries["train"]
    if len(entries) > 1 or not train.like_splits:
        return []
    names = ", ".join(train.like_splits)
    return [
        f"warning: {train.file}: columns that are not used and look like splits: {names}; "
        f"split_column={train.like_splits[0]} divides the images by it"
    ]


def single(entries: dict[str, Entries], skip: bool = False) -> dict[str, Entries]:
    """The lists without labels that are several: with ; or | between them, in a list of JSON, or with commas between
    what stands alone elsewhere. Raises DataError for them unless they are to be skipped and others are left."""
    found = dict(entries)
    for split, of_split in entries.items():
        counts = Counter(of_split.labels)
        several = dict.fromkeys(lb for lb in counts if SEVERAL.search(lb) or _are_labels(lb.split(","), counts))
        rows = [row for row, label in enumerate(of_split.labels) if label in several]
        if rows and not (skip and len(rows) < len(of_split.labels)):
            raise DataError(
                f"{of_split.place(rows[0])}: {len(rows):,} of {len(of_split.labels):,} images of the {split} list have "
                f"several labels ({first_few(several)}), and a classifier gives each image one: remove these rows, "
                "write one label for each (a class's name may hold neither ; nor |), or set data.skip_unreadable=True "
                "to skip them"
            )
        lines = [f"{of_split.place(row)}: several labels ({of_split.labels[row]})" for row in rows]
        kept = of_split.take([row for row, label in enumerate(of_split.labels) if label not in several])
        found[split] = kept._replace(lacking=(*of_split.lacking, *lines)) if rows else of_split
    return found


def _are_labels(parts: Sequence[str], known: Counter) -> bool:
    return len(parts) > 1 and all(part.strip() in known for part in parts)


def unasked(entries: Entries, numbers: np.ndarray, found: layouts.Located) -> Unasked | None:
    """The groups that a list seems to have: a column of them, or folders that hold images of several classes each.

    Args:
      entries: of the images that were found.
      numbers: labels of all entries of the list.
      found: where the images are.
    """
    if entries.groups and all(group.strip() for group in entries.groups):
        column = entries.columns["group"]
        return Unasked(f"values of {column}", f"group_column={column}", np.array(entries.groups, object))
    folders = np.array([os.path.dirname(name) or "." for name in found.names], object)  # noqa: PTH120 - speed
    pairs = {(folder, label) for folder, label in zip(folders, numbers[found.rows].tolist(), strict=True)}
    mixed = sum(count > 1 for count in Counter(folder for folder, _ in pairs).values())
    number = len(set(folders))
    is_mixed = 1 < number <= len(folders) / 2 and 2 * mixed >= number
    return Unasked("folders", f"group_by={FOLDER}", folders) if is_mixed else None


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
            f"{entries.file} has no column or field of groups ({', '.join(GROUP_COLUMNS)}): pass group_column=NAME, or "
            "another data.group_by"
        )
    if empty := [row for row, group in enumerate(entries.groups) if not group.strip()]:
        raise DataError(
            f"{entries.place(empty[0])}: {len(empty):,} of {len(entries.groups):,} rows have no group: write one into "
            "each, such as the image's own name"
        )
    return np.array([group.strip() for group in entries.groups], object)
