"""The results of a run: written at its end, read for reports."""

import json

from ncl_jax.data.dataset import Facts
from ncl_jax.data.types import Split
from ncl_jax.errors import ConfigError, printable
from ncl_jax.evaluation import metrics, predictions
from ncl_jax.report import charts, page
from ncl_jax.report.page import RunContent
from ncl_jax.report.plots import png
from ncl_jax.runtime.files import valid_utf8, write_together
from ncl_jax.storage.directory import RunDir
from ncl_jax.storage.log import read_metrics


def read(directory: RunDir) -> RunContent:
    """Raises ConfigError for a directory that holds no finished run."""
    directory.read_config()
    results = directory.read_results()
    if results is None:
        raise ConfigError(
            f"{directory} has no results yet: let the run end, or ncl-jax evaluate --run={directory} --finish"
        )
    facts, found = directory.read_facts(), predictions.read(directory.predictions)
    return _content(directory, results, facts, read_metrics(directory.metrics), found)


def _content(
    directory: RunDir, results: dict, facts: Facts, records: list[dict], found: predictions.Predictions | None
) -> RunContent:
    """What a page is made of, with names as they can be shown."""
    shown = facts._replace(class_names=tuple(map(printable, facts.class_names)))
    return RunContent(printable(directory.path.name), results, shown, records, found)


def write(directory: RunDir, results: dict, answers: list[metrics.Answers], test: Split) -> None:
    """Writes what a finished run shows, together, and last its results: a directory that has them is complete.

    Args:
      directory: of the run.
      results: the content of `results.json`.
      answers: for the images of `test`, in their order.
      test: the split that was evaluated.
    """
    config, facts = directory.read_config(), directory.read_facts()
    records = read_metrics(directory.metrics)
    size = facts.image_shape[0]
    found = predictions.make(metrics.join(answers), test, facts.class_counts, config.data.resize or size, size)
    content = _content(directory, results, facts, records, found)
    write_together({
        directory.curve: png(charts.curves(records, config.loss.balanced)),
        directory.per_class: png(charts.per_class(results, facts.class_names)),
        directory.predictions: predictions.packed(found),
        directory.report: valid_utf8(page.page(content)),
        directory.results: json.dumps(results, indent=1).encode() + b"\n",
    })  # fmt: skip
