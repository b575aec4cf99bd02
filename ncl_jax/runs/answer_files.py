"""Answers as text: a line of the console, rows of a CSV file, JSON lines."""

import csv
import json
from collections.abc import Callable
from typing import Any, TextIO

from ncl_jax.errors import printable
from ncl_jax.report.spreadsheet import cell
from ncl_jax.runs.answers import How

MOST_SHOWN = 10  # classes of a set on the console
Write = Callable[[dict[str, Any]], object]


def text_line(answer: dict[str, Any], how: How) -> str:
    """An answer on the console."""
    if "error" in answer:
        return answer["error"]  # which names the file
    listed = ", ".join(f"{c['label']} {100 * c['probability']:.1f} %" for c in answer["top"])
    doubt = f"  (experts disagree: {100 * answer['disagreement']:.0f} %)" if answer["disagreement"] else ""
    return printable(f"{answer['file']}: {listed}{_set_text(answer)}{doubt}{_refusal(answer, how)}")


def _set_text(answer: dict[str, Any]) -> str:
    if "set" not in answer:
        return ""
    found = answer["set"]
    shown = ", ".join(found[:MOST_SHOWN]) + (", ..." if len(found) > MOST_SHOWN else "")
    return f"  [set of {len(found)}: {shown}]" if found else "  [empty set: no class fits well enough]"


def _refusal(answer: dict[str, Any], how: How) -> str:
    if not answer.get("refused"):
        return ""
    return f"  (unlike anything in training at the {100 * (how.refuse or 0):g} % level)"


def csv_writer(file: TextIO, how: How) -> Write:
    """Writes answers as rows, under a header."""
    writer, top = csv.writer(file), how.top
    names = [f"{field}_{rank}" for rank in range(1, top + 1) for field in ("label", "probability")]
    more = ["set"] * (how.rule is not None) + ["known", "refused"] * (how.refuse is not None)
    writer.writerow(["file", *names, "disagreement", *more, "error"])

    def write(answer: dict[str, Any]) -> None:
        cells = [value for c in answer.get("top", ()) for value in (cell(c["label"]), c["probability"])]
        cells += [""] * (2 * top - len(cells))
        added = {"set": ";".join(map(cell, answer.get("set", ()))), "known": answer.get("known", ""),
                 "refused": int(answer["refused"]) if "refused" in answer else ""}  # fmt: skip
        doubt = [answer.get("disagreement", ""), *(added[name] for name in more)]
        writer.writerow([cell(answer["file"]), *cells, *doubt, cell(answer.get("error", ""))])

    return write


def jsonl_writer(file: TextIO, how: How) -> Write:
    """Writes answers as JSON, one a line."""
    return lambda answer: file.write(json.dumps(answer, ensure_ascii=False) + "\n")


WRITERS: dict[str, Callable[[TextIO, How], Write]] = {".csv": csv_writer, ".jsonl": jsonl_writer}
