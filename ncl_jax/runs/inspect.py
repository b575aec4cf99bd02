"""Looking at a data set: what it holds, what would stop or spoil a run, and what comparing its images says."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import ml_collections

from ncl_jax.config import build_data, checks
from ncl_jax.data.images import examine
from ncl_jax.errors import WriteError, printable
from ncl_jax.report import charts, findings, inspection, overview, plots
from ncl_jax.report.findings import Remark
from ncl_jax.runs import remarks
from ncl_jax.runs.findings import find
from ncl_jax.runtime import console
from ncl_jax.runtime.files import expand, valid_utf8, write_together


class Files(NamedTuple):
    """What is written."""

    picture: pathlib.Path  # of the class sizes
    page: pathlib.Path
    suspected: pathlib.Path  # table of suspected labels; only written where labels could be judged


class Outcome(NamedTuple):
    """What was found, beside what is only worth knowing."""

    problems: list[Remark]  # would stop or spoil a run
    warnings: list[Remark]  # make figures doubtful


def inspect(config: ml_collections.ConfigDict, files: Files, command: Sequence[str] = ()) -> Outcome:
    """Prints what the data is, writes the page, and returns what is wrong.

    Args:
      config: of the run.
      files: what is written.
      command: the value of `--config` and the arguments after it, where they are known.

    Raises:
      ConfigError: a bad value.
      DataError: the data cannot be read at all.
      WriteError: a file cannot be written; all else has been printed.
    """
    checks.validate(config)
    whole = ml_collections.ConfigDict(config.to_dict())
    whole.data.skip_unreadable = False  # they are to be found
    whole.data.image_size = config.data.image_size or 1  # not needed here, and perhaps not known yet
    data = build_data.data(whole, skip_rows=True)
    console.say_text(overview.class_table(data))
    examined = {name: examine.examine(split, f"decoding {name}") for name, split in data.splits().items()}
    console.say_text(overview.summary(data, examined))
    for line in remarks.suggestions(config, data, examined["train"].sizes):
        console.say(line)
    known, found = remarks.remarks(config, data, examined), find(config, data, examined, command)
    said = [*known, *findings.lines(data, found)]
    for remark in said:
        console.say_text(str(remark) if remark.is_warning() else f"note: {remark}")
    problems = remarks.problems(config, data, examined)
    for remark in problems:
        console.say_text(f"problem: {remark}")
    fields = config.data
    own = fields.name in ("folder", "list")
    name = printable(expand("data.dir", fields.dir).absolute().name) if own else fields.name
    contents = {files.picture: plots.drawn(
        charts.class_sizes(name, data.facts.class_counts, data.facts.class_names), files.picture.suffix[1:].lower()
    )}  # fmt: skip
    contents[files.page] = valid_utf8(inspection.page(inspection.Inspected(name, data, found, problems, known)))
    if found.suspects is not None:
        contents[files.suspected] = valid_utf8(findings.suspected_labels(data, found.suspects))
    _write(contents, files, len(problems))
    return Outcome(problems, [remark for remark in said if remark.is_warning()])


def _write(contents: dict[pathlib.Path, bytes], files: Files, problems: int) -> None:
    names = dict(zip(files, ("picture of the class sizes", "page", "suspected labels"), strict=True))
    try:
        files.page.parent.mkdir(parents=True, exist_ok=True)
        write_together(contents)
    except OSError as error:
        above = f"; {problems} problem{'s' * (problems > 1)} above" if problems else ""
        raise WriteError(
            f"cannot write to --out={files.page.parent} or --picture={files.picture} ({error}): pass another folder or "
            f"file{above}"
        ) from error
    for path in contents:
        console.say(f"{names[path]}: {path}")
