"""Tables as CSV files that a spreadsheet cannot be made to execute."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ncl_jax.data import longtail
from ncl_jax.evaluation.predictions import Predictions
from ncl_jax.report.classes import ClassFigures
from ncl_jax.report.content import RunContent
from ncl_jax.runtime.files import name_text

# What spreadsheets take for the start of a formula, after quotes that keep them from it.
FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
NUMBER = re.compile(r"[+-]?[\d.]+")
LARGEST_SET = 100  # classes of a prediction set that are named


def cell(text: str) -> str:
    """Text for a cell of a CSV file: after a quote where a spreadsheet would take it for a formula, and where such a
    quote stands already; a number stays as it is."""
    return f"'{text}" if FORMULA.match(text) and not NUMBER.fullmatch(text) else text


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A CSV file; texts become cells, numbers stay."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(map(cell, heads))
    for row in rows:
        writer.writerow([cell(name_text(value)) if isinstance(value, str) else value for value in row])
    return file.getvalue()


def classes(run: RunContent, found: Predictions, of: ClassFigures) -> str:
    """`classes.csv`: a row for every class."""
    groups = longtail.groups(of.training, "papers")
    heads = (
        "class", "group", "training_images", "test_images", "right", "recall", "recall_low", "recall_high", "precision",
        "f1", "answers", "most_taken_for", "times",
    )  # fmt: skip
    wrong = found.top[0] != found.labels
    taken = _most(found.labels[wrong], found.top[0][wrong])
    rows = []
    for c, name in enumerate(run.facts.class_names):
        group = next(group for group, mask in groups.items() if mask[c])
        other, times = taken.get(c, (None, 0))
        rows.append((
            name, group, of.training[c], of.tested[c], of.right[c], _number(of.recall[c]), _number(of.low[c]),
            _number(of.high[c]), _number(of.precision[c]), _number(of.f1[c]), of.named[c],
            "" if other is None else run.facts.class_names[other], times,
        ))  # fmt: skip
    return table(heads, rows)


def _most(labels: np.ndarray, top: np.ndarray) -> dict[int, tuple[int, int]]:
    """What the mistakes of every class are taken for most often, and how often."""
    pairs, counts = np.unique(np.stack([labels, top]), axis=1, return_counts=True)
    order = np.argsort(counts, kind="stable")  # the most frequent one comes last, and stays
    return {int(pairs[0, i]): (int(pairs[1, i]), int(counts[i])) for i in order}


def images(run: RunContent, found: Predictions) -> str:
    """`images.csv`: a row for every test image, in the order of the split."""
    names, number = run.facts.class_names, len(found.top) - 1
    experts = [f"expert_{index}" for index in range(number)] if number > 1 else []
    extra = {"known": found.known is not None, "set_size": found.sets is not None, "set": found.sets is not None}
    heads = ("file", "truth", "answer", "right", "probability", "probability_of_truth", "margin", *experts,
             *(name for name, there in extra.items() if there))  # fmt: skip
    return table(heads, (_image(run, found, row, names, len(experts)) for row in range(len(found.labels))))


def _image(run: RunContent, found: Predictions, row: int, names: Sequence[str], experts: int) -> list[Any]:
    true, top = int(found.labels[row]), found.top[:, row].tolist()
    cells = [run.names.of_test(row), names[true], names[top[0]], int(top[0] == true), _number(found.confidence[0, row])]
    cells += ["" if values is None else _number(values[row]) for values in (found.true, found.margin)]
    cells += [names[c] for c in top[1 : 1 + experts]]
    if found.known is not None:
        cells.append(_number(found.known[row]))
    if found.sets is not None:
        inside = [names[c] for c in np.flatnonzero(found.sets[row]).tolist()]
        # Some spreadsheets take a semicolon for the end of a cell.
        cells += [len(inside), "; ".join([*inside[:1], *map(cell, inside[1:LARGEST_SET])])]
    return cells


def _number(value: Any) -> Any:
    return "" if np.isnan(value) else f"{float(value):.4f}"
