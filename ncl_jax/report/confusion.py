"""The confusion matrix of a run's page, its classes sorted by size."""

from collections.abc import Sequence
from html import escape

import numpy as np

MOST = 40  # rows; more classes are put together in neighbours by size
NAMED = 25  # classes whose names have room
SIDE = 480  # of the matrix, in units


def matrix(labels: np.ndarray, top: np.ndarray, class_counts: Sequence[int]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Images by row of their class and row of the class named, and the classes of each row, the largest first.

    Args:
      labels, top: `[N]`.
      class_counts: training images of the C classes.
    """
    order = np.argsort(-np.asarray(class_counts), kind="stable")
    rows = np.array_split(order, min(MOST, len(order)))
    row_of = np.empty(len(order), int)
    for row, classes in enumerate(rows):
        row_of[classes] = row
    counts = np.zeros((len(rows), len(rows)), int)
    np.add.at(counts, (row_of[labels], row_of[top]), 1)
    return counts, rows


def draw(
    labels: np.ndarray, top: np.ndarray, class_counts: Sequence[int], class_names: Sequence[str], group: str
) -> str:
    """The matrix with a toggle between the share of a row and the number of images; `group` names the toggle."""
    counts, rows = matrix(labels, top, class_counts)
    names = [_row_name(classes, class_names) for classes in rows]
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    left = 130 if len(names) <= NAMED else 24
    drawn = "".join(
        f'<g class="{kind}s cells">{_cells(values, counts, shares, names, left, kind)}</g>'
        for kind, values in (("share", shares), ("count", counts / max(counts.max(), 1)))
    )
    return (
        f'<div class="toggle"><input type="radio" class="share" name="{group}" id="{group}-s" checked>'
        f'<label for="{group}-s">share of the class</label>'
        f'<input type="radio" class="count" name="{group}" id="{group}-c"><label for="{group}-c">images</label>'
        f'<svg class="chart square" viewBox="0 0 {left + SIDE + 2} {SIDE + 22}" role="img" '
        f'aria-label="confusion matrix">{_row_labels(names, left)}{drawn}'
        f'<rect class="frame" x="{left}" y="0" width="{SIDE}" height="{SIDE}"/>'
        f'<text class="title" text-anchor="middle" x="{left + SIDE / 2}" y="{SIDE + 16}">'
        "taken for: head → tail, from the left</text></svg></div>"
    )


def _row_labels(names, left):
    if len(names) > NAMED:
        return (
            f'<text class="title" text-anchor="middle" transform="translate(14 {SIDE / 2}) rotate(-90)">'
            "true class: head → tail, from the top</text>"
        )
    side = SIDE / len(names)
    return "".join(
        f'<text class="tick" text-anchor="end" x="{left - 5}" y="{(row + 0.5) * side + 4:.1f}">'
        f"{escape(_short(name))}</text>"
        for row, name in enumerate(names)
    )


def _cells(values, counts, shares, names, left, kind):
    """The cells that are not empty: right answers in one colour, mistakes in another, the stronger the more."""
    side, cells = SIDE / len(names), []
    for i, j in np.argwhere(counts):
        x, y = left + j * side, i * side
        text = f"{names[i]} taken for {names[j]}: {counts[i, j]} images, {100 * shares[i, j]:.1f} %"
        cells.append(
            f'<rect class="{"cell" if i == j else "miss"}" x="{x:.1f}" y="{y:.1f}" width="{side:.1f}" '
            f'height="{side:.1f}" opacity="{0.08 + 0.92 * values[i, j]:.2f}"><title>{escape(text)}</title></rect>'
        )
        if len(names) <= NAMED and (shares[i, j] >= 0.01 or i == j):
            shown = f"{100 * shares[i, j]:.0f}" if kind == "share" else counts[i, j]
            strong = ' class="strong"' if values[i, j] > 0.5 else ""
            cells.append(f'<text{strong} x="{x + side / 2:.1f}" y="{y + side / 2 + 3:.1f}">{shown}</text>')
    return "".join(cells)


def _row_name(classes, class_names):
    first = class_names[classes[0]]
    return first if len(classes) == 1 else f"{first} … {class_names[classes[-1]]} ({len(classes)} classes)"


def _short(name):
    return name if len(name) <= 18 else name[:17] + "…"
