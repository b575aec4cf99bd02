"""Names the classes of image files.

Folders are searched at any depth; - reads names from standard input, one a line, or ended by NUL as find -print0 writes
them. The answer's disagreement is the share of the pairs of experts that name different classes: a measure of
uncertainty. Files that cannot be read are listed and skipped; the exit code is then 1. In a .csv a quote precedes names
that a spreadsheet would take for formulas; bytes of names that are not UTF-8 are written as \\xNN.
"""

import argparse
import csv
import json
import os
import pathlib
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TextIO

from ncl_jax.cli.arguments import Parser, add_force, add_model, add_run, at_least, check_writable, new_file
from ncl_jax.errors import ConfigError, DataError, Interrupted, WriteError, printable
from ncl_jax.report.spreadsheet import cell
from ncl_jax.runs import messages
from ncl_jax.runs.load import Model, load
from ncl_jax.runs.predict import find_files, predict
from ncl_jax.runtime import console, startup
from ncl_jax.runtime.files import partial_of, writing_whole
from ncl_jax.storage.directory import RunDir

MOST_INPUT = 2**28  # bytes of names on standard input


def text_line(answer: dict) -> str:
    """An answer on the console."""
    if "error" in answer:
        return answer["error"]  # which names the file
    listed = ", ".join(f"{c['label']} {100 * c['probability']:.1f} %" for c in answer["top"])
    doubt = f"  (experts disagree: {100 * answer['disagreement']:.0f} %)" if answer["disagreement"] else ""
    return printable(f"{answer['file']}: {listed}{doubt}")


def csv_writer(file: TextIO, top: int) -> Callable[[dict], object]:
    """Writes answers as rows, under a header."""
    writer = csv.writer(file)
    names = [f"{field}_{rank}" for rank in range(1, top + 1) for field in ("label", "probability")]
    writer.writerow(["file", *names, "disagreement", "error"])

    def write(answer: dict) -> None:
        cells = [value for c in answer.get("top", ()) for value in (cell(c["label"]), c["probability"])]
        cells += [""] * (2 * top - len(cells))
        writer.writerow([cell(answer["file"]), *cells, answer.get("disagreement", ""), cell(answer.get("error", ""))])

    return write


def jsonl_writer(file: TextIO, top: int) -> Callable[[dict], object]:
    """Writes answers as JSON, one a line."""
    return lambda answer: file.write(json.dumps(answer, ensure_ascii=False) + "\n")


WRITERS = {".csv": csv_writer, ".jsonl": jsonl_writer}


def run(model: Model, files: Sequence[str], top: int, expert: int | None, out: pathlib.Path | None) -> int:
    """Writes the answers to `out`, or shows them; returns how many files could not be read.

    Raises:
      WriteError: they cannot be written.
      Interrupted: nobody reads them any more.
    """
    top, failed = min(top, len(model.class_names)), 0
    if out is None:
        for answer in predict(model, files, top, expert):
            failed += "error" in answer
            _show(answer)
        return failed
    try:
        with writing_whole(out) as file:
            write = WRITERS[out.suffix.lower()](file, top)
            for answer in predict(model, files, top, expert):
                failed += "error" in answer
                write(answer)
                if "error" in answer:
                    console.say(text_line(answer), error=True)
    except OSError as error:
        partial = partial_of(out)
        kept = f"; the answers so far are in {partial}" if partial.exists() else ""
        raise WriteError(f"--out={out} cannot be written: {error}{kept}") from error
    console.say(f"wrote {out}: {len(files) - failed} of {len(files)} files")
    return failed


def _show(answer):
    """Shows an answer. Raises Interrupted where the output's reader has gone, WriteError where it is full."""
    if "error" in answer:
        console.say(text_line(answer), error=True)
        return
    try:
        console.show(text_line(answer))
    except BrokenPipeError as error:
        raise Interrupted("", signal.SIGPIPE) from error
    except OSError as error:
        raise WriteError(f"the answers cannot be written to standard output: {error}") from error


def read_names() -> list[str]:
    """The names on standard input. Raises DataError for what is no list of names."""
    if sys.stdin is None:
        return []
    content = sys.stdin.buffer.read(MOST_INPUT + 1)
    if len(content) > MOST_INPUT:
        raise DataError(f"standard input holds more than {MOST_INPUT:,} bytes of names: pass folders, or fewer names")
    if b"\0" not in content:
        names = [name.removesuffix(b"\r") for name in content.split(b"\n")]
    elif b"\0\0" not in content:
        names = content.split(b"\0")
    else:
        raise DataError(
            "standard input holds binary data, not names: pass the names of images, one a line or each ended by NUL"
        )
    return [os.fsdecode(name) for name in names if name]


def arguments(parser: Parser) -> None:
    """The command's arguments."""
    parser.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER", help="files, folders, or - for standard input")
    add_run(parser)
    parser.add_argument("--top", type=int, default=5, metavar="K", help="classes named for each image; default: 5")
    parser.add_argument("--expert", type=int, metavar="N", help="one expert; default: the ensemble")
    add_model(parser)
    parser.add_argument("--out", metavar="FILE", help="file for the answers, .csv or .jsonl; default: the console")
    add_force(parser)


def main(args: argparse.Namespace) -> None:
    """The command."""
    out = new_file("--out", args.out, args.force) if args.out else None
    if out is not None:
        if out.suffix.lower() not in WRITERS:
            raise ConfigError(f"--out={out} must end in {' or '.join(WRITERS)}")
        check_writable("--out", out)
    at_least("top", args.top, 1)
    names = [n for name in args.images for n in (read_names() if name == "-" else [name]) if n]
    files = find_files(names)
    startup.prepare()
    try:
        chosen = {"prior": args.prior, "temperature": args.temperature, "crops": args.crops}
        model = load(args.run, step=args.step, expert=args.expert, **chosen)
    except ValueError as error:
        raise ConfigError(f"--{error}") from error
    directory = RunDir(args.run)
    for line in messages.other_pixels(directory.read_pixels(), directory.files.exists()):
        console.say(line, error=True)
    if failed := run(model, files, args.top, args.expert, out):
        raise DataError(f"{failed} of {len(files)} files cannot be read")
