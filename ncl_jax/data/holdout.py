"""Which images are held out where the data does not say so: the automatic test split, and `data.val_share`.

By rule 2 every image has a number in [0, 1) that follows from its name alone, and those below the share are held out,
at least half and at most twice the share of each class, and at least one image of a class on either side. So nothing
depends on the order or on other classes, and an image that is added moves none of the others while the part of its
class that is held out lies within these bounds, and at most one otherwise. No rule by which each class of two images
has one on either side can do entirely without: of a class's first image, alone in training, and its second one, some
order of arrival makes one move.

Groups (cameras, patients) are held out whole, by the numbers of their names.
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

# Written down with each run; runs from before it was have 1: the first of a class in a random order. By rule 3 columns
# of lists such as `Set` are splits too, and labels such as nan are missing; images are held out as by rule 2.
RULE = 3


def stratified(labels: np.ndarray, num_classes: int, share: float) -> np.ndarray:
    """Rule 1: a mask [N] of the same share of every class: one image at least, and not all of a class."""
    generator = np.random.RandomState(0)  # the same in every NumPy
    chosen = np.zeros(len(labels), bool)
    for label in range(num_classes):
        rows = generator.permutation(np.flatnonzero(labels == label))
        count = min(max(1, round(share * len(rows))), len(rows) - 1)
        chosen[rows[:count]] = True
    return chosen


def held_out(
    labels: np.ndarray,
    names: Iterable[Any],
    share: float,
    purpose: str,
    *,
    groups: np.ndarray | None = None,
    rule: int = RULE,
    pinned: Mapping[str, str] | None = None,
) -> np.ndarray:
    """The mask [N] of the images that are held out.

    Args:
      labels: int [N].
      names: of the images, [N].
      share: of each class, or of the groups, in [0, 1).
      purpose: the split that they become: a test and a val split are chosen independently of each other.
      groups: the group of each image, [N]; each is held out whole or not at all, and a class that is in one group
        alone is kept.
      rule: 1, or 2 or 3.
      pinned: the splits that images have in a run, by their names: they stay there.
    """
    num_classes = int(labels.max(initial=-1)) + 1
    if rule == 1:
        held = stratified(labels, num_classes, share)
    elif groups is None:
        held = np.zeros(len(labels), bool)
        values = numbers(names, purpose)
        for label in range(num_classes):
            rows = np.flatnonzero(labels == label)
            held[rows] = lowest(values[rows], share)
    else:
        unique, places = numbered(groups)
        held = _whole_groups(numbers(unique, purpose), places, labels, share)[places]
    return _kept(held, names, purpose, groups, pinned) if pinned else held


def numbered(groups: Iterable[Any]) -> tuple[list[str], np.ndarray]:
    """The different groups, sorted, and the place of each image's among them, int [N].

    Not by `np.unique`, whose arrays of texts take the length of the longest for all.
    """
    every = list(map(str, groups))
    unique = sorted(set(every))
    places = {group: place for place, group in enumerate(unique)}
    return unique, np.array([places[group] for group in every], np.int64)


def numbers(names: Iterable[Any], purpose: str) -> np.ndarray:
    """A number in [0, 1) for each name, float64 [N], that follows from it and the purpose; é as one character or two
    is the same."""
    forms = (unicodedata.normalize("NFC", f"{purpose}\0{name}").encode("utf-8", "surrogateescape") for name in names)
    return np.array([int.from_bytes(hashlib.blake2b(form, digest_size=8).digest()) / 2**64 for form in forms])


def lowest(values: np.ndarray, share: float) -> np.ndarray:
    """The mask [n] of the values below the share; half to twice the share of all, one at least, and not all."""
    count = len(values)
    least, most = (min(max(1, round(factor * share * count)), count - 1) for factor in (0.5, 2))
    chosen = np.zeros(count, bool)
    chosen[np.argsort(values, kind="stable")[: np.clip((values < share).sum(), least, most)]] = True
    return chosen


def _whole_groups(values: np.ndarray, places: np.ndarray, labels: np.ndarray, share: float) -> np.ndarray:
    """The mask of the groups that are held out: `lowest`; then each class is trained on, and then, where it is in
    two groups and no other class loses its last one, held out too."""
    held = lowest(values, share)
    pairs = np.unique(np.stack([labels, places]), axis=1)
    of_class = {label: pairs[1, pairs[0] == label] for label in np.unique(pairs[0]).tolist()}
    classes_of: dict[int, list[int]] = {}
    for label, place in pairs.T.tolist():
        classes_of.setdefault(place, []).append(label)
    for mine in of_class.values():
        if held[mine].all():
            held[mine[values[mine].argmax()]] = False
    left = {label: int((~held[mine]).sum()) for label, mine in of_class.items()}
    for mine in of_class.values():
        if len(mine) > 1 and not held[mine].any():
            free = [g for g in mine[np.argsort(values[mine])].tolist() if all(left[c] > 1 for c in classes_of[g])]
            for place in free[:1]:
                held[place] = True
                left |= {label: left[label] - 1 for label in classes_of[place]}
    return held


def _kept(held, names, purpose, groups, pinned):
    """The mask with the images that a run has where they were, and others of their groups with them."""
    known = np.array([pinned.get(str(name), "") for name in names], object)
    held = np.where(known == "train", False, held | (known == purpose))
    if groups is not None:
        of_train, of_purpose = set(groups[known == "train"]), set(groups[known == purpose])
        held |= np.array([group in of_purpose - of_train for group in groups], bool) & (known == "")
        held &= ~(np.array([group in of_train for group in groups], bool) & (known == ""))
    return held.astype(bool)
