"""Writes a page about a finished run, or one that compares several."""

import argparse
import pathlib
from collections.abc import Sequence

from ncl_jax.cli.arguments import Parser, add_force, check_writable, new_file
from ncl_jax.errors import WriteError
from ncl_jax.report import comparison, page
from ncl_jax.runs import next_steps
from ncl_jax.runs.results import read
from ncl_jax.runtime import console
from ncl_jax.runtime.files import write_text
from ncl_jax.storage.directory import RunDir


def make(runs: Sequence[str | pathlib.Path]) -> str:
    """The page of finished runs. Raises ConfigError for what is none, and for runs on different data."""
    contents = [read(RunDir(run)) for run in runs]
    return page.page(contents[0]) if len(contents) == 1 else comparison.page(contents)


def arguments(parser: Parser) -> None:
    """The command's arguments."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="directory of a run; several are compared")
    parser.add_argument("--out", default="report.html", metavar="FILE", help="file to write; default: report.html")
    add_force(parser)


def main(args: argparse.Namespace) -> None:
    """The command."""
    out = new_file("--out", args.out, args.force)
    check_writable("--out", out)
    content = make(args.runs)
    try:
        write_text(out, content)
    except OSError as error:
        raise WriteError(f"--out={out} cannot be written: {error}") from error
    console.say_lines(next_steps.reported(args.runs, str(out)))
