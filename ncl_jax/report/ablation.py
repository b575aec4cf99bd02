"""The comparison of methods over seeds: a table and a plot."""

import math
import statistics

import numpy as np
from matplotlib.figure import Figure

from ncl_jax.report import charts, comparison, tables

BASE = "balanced_softmax"  # what a method's cost is compared with


def table(results: dict[str, list[dict]]) -> str:
    """Markdown: a row for each method, mean ± standard deviation over seeds in %, and what a step costs.

    Where the test set is not balanced, means over classes come first.

    Args:
      results: the `results.json` contents of each method's seeds.
    """
    unequal = any(tables.is_unequal(run) for runs in results.values() for run in runs)
    means = tables.MEANS if unequal else {}
    lines = [
        f"| method | seeds | {''.join(f'{name} | ' for name in means.values())}ensemble | mean single expert | many | "
        f"medium | few | ECE | top-1 disagreement, all | few | step, of {BASE} |",
        "|---" * (11 + len(means)) + "|",
    ]
    for method, runs in results.items():
        ensemble = [comparison.spread([r["ensemble"][key] for r in runs]) for key in ("many", "medium", "few", "ece")]
        differ = [r["disagreement"]["top1"] if r["disagreement"] else {"all": None, "few": None} for r in runs]
        cells = [
            method,
            str(len(runs)),
            *(comparison.spread([tables.ensemble(r)[key] for r in runs]) for key in means),
            comparison.spread([r["ensemble"]["accuracy"] for r in runs]),
            comparison.spread([tables.mean_expert(r["experts"])["accuracy"] for r in runs]),
            *ensemble,
            *(comparison.spread([d[key] for d in differ]) for key in ("all", "few")),
            _cost(runs, results.get(BASE, [])),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cost(runs, base):
    """The time of a training step over the base method's, if both have as many experts."""
    if not runs or not base or len(runs[0]["experts"]) != len(base[0]["experts"]):
        return "-"
    speeds = [[run["images_per_second"] or math.nan for run in some] for some in (base, runs)]  # None: not trained here
    return f"{statistics.median(speeds[0]) / statistics.median(speeds[1]):.2f}"


def plot(results: dict[str, list[dict]]) -> Figure:
    """Per-class test accuracy of the ensembles, mean over seeds, against the class's number of training images."""
    done = {method: runs for method, runs in results.items() if runs}
    means = [
        (method, np.mean([np.asarray(run["ensemble"]["per_class"], float) for run in runs], axis=0))
        for method, runs in done.items()
    ]
    counts = next(iter(done.values()))[0]["class_counts"]
    return charts.by_size(means, counts, smoothed=len(counts))
