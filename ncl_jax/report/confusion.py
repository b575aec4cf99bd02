"""The confusion matrix of a run's page, its classes sorted by size."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from ncl_jax.report import plots
from ncl_jax.report.charts import short
from ncl_jax.report.plots import COLORS, style

MOST_ROWS = 40  # more classes are put together in neighbours by size
DARK = 0.5  # of a cell's strength: on stronger ones the digits have the colour of the page
NUMBERED = 30  # rows whose names and numbers have room


def matrix(labels: np.ndarray, top: np.ndarray, class_counts: Sequence[int]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Images by row of their class and row of the class named, and the classes of each row, the largest first.

    Args:
      labels, top: `[N]`.
      class_counts: training images of the C classes.
    """
    order = np.argsort(-np.asarray(class_counts), kind="stable")
    rows = np.array_split(order, min(MOST_ROWS, len(order)))
    row_of = np.empty(len(order), int)
    for row, classes in enumerate(rows):
        row_of[classes] = row
    counts = np.zeros((len(rows), len(rows)), int)
    np.add.at(counts, (row_of[labels], row_of[top]), 1)
    return counts, rows


@style()
def draw(
    labels: np.ndarray, top: np.ndarray, class_counts: Sequence[int], class_names: Sequence[str], images: bool
) -> Figure:
    """The confusion matrix, its classes sorted by size: the share of each row, or the number of images."""
    counts, rows = matrix(labels, top, class_counts)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    strength = counts / max(counts.max(), 1) if images else shares
    names = [_row_name(classes, class_names) for classes in rows]
    left = 1.7 if len(names) <= NUMBERED else 0.5
    figure, (ax,) = plots.axes(left + 5.6, height=6.0, left=left, below=0.4)
    size, right = len(names), np.eye(len(names), dtype=bool)
    i, j = np.nonzero(counts)
    colors = np.where(right[i, j], COLORS[0], COLORS[1])
    side = (5.3 * 72 / size * 0.96) ** 2  # of a square marker, in square points
    points = ax.scatter(j, i, s=side, c=colors, marker="s", alpha=0.08 + 0.92 * strength[i, j], linewidths=0)
    cells = [(names[a], names[b], counts[a, b], 100 * shares[a, b]) for a, b in zip(i, j, strict=True)]
    plots.say(points, [f"{a} taken for {b}: {number} images, {share:.1f} %" for a, b, number, share in cells])
    if size <= NUMBERED:
        for a, b in zip(i, j, strict=True):
            text = str(counts[a, b]) if images else f"{100 * shares[a, b]:.0f}"
            if a == b or shares[a, b] >= 0.01:
                color = plots.PAGE if strength[a, b] > DARK else plots.INK
                ax.text(b, a, text, ha="center", va="center", fontsize=9, clip_on=True, color=color)
        ax.set_yticks(range(size), [short(name, 18) for name in names], fontsize=10 if size <= 20 else 8)
    else:
        ax.set_yticks([])
    ax.set(xticks=[], xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), ylabel="true class, the largest on top")
    ax.set(xlabel="taken for, the largest on the left", aspect="equal")
    ax.grid(False)
    return figure


def _row_name(classes, class_names):
    first = class_names[classes[0]]
    return first if len(classes) == 1 else f"{first} … {class_names[classes[-1]]} ({len(classes)} classes)"
