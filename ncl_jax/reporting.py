"""The command `ncl-jax report`: one page about a run, or one that compares several.

ncl-jax report RUN [RUN ...] --out=report.html [--force]
"""

import pathlib
import sys
from collections.abc import Sequence

from ncl_jax import console
from ncl_jax.config import expand
from ncl_jax.errors import ConfigError, WriteError
from ncl_jax.report import comparison, page
from ncl_jax.rundir import RunDir, write_text


def make(runs: Sequence[str | pathlib.Path]) -> str:
    """The page of finished runs. Raises ConfigError for what is none, and for runs on different data."""
    contents = [page.read(RunDir(run)) for run in runs]
    return page.page(contents[0]) if len(contents) == 1 else comparison.page(contents)


def main(argv: list[str]) -> None:
    """The command."""
    parser = console.Parser(prog="ncl-jax report", description="Writes a page about finished runs.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="directory of a run; several are compared")
    parser.add_argument("--out", default="report.html", help="the file to write; report.html if not given")
    parser.add_argument("--force", action="store_true", help="write over a file that exists")
    args = parser.parse_args(argv)
    out = expand("--out", args.out)
    if out.exists() and not args.force:
        raise ConfigError(f"--out={out} exists already: give another name, or --force")
    content = make(args.runs)
    try:
        write_text(out, content)
    except OSError as error:
        raise WriteError(f"--out={out} cannot be written: {error}") from error
    console.say(f"wrote {out}: open it in a browser")


if __name__ == "__main__":
    from ncl_jax import cli

    cli.run("report", sys.argv[1:])
