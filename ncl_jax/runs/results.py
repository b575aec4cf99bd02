"""The results of a run: written at its end, read for reports."""

import json
import os

from ncl_jax.config import saved
from ncl_jax.data.dataset import Data, Facts
from ncl_jax.errors import ConfigError, one_line, printable
from ncl_jax.evaluation import metrics, predictions, predictions_file
from ncl_jax.evaluation.predictions import Predictions
from ncl_jax.report import charts, classes, page, spreadsheet
from ncl_jax.report.content import Names, RunContent
from ncl_jax.report.plots import png
from ncl_jax.runs import messages
from ncl_jax.runs.assess import Assessed
from ncl_jax.runtime import console
from ncl_jax.runtime.files import valid_utf8, write_together
from ncl_jax.storage.directory import RunDir
from ncl_jax.storage.log import read_metrics


def read(directory: RunDir) -> RunContent:
    """A finished run, whoever wrote its files. Of damaged answers for single images a line on the console tells.

    Raises:
      ConfigError, CheckpointError: the directory holds no finished run, or its files do not belong together.
    """
    directory.read_config()
    results, facts = directory.check_results(), directory.read_facts()
    if results["class_counts"] != list(facts.class_counts):
        raise ConfigError(
            f"{directory.results} and {directory.facts} differ in class_counts: they are of different runs; restore "
            "them from a backup"
        )
    whole = {"split": facts.split, **results, "config": _configuration(directory, results)}
    found = predictions_file.read(directory.predictions, facts.num_classes, 1 + len(results["experts"]))
    if found is None and os.path.lexists(directory.predictions):
        console.say(
            f"note: {directory.predictions} is damaged or not this run's: the page has no sections on single "
            f"images; ncl-jax evaluate --run={directory} --finish writes the file again"
        )
    return _content(directory, whole, facts, read_metrics(directory.metrics), found)


def _configuration(directory: RunDir, results: dict) -> dict:
    """The configuration that the results come from, with every field. Raises ConfigError."""
    try:
        return saved.read(results["config"]).to_dict()
    except (ValueError, TypeError, ConfigError) as error:
        raise ConfigError(
            f"{directory.results}: its config is not the configuration of a run ({one_line(error)}): restore it from a "
            "backup"
        ) from error


def _content(
    directory: RunDir, results: dict, facts: Facts, records: list[dict], found: Predictions | None
) -> RunContent:
    """What a page is made of, with names as they can be shown."""
    shown = facts._replace(class_names=tuple(map(printable, facts.class_names)))
    names = Names() if found is None else _names(directory.read_files(), facts, len(found.labels))
    return RunContent(printable(directory.path.name), results, shown, records, found, names)


def _names(lines: list[str], facts: Facts, number: int) -> Names:
    """Where the images are, by the run's list of files; nothing where it is not of so many test images."""
    cells = [line.split("\t") for line in lines]
    tested, trained = (
        [printable(parts[2]) for parts in cells if len(parts) > 3 and parts[0] == split]
        for split in (facts.split, "train")
    )
    return Names(tested, trained) if (len(tested), len(trained)) == (number, facts.num_train) else Names()


def write(
    directory: RunDir,
    results: dict,
    answers: list[metrics.Answers],
    data: Data,
    nearest: predictions.Nearest | None,
    assessed: Assessed | None,
) -> None:
    """Writes what a finished run shows, together, and last its results: a directory that has them is complete.

    Args:
      directory: of the run.
      results: the content of `results.json`.
      answers: for the images of `data.test`, in their order.
      data: what the run was trained on and evaluated on, with images as they are in their files.
      nearest: see `predictions.make`.
      assessed: see `assess.assess`.
    """
    facts = directory.read_facts()
    records = read_metrics(directory.metrics)
    found = predictions.make(metrics.join(answers), data.test, data.train, facts.num_classes, nearest)
    if assessed is not None:
        results["trust"], found = assessed.figures, found._replace(known=assessed.known, sets=assessed.sets)
    results["data_notes"] = [*messages.left_out(facts), *data.lines()]
    if data.facts.split in data.groups:
        results["test_groups"] = len(set(data.groups[data.facts.split]))
    content = _content(directory, results, facts, records, found)
    figures = classes.figures(found, facts.class_counts)
    write_together({
        directory.curve: png(charts.curves(records)),
        directory.per_class: png(charts.per_class(results, facts.class_names)),
        directory.predictions: predictions_file.packed(found),
        directory.classes: valid_utf8(spreadsheet.classes(content, found, figures)),
        directory.images: valid_utf8(spreadsheet.images(content, found)),
        directory.report: valid_utf8(page.page(content)),
        directory.results: json.dumps(results, indent=1).encode() + b"\n",
    })  # fmt: skip
