"""Long-tailed profiles: how many images each class keeps, which rows they are, and the groups of classes.

The profile and the choice of rows are the community's protocol for CIFAR-LT (docs/data.md; Cao et al.,
"Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss", arXiv 1906.07413), so that the subset is the
one that published results were trained on, row for row.
"""

import hashlib

import numpy as np

CONVENTIONS = ("papers", "authors")


def class_counts(num_max: int, imbalance: float, num_classes: int) -> np.ndarray:
    """Exponential profile: class c of C keeps `int(num_max * imbalance ** (-c / (C - 1)))` images.

    Args:
      num_max: images of class 0, the largest.
      imbalance: images of the first class over those of the last, 1 or more.
      num_classes: C, 2 or more.

    Returns:
      int64 [C], falling, at least 1 everywhere.

    Raises:
      ValueError: an argument is out of its range, or the last class would be left without an image.
    """
    if not imbalance >= 1:
        raise ValueError(f"imbalance is {imbalance}, but it is the largest class over the smallest: pass 1 or more")
    if num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}, but a profile over classes needs 2 or more")
    counts = [int(num_max * imbalance ** (-c / (num_classes - 1))) for c in range(num_classes)]
    if counts[-1] < 1:
        raise ValueError(
            f"imbalance {imbalance} leaves class {counts.index(0)} without an image when the largest "
            f"class has {num_max}: pass an imbalance of at most {num_max}"
        )
    return np.array(counts, np.int64)


def select(labels: np.ndarray, imbalance: float, num_classes: int, seed: int = 0) -> np.ndarray:
    """The rows of a long-tailed subset of a (nearly) balanced data set.

    One generator, seeded once; classes in order; one shuffle each over the class's rows in the order given; the first
    rows of the shuffle are kept (`class_counts`). The largest class keeps as many images as the smallest class has, so
    that the profile can be met: in a balanced data set, all of them.

    Args:
      labels: integers [N], each in [0, num_classes).
      imbalance: images of the first class over those of the last, 1 or more.
      num_classes: C.
      seed: of the generator. 0 is the one behind published results.

    Returns:
      int64 [sum of class_counts], rows of `labels`, class by class.

    Raises:
      ValueError: labels do not fit num_classes, a class has no image, or see `class_counts`.
    """
    available = count_labels(labels, num_classes)
    if available.min() < 1:
        raise ValueError(
            f"class {available.argmin()} of {num_classes} has no image among {len(labels)} labels: set "
            f"num_classes to the number of classes, or add images"
        )
    counts = class_counts(int(available.min()), imbalance, num_classes)
    # The legacy generator: numpy's newer ones shuffle differently, and would choose other rows than everybody's.
    generator = np.random.RandomState(seed)
    chosen = []
    for label, count in enumerate(counts):
        rows = np.flatnonzero(np.asarray(labels) == label)
        generator.shuffle(rows)
        chosen.append(rows[:count])
    return np.concatenate(chosen).astype(np.int64)


def count_labels(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Images of each class: labels [N] -> int64 [C]. Raises ValueError for a label outside [0, num_classes)."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels are {labels.dtype} of shape {labels.shape}: pass integers of shape [N]")
    outside = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if outside.size:
        raise ValueError(
            f"label {labels[outside[0]]} in row {outside[0]} is not in [0, {num_classes}) ({outside.size} "
            f"such rows): set num_classes to the number of classes, or correct the labels"
        )
    return np.bincount(labels, minlength=num_classes).astype(np.int64)


def checksum(rows: np.ndarray) -> str:
    """Identifies a subset: the first 16 hexadecimal digits of the SHA-256 of the rows [n] as little-endian int64."""
    return hashlib.sha256(np.ascontiguousarray(rows, "<i8").tobytes()).hexdigest()[:16]


def groups(class_counts: np.ndarray, convention: str) -> dict[str, np.ndarray]:
    """Classes with many, a medium number of and few training images.

    Args:
      class_counts: training images of each class, [C].
      convention: 'papers' (many > 100, medium 20 to 100, few < 20, as in most papers) or 'authors' (many >= 100,
        few <= 20, medium between, as in the authors' script).

    Returns:
      {'many', 'medium', 'few'}: bool [C] each; every class is in exactly one of them, and a group may be empty.

    Raises:
      ValueError: unknown convention.
    """
    counts = np.asarray(class_counts)
    if convention == "papers":
        many, few = counts > 100, counts < 20
    elif convention == "authors":
        many, few = counts >= 100, counts <= 20
    else:
        raise ValueError(f"convention is {convention!r}: use one of {', '.join(CONVENTIONS)}")
    return {"many": many, "medium": ~(many | few), "few": few}
