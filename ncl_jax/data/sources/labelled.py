"""New images with labels, on which a trained model is evaluated: a folder or a list without a training part."""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from ncl_jax.data.sources import levels, lists, tables
from ncl_jax.data.sources import names as of_classes
from ncl_jax.data.sources.entries import Entries
from ncl_jax.data.sources.folder import read_split
from ncl_jax.data.sources.list_files import parse
from ncl_jax.data.sources.names import MISSING, first_few
from ncl_jax.data.sources.splits import WORDS, visible
from ncl_jax.data.sources.walk import Unused
from ncl_jax.data.types import Request, Split
from ncl_jax.errors import DataError, did_you_mean

SHOWN = 20  # classes that are not known


def read(place: Path, class_names: Sequence[str], root: Path | None = None, skip: bool = False) -> tuple[Split, list]:
    """The images of a folder or a list with labels in [0, C), and lines to be shown.

    Args:
      place: a folder `<class>/...` or `<group>/<class>/...`, or one that holds a single split of these; or a list, of
        which the rows of its test or else its val split are taken, where it has such a column.
      class_names: [C] of the model; the images need not be of all of them.
      root: the folder that a list's paths start from; None: the list's.
      skip: whether rows of a list without a label or a file are skipped, instead of an error.

    Raises:
      DataError: nothing is there, or a class is none of the model's.
    """
    if place.is_dir():
        return _folder(place, class_names)
    if not place.exists():
        raise DataError(f"--data={place} does not exist: pass a folder of classes, or a list of images")
    return _list(place, class_names, Request("list", root or place.parent, skip=skip))


def _folder(place, class_names):
    unused = Unused()
    folder = split_in(place, class_names, unused)
    upper = {of_classes.clean(name) for name in visible(folder)}
    layout = levels.CLASSES
    if not upper & set(class_names) and set(levels.classes(folder, levels.GROUPS)) & set(class_names):
        layout = levels.GROUPS
    classes = levels.classes(folder, layout, unused)
    _check_known(classes, class_names, str(folder))
    return read_split(place, classes, tuple(class_names), unused, Request("folder", place)), unused.lines(place)


def split_in(place: Path, class_names: Collection[str] | None, unused: Unused) -> Path:
    """The folder that holds the folders of classes: a folder itself, or the only split in it.

    Args:
      place: the folder.
      class_names: those of a model; None: any folder may be a class.
      unused: counts what lies beside the split.

    Raises:
      DataError: it has several splits, or classes beside one.
    """
    names, of_model = {name: of_classes.clean(name) for name in visible(place)}, set(class_names or ())
    splits = [name for name in names if name.lower() in WORDS and names[name] not in of_model]
    others = [name for name in names if name not in splits]
    known = [name for name in others if class_names is None or names[name] in of_model]
    if len(splits) > 1:
        raise DataError(f"{place} has the splits {first_few(splits)}: pass one of them, {place / splits[0]}")
    if splits and known:
        raise DataError(
            f"{place} has the split {splits[0]}, and beside it {first_few(known)}: pass {place / splits[0]}, or move it"
        )
    unused.folders += others if splits else []
    return place / splits[0] if splits else place


def _list(place, class_names, request):
    entries = parse(place, skip=request.skip, missing=MISSING - {name.casefold() for name in class_names})
    entries, notes = _evaluated(tables.single({"data": entries}, request.skip)["data"])
    labels = [of_classes.clean(entries.names[int(label)]) for label in entries.labels] if entries.names else (
        entries.labels
    )  # fmt: skip
    numbers_are_names = any(name.isdecimal() for name in class_names)
    if not numbers_are_names and labels and all(label.isdecimal() for label in labels):
        labels = [class_names[int(label)] if int(label) < len(class_names) else label for label in labels]
    _check_known(labels, class_names, str(place))
    index = {name: number for number, name in enumerate(class_names)}
    numbers = np.array([index[label] for label in labels], np.int32)
    split, left_out, found = lists.located(request, entries, numbers, class_names)
    skipped = [f"rows that are skipped: {len(left_out):,} ({left_out[0][1]}, ...)"] if left_out else []
    return split, [*notes, *entries.notes, *found, *skipped]


def _evaluated(entries: Entries) -> tuple[Entries, list[str]]:
    """The rows of the test split, or else of val, where a column says so throughout; where it does not, a line."""
    roles = [WORDS.get(value.strip().casefold()) for value in entries.splits]
    for split in ("test", "val"):
        if roles and None not in roles and split in roles:
            rows = [row for row, role in enumerate(roles) if role == split]
            return entries.take(rows), [f"{len(rows):,} of {len(roles):,} rows of {entries.file} are of {split}"]
    return entries, tables.not_all(entries, [row for row, role in enumerate(roles) if not role])


def _check_known(found, class_names, where):
    """Raises DataError for names that are not classes of the model."""
    known = set(class_names)
    if strangers := [name for name in dict.fromkeys(found) if name not in known]:
        near, number = did_you_mean(strangers[0], class_names), len(strangers)
        raise DataError(
            f"{where} has {number:,} classes that the model does not know: {first_few(strangers, SHOWN)}{near}. "
            f"It knows {first_few(class_names, SHOWN)}: rename them, or leave them out"
        )
