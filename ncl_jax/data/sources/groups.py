"""Groups of images that belong together, such as those of a camera, a site, a patient or a burst: which group an image
is of, in which splits groups stand, and folds that keep them whole."""

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from ncl_jax.data.holdout import numbered
from ncl_jax.data.sources.names import first_few
from ncl_jax.errors import ConfigError, DataError

NONE, FOLDER, COLUMN = "none", "folder", "column"  # what `data.group_by` may be besides a regular expression
ALWAYS = -1  # the fold of images that are always trained on


def by_pattern(paths: Iterable[Any], pattern: str) -> np.ndarray:
    """The group of each path, an object array of texts [N]: what the first parenthesis of the expression matches, or
    all that it matches.

    Raises:
      ConfigError: it is not a regular expression.
      DataError: there are paths that it does not match, or in which that parenthesis takes no part or is empty.
    """
    names = [str(path) for path in paths]
    try:
        matches = [re.search(pattern, name) for name in names]
    except re.error as error:
        raise ConfigError(
            f"data.group_by={pattern!r} is not a regular expression ({error}): pass {FOLDER}, {COLUMN} or one "
            r"such as ^(\w+)_"
        ) from error
    found = [match and match[min(1, match.re.groups)] for match in matches]
    if lost := [name for name, group in zip(names, found, strict=True) if not group]:
        raise DataError(
            f"data.group_by={pattern!r} matches no part of {len(lost):,} of {len(names):,} paths ({first_few(lost)}): "
            f"change the expression so that it gives a group for each, or pass {FOLDER} or {COLUMN}"
        )
    return np.array(found, object)


def of_splits(splits: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The group of every image, by split; empty where the data has none."""
    found = {name: getattr(split.images, "groups", None) for name, split in splits.items()}
    return {name: groups for name, groups in found.items() if groups is not None}


def remarks(groups: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """Lines on how many groups each split has, and on those that are in several splits; none without groups."""
    if not groups:
        return ()
    of = {name: set(found) for name, found in groups.items()}
    counts = ", ".join(f"{len(found):,} in {name} ({len(groups[name]):,} images)" for name, found in of.items())
    lines = [f"groups of images: {counts}"]
    for name in of.keys() - {"train"}:
        if both := sorted(of[name] & of["train"]):
            rows = sum(map(set(both).__contains__, groups[name]))
            lines.append(
                f"warning: groups that are both in train and in {name}: {len(both):,} ({first_few(both)}), with"
                f" {rows:,} of {len(groups[name]):,} {name} images, whose figures are too good for groups that are new"
            )
    return tuple(lines)


def hints(splits: Mapping[str, Any], is_cut: bool) -> tuple[str, ...]:
    """Lines on groups that were not asked for and are both in train and in another split; `is_cut`: by our division."""
    found = {name: getattr(split.images, "unasked", None) for name, split in splits.items()}
    known = {name: unasked for name, unasked in found.items() if unasked is not None}
    if "train" not in known or len({group for unasked in known.values() for group in unasked.of}) < 2:
        return ()
    train, lines = set(known["train"].of), []
    for name, (what, how, of) in known.items():
        both = sorted(train.intersection(of)) if name != "train" else []
        if both:
            number, shared = sum(map(set(both).__contains__, of)), f"{len(both):,} ({first_few(both)})"
            advice = f"pass {how}, which keeps each whole" if is_cut else f"{how} says more"
            lines.append(
                f"warning: {what} that are both in train and in {name}: {shared}, with {number:,} of {len(of):,} "
                f"{name} images: where they are cameras, sites, patients or the like, the figures are too good for new "
                f"ones; {advice}"
            )
    return tuple(lines)


def folds(groups: np.ndarray, labels: np.ndarray, num_classes: int, number: int) -> np.ndarray:
    """The fold of every image, int [N], that of its group: the largest groups first, each into the fold that makes the
    classes' shares most even; always the same.

    A group whose class stands nowhere else has the fold `ALWAYS`, since no head could be trained to name it.
    """
    unique, places = numbered(groups)
    cells, counts = np.unique(np.stack([places, labels]), axis=1, return_counts=True)
    ends = np.searchsorted(cells[0], np.arange(len(unique) + 1))
    of = [slice(first, last) for first, last in pairwise(ends)]  # the cells of each group
    groups_of = np.bincount(cells[1], minlength=num_classes)
    totals, filled = np.bincount(labels, minlength=num_classes), np.zeros((number, num_classes))
    fold = np.full(len(unique), ALWAYS)
    for group in np.argsort(-np.bincount(places), kind="stable").tolist():
        mine, added = cells[1, of[group]], counts[of[group]]
        if (groups_of[mine] > 1).all():
            cost = ((2 * filled[:, mine] + added) * added / totals[mine]).sum(1)
            fold[group] = np.lexsort((filled.sum(1), cost))[0]
            filled[fold[group], mine] += added
    for label in range(num_classes):  # each class is trained on in every fold
        having = cells[0, cells[1] == label]
        if len(set(fold[having].tolist())) == 1:
            fold[having[0]] = ALWAYS
    return fold[places]
