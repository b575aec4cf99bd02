"""The results of a run: written at its end, read for reports."""

import json

from ncl_jax.data.types import Split
from ncl_jax.errors import ConfigError
from ncl_jax.evaluation import metrics, predictions
from ncl_jax.report import charts, page
from ncl_jax.report.page import RunContent
from ncl_jax.report.plots import png
from ncl_jax.runtime.files import write_bytes, write_text
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
    return RunContent(directory.path.name, results, facts, read_metrics(directory.metrics), found)


def write(directory: RunDir, results: dict, answers: list[metrics.Answers], test: Split) -> None:
    """Writes what a finished run shows and, last, its results: a directory that has them is complete.

    Args:
      directory: of the run.
      results: the content of `results.json`.
      answers: for the images of `test`, in their order.
      test: the split that was evaluated.
    """
    config, facts = directory.read_config(), directory.read_facts()
    records = read_metrics(directory.metrics)
    write_bytes(directory.curve, png(charts.curves(records, config.loss.balanced)))
    write_bytes(directory.per_class, png(charts.per_class(results, facts.class_names)))
    size = facts.image_shape[0]
    found = predictions.make(metrics.join(answers), test, facts.class_counts, config.data.resize or size, size)
    predictions.write(directory.predictions, found)
    content = page.RunContent(directory.path.name, results, facts, records, found)
    write_text(directory.report, page.page(content))
    write_text(directory.results, json.dumps(results, indent=1) + "\n")
