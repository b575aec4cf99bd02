"""From a data set's name to the arrays that a run trains and is tested on."""

import json
from typing import Any, NamedTuple

import numpy as np

from ncl_jax.data import longtail, sources
from ncl_jax.errors import DataError


class Facts(NamedTuple):
    """What must be known of the data to build a run's model and to read its figures."""

    name: str
    image_shape: tuple[int, int, int]  # H, W, 3
    class_names: tuple[str, ...]  # [C]
    class_counts: tuple[int, ...]  # [C] training images
    rows_checksum: str  # of the long-tailed subset, see longtail.checksum

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
    def from_json(cls, text: str) -> "Facts":
        """Reads what `to_json` wrote."""
        fields: dict[str, Any] = json.loads(text)
        return cls(**fields | {name: tuple(v) for name, v in fields.items() if isinstance(v, list)})


class Split(NamedTuple):
    """A long-tailed training set and its balanced test set."""

    facts: Facts
    train_images: np.ndarray  # uint8 [N, H, W, 3]
    train_labels: np.ndarray  # int32 [N]
    test_images: np.ndarray  # uint8 [M, H, W, 3]
    test_labels: np.ndarray  # int32 [M]


def load(name: str, directory: str, imbalance: float, *, download: bool = True) -> Split:
    """Reads a data set and keeps its long-tailed subset (`longtail.select`), unless it is long-tailed already.

    Raises:
      DataError: see `sources.load`; the profile does not fit the data (`longtail.select`), or data that is
        long-tailed already is asked for with another imbalance than its own.
    """
    data = sources.load(name, directory, download=download)
    labels, num_classes = data.train_labels, len(data.class_names)
    if data.imbalance not in (None, imbalance):
        raise DataError(f"data.imbalance={imbalance}: the data {name} is fixed at {data.imbalance:g}")
    empty = [
        name
        for name, count in zip(data.class_names, longtail.count_labels(labels, num_classes), strict=True)
        if not count
    ]
    if empty:
        raise DataError(
            f"{name} in {directory} has no training image of {len(empty)} classes ({', '.join(empty[:5])}): it is "
            "incomplete; unpack or download it again"
        )
    try:
        rows = np.arange(len(labels)) if data.imbalance else longtail.select(labels, imbalance, num_classes)
    except ValueError as error:
        raise DataError(f"{name}: {error}") from error
    counts = longtail.count_labels(labels[rows], num_classes)
    facts = Facts(name, data.train_images.shape[1:], data.class_names, tuple(counts.tolist()), longtail.checksum(rows))
    return Split(facts, data.train_images[rows], labels[rows], data.test_images, data.test_labels)
