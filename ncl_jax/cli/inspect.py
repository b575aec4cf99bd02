"""Shows what a dataset holds, and what would stop or spoil a run.

Decodes every image once, on all cores, and compares them: by the features of the frozen backbone, where the
configuration has one (photographs do), otherwise by pixels. Writes a page, inspect.html, with near duplicates, labels
that may be wrong and images unlike all others, and suspected_labels.csv beside it. Nothing of the data changes.
The exit code is 1 if something would stop or spoil a run.
"""

import argparse
import pathlib

from ncl_jax.cli.arguments import Parser, add_config, add_force, add_labels, given, new_file, read_config
from ncl_jax.errors import ConfigError, DataError
from ncl_jax.report.inspection import PAGE, TABLE
from ncl_jax.runs import next_steps
from ncl_jax.runs.inspect import Files, inspect
from ncl_jax.runtime import console, startup
from ncl_jax.runtime.files import expand, target_of

PICTURES = (".png", ".svg", ".pdf", ".jpg")
PICTURE = "class_sizes.png"


def arguments(parser: Parser) -> None:
    """The command's arguments."""
    add_config(parser)
    add_labels(parser)
    parser.add_argument(
        "--out", metavar="DIR",
        help=f"folder for {PAGE}, {TABLE} and {PICTURE}, created if need be; default: that of --picture, or the "
        "working directory",
    )  # fmt: skip
    where = f"file for the picture of the class sizes; default: {PICTURE} in --out"
    parser.add_argument("--picture", metavar="FILE", help=where)
    add_force(parser)


def outputs(out: str | None, picture: str | None, force: bool) -> Files:
    """What is written. Raises ConfigError for files that exist."""
    folder = expand("--out", out or ".")
    picture_file = new_file("--picture", picture, force) if picture else _in_folder(folder / PICTURE, force)
    if picture_file.suffix.lower() not in PICTURES:
        raise ConfigError(f"--picture={picture} must end in {', '.join(PICTURES)}")
    folder = picture_file.parent if out is None else folder
    page, table = (_in_folder(folder / name, force) for name in (PAGE, TABLE))
    return Files(picture_file, page, table)


def _in_folder(path: pathlib.Path, force: bool) -> pathlib.Path:
    """A file whose name is ours. Raises ConfigError for one that exists."""
    if path.exists() and not force:
        raise ConfigError(
            f"{path} exists already: pass --out=FOLDER to write to another folder, or --force to overwrite it"
        )
    return new_file("--out", str(path), force)


def main(args: argparse.Namespace) -> None:
    """The command."""
    startup.prepare()
    config, files = read_config(args), outputs(args.out, args.picture, args.force)
    labels = config.data.labels
    if labels and target_of(expand("data.labels", labels)) == target_of(files.suspected):
        raise ConfigError(
            f"--labels={labels} would be overwritten by what is found now: pass another folder, --out=DIR"
        )
    others = given(args)[1:]
    problems, warnings = inspect(config, files, [args.config, *others])
    console.say_lines(next_steps.inspected(args.config, others, not problems))
    if problems:
        number = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
        raise DataError(f"{number} would stop or spoil a run: fix the data first")
    if warnings:
        number = f"{len(warnings)} warning{'s' * (len(warnings) > 1)}"
        console.say(f"nothing was found that would stop a run, but {number} above: figures may mislead")
    else:
        console.say("nothing was found that would stop or spoil a run")
