"""What a run shows at its end: the table, the plots, the page, `predictions.npz` and `results.json`."""

import json

from ncl_jax import inputs, metrics, predictions
from ncl_jax.data.sources import Split
from ncl_jax.logs import read_metrics
from ncl_jax.report import page
from ncl_jax.report.plots import curve_figure, per_class_figure
from ncl_jax.report.tables import mean_expert, table
from ncl_jax.rundir import RunDir, write_text

__all__ = ["mean_expert", "table", "write"]


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
    curve_figure(records, config.loss.balanced).savefig(directory.curve, dpi=130)
    per_class_figure(results, facts.class_names).savefig(directory.per_class, dpi=130)
    sizes = inputs.image_sizes(config, facts)
    found = predictions.make(metrics.join(answers), test, facts.class_counts, *sizes)
    predictions.write(directory.predictions, found)
    content = page.RunContent(directory.path.name, results, facts, records, found)
    write_text(directory.report, page.page(content))
    write_text(directory.results, json.dumps(results, indent=1) + "\n")
