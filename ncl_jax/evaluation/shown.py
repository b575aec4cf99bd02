"""Which images a report shows: the mistakes and their neighbours, the worst first, and examples of every class.

Arguments that many functions here share, of N test images and C classes: `labels` and `top`, the class named, int
`[N]`; `confidence`, its probability, float `[N]`.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ncl_jax.trust.intervals import wilson

WORST, OF_KIND = 20, 2  # mistakes on top of a report, and of those of one pair of classes
PAIRS = 30  # of classes that are confused: the most frequent ones, and those of the largest share of a class
OF_PAIR, EXAMPLES = 8, 2  # mistakes of a pair, and training images of both of its classes
LEVELS = 8  # training images, mistakes and images taken for it, of a class
MOST = 2000  # pictures


class Pair(NamedTuple):
    """Images of a class that are taken for another one."""

    true: int
    taken: int
    images: int
    of: int  # all test images of the true class


def mistakes(labels: np.ndarray, top: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """The rows of the mistakes, the most confident first."""
    wrong = np.flatnonzero(top != labels)
    return wrong[np.argsort(-confidence[wrong], kind="stable")]


def worst(labels: np.ndarray, top: np.ndarray, confidence: np.ndarray) -> list[int]:
    """The rows of the `WORST` most confident mistakes, at most `OF_KIND` of a pair of classes."""
    found: list[int] = []
    seen: dict[tuple[int, int], int] = {}
    for row in mistakes(labels, top, confidence).tolist():
        kind = int(labels[row]), int(top[row])
        seen[kind] = seen.get(kind, 0) + 1
        if seen[kind] <= OF_KIND:
            found.append(row)
        if len(found) == WORST:
            break
    return found


def pairs(labels: np.ndarray, top: np.ndarray, num_classes: int) -> list[Pair]:
    """All pairs of classes that are confused."""
    wrong, sizes = top != labels, np.bincount(labels, minlength=num_classes)
    codes, counts = np.unique(labels[wrong].astype(np.int64) * num_classes + top[wrong], return_counts=True)
    return [
        Pair(code // num_classes, code % num_classes, count, int(sizes[code // num_classes]))
        for code, count in zip(codes.tolist(), counts.tolist(), strict=True)
    ]


def by_count(found: Sequence[Pair]) -> list[Pair]:
    """The `PAIRS` of most images."""
    return sorted(found, key=lambda pair: (-pair.images, pair.of))[:PAIRS]


def repeated(found: Sequence[Pair]) -> list[Pair]:
    """The pairs of at least two images: one may be chance, and takes half of a class of two. All, where there is no
    such pair."""
    return [pair for pair in found if pair.images > 1] or list(found)


def by_share(found: Sequence[Pair]) -> list[Pair]:
    """The `PAIRS` that take the largest share of a class, of those that are `repeated`."""
    return sorted(repeated(found), key=lambda pair: (-pair.images / pair.of, -pair.images))[:PAIRS]


def surest(found: Sequence[Pair]) -> Pair | None:
    """The pair that surely takes the largest share of a class, by the lower bound of Wilson's interval: two of three
    say less than eight of twenty. None without a pair of two images."""
    found = [pair for pair in found if pair.images > 1]
    if not found:
        return None
    return found[int(np.argmax(wilson([pair.images for pair in found], [pair.of for pair in found])[0]))]


def shown_pairs(found: Sequence[Pair]) -> list[Pair]:
    """The pairs of both lists, each once."""
    return list(dict.fromkeys([*by_count(found), *by_share(found)]))


def hardest(labels: np.ndarray, top: np.ndarray, num_classes: int) -> np.ndarray:
    """The classes, those that are surely recognised worst first: by the upper bound of Wilson's interval. Those without
    test images come last."""
    sizes = np.bincount(labels, minlength=num_classes)
    right = np.bincount(labels[top == labels], minlength=num_classes)
    return np.argsort(wilson(right, sizes)[1], kind="stable")


def by_class(classes: np.ndarray, rows: np.ndarray, num_classes: int) -> list[np.ndarray]:
    """Rows, in their order, by their class: `classes` int `[N]` of all rows, `rows` some of them."""
    rows = rows[np.argsort(classes[rows], kind="stable")]
    return np.split(rows, np.searchsorted(classes[rows], np.arange(1, num_classes)))


def examples(train_labels: np.ndarray, num_classes: int) -> list[np.ndarray]:
    """Training images of every class, `LEVELS` of each at most, drawn by chance that is always the same."""
    drawn = np.random.RandomState(0).permutation(len(train_labels))  # the same in every NumPy
    return [rows[:LEVELS] for rows in by_class(train_labels, drawn, num_classes)]


Place = tuple[bool, int]  # whether it is a training image, and its row


def order(
    labels: np.ndarray, top: np.ndarray, confidence: np.ndarray, train_labels: np.ndarray, near: dict[int, np.ndarray],
    num_classes: int,
) -> list[Place]:  # fmt: skip
    """The images that are shown, the most important first, `MOST` at most.

    Args:
      labels, top, confidence: see above.
      train_labels: int [M].
      near: rows of the nearest training images, by row of a mistake.
      num_classes: C.
    """
    wrong = mistakes(labels, top, confidence)
    of_class, taken_for = by_class(labels, wrong, num_classes), by_class(top, wrong, num_classes)
    drawn = examples(train_labels, num_classes)
    places = itertools.chain(
        _worst(worst(labels, top, confidence), near),
        _of_pairs(shown_pairs(pairs(labels, top, num_classes)), top, of_class, drawn),
        _of_classes(hardest(labels, top, num_classes), drawn, of_class, taken_for),
    )
    return list(itertools.islice(dict.fromkeys(places), MOST))


def _worst(rows: Sequence[int], near: dict[int, np.ndarray]) -> Iterator[Place]:
    for row in rows:
        yield False, row
        yield from ((True, int(other)) for other in near.get(row, ()))


def _of_pairs(found: Sequence[Pair], top: np.ndarray, of_class: list, drawn: list) -> Iterator[Place]:
    for pair in found:
        yield from ((False, int(row)) for row in of_pair(pair, top, of_class))
        yield from ((True, int(row)) for c in pair[:2] for row in drawn[c][:EXAMPLES])


def of_pair(pair: Pair, top: np.ndarray, of_class: list[np.ndarray]) -> np.ndarray:
    """The most confident mistakes of a pair; `of_class`: those of each class."""
    rows = of_class[pair.true]
    return rows[top[rows] == pair.taken][:OF_PAIR]


def _of_classes(classes: np.ndarray, drawn: list, of_class: list, taken_for: list) -> Iterator[Place]:
    """One of each kind for every class, then a second one, and so on: each of many classes has something."""
    for level in range(LEVELS):
        for c in classes:
            for is_training, rows in ((True, drawn[c]), (False, of_class[c]), (False, taken_for[c])):
                if len(rows) > level:
                    yield is_training, int(rows[level])
