"""Tables as CSV files that a spreadsheet cannot be made to execute."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

from ncl_jax.runtime.files import name_text

# What spreadsheets take for the start of a formula, after quotes that keep them from it.
FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
NUMBER = re.compile(r"[+-]?[\d.]+")


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
