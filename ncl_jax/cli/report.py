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


def make(runs: Sequence[str | pathlib.Path], with_images: bool = True) -> str:
    """The page of finished runs, without the images for people who may not see them.

    Raises:
      ConfigError: a directory holds no finished run, or the runs are on different data.
    """
    contents = [read(RunDir(run)) for given in runs for run in inside(pathlib.Path(given))]
    return page.page(contents[0], with_images) if len(contents) == 1 else comparison.page(contents, with_images)


def inside(path: pathlib.Path) -> list[pathlib.Path]:
    """A run's directory, or the directories of the finished runs of a comparison, such as `ncl-jax ablate` makes."""
    if not path.is_dir() or (path / "config.json").exists():
        return [path]
    return sorted(one.parent for one in path.glob("*/results.json")) or [path]


def arguments(parser: Parser) -> None:
    """The command's arguments."""
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="directory of a run, or of a comparison; several are compared"
    )
    parser.add_argument("--out", default="report.html", metavar="FILE", help="file to write; default: report.html")
    parser.add_argument("--no-images", action="store_true", help="omit the pictures, for a page that is sent by e-mail")
    add_force(parser)


def main(args: argparse.Namespace) -> None:
    """The command."""
    out = new_file("--out", args.out, args.force)
    check_writable("--out", out)
    content = make(args.runs, not args.no_images)
    try:
        write_text(out, content)
    except OSError as error:
        raise WriteError(f"--out={out} cannot be written: {error}") from error
    console.say_lines(next_steps.reported(args.runs, str(out)))
