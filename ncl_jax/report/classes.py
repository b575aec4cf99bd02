"""The figures of every class."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ncl_jax.evaluation import shown
from ncl_jax.evaluation.predictions import Predictions
from ncl_jax.report.charts import percent
from ncl_jax.report.content import RunContent
from ncl_jax.report.html import Html, link, paragraph, table
from ncl_jax.trust.intervals import wilson

MOST_OPEN = 40  # rows of the table that stand on the page; of more the table has a bar to scroll
MOST_ROWS = 1500  # of the table; the others are in the file


class ClassFigures(NamedTuple):
    """Of C classes, `[C]` each."""

    training: np.ndarray  # int: training images
    tested: np.ndarray  # int: test images
    named: np.ndarray  # int: test images that are taken for the class
    right: np.ndarray  # int: test images of the class that are
    low: np.ndarray  # float: Wilson's interval of the recall
    high: np.ndarray

    @property
    def recall(self) -> np.ndarray:
        """The share of a class's images that are recognised; NaN without any."""
        return _share(self.right, self.tested)

    @property
    def precision(self) -> np.ndarray:
        """The share of the images taken for a class that are of it; NaN where none is."""
        return _share(self.right, self.named)

    @property
    def f1(self) -> np.ndarray:
        """The harmonic mean of both; NaN for a class without test images."""
        return np.where(self.tested > 0, _share(2 * self.right, self.tested + self.named), np.nan)

    def is_balanced(self) -> bool:
        """Whether the classes have about as many test images: the largest at most 1.5 times those of the smallest."""
        tested = self.tested[self.tested > 0]
        return bool(tested.max() <= 1.5 * tested.min())


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def figures(found: Predictions, class_counts: Sequence[int]) -> ClassFigures:
    """The figures of the ensemble, by class."""
    number, top = len(class_counts), found.top[0]
    tested, named = np.bincount(found.labels, minlength=number), np.bincount(top, minlength=number)
    right = np.bincount(found.labels[top == found.labels], minlength=number)
    return ClassFigures(np.asarray(class_counts), tested, named, right, *wilson(right, tested))


def share(value: float) -> str:
    """A share in percent; a dash where it is not known."""
    return percent(None if np.isnan(value) else float(value), 0)


def interval(of: ClassFigures, c: int) -> str:
    """The interval of a class's recall in percent."""
    return f"{100 * of.low[c]:.0f} to {100 * of.high[c]:.0f}" if of.tested[c] else "-"


def section(run: RunContent, found: Predictions, of: ClassFigures, gallery_of: Callable[[int], str]) -> Html:
    """The table of the classes, those that are surely recognised worst first; `gallery_of`: what a class's link leads
    to, empty for nothing."""
    names = run.facts.class_names
    order = shown.hardest(found.labels, found.top[0], len(names))
    rows = [
        (
            link(gallery_of(c), names[c]), f"{of.training[c]:,}", f"{of.tested[c]:,}", f"{of.right[c]:,}",
            share(of.recall[c]), interval(of, c), share(of.precision[c]), share(of.f1[c]), f"{of.named[c]:,}",
        )
        for c in order[:MOST_ROWS].tolist()
    ]  # fmt: skip
    heads = ("class", "training images", "test images", "right", "recall %", "95 % interval", "precision %", "F1 %",
             "taken for it")  # fmt: skip
    left_out = f" The {MOST_ROWS:,} lowest are shown." if len(order) > MOST_ROWS else ""
    words = (
        "Recall: the share of a class's test images that are recognised; with few images it may be chance, which the "
        "interval shows. Precision: the share of the images taken for a class that are of it. F1: the harmonic mean of "
        "both. The classes whose interval ends lowest come first. All of it, to sort and filter, is in classes.csv in "
        f"the run's directory, and every test image in images.csv.{left_out}"
    )
    return Html(
        "<h2>Every class</h2>"
        + paragraph(words, "soft")
        + table(heads, rows, -1, "tall" if len(rows) > MOST_OPEN else "")
    )
