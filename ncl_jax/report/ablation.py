"""The comparison of methods over seeds: a table and a plot."""

import math
import pathlib
import statistics

import numpy as np

from ncl_jax.report import comparison, plots, tables

BASE = "balanced_softmax"  # what a method's cost is compared with


def table(results: dict[str, list[dict]]) -> str:
    """Markdown: a row for each method, mean ± standard deviation over seeds in %, and what a step costs.

    Args:
      results: the `results.json` contents of each method's seeds.
    """
    lines = [
        "| method | seeds | ensemble | mean single expert | many | medium | few | ECE | top-1 disagreement, all | few "
        f"| step, of {BASE} |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for method, runs in results.items():
        ensemble = [comparison.spread([r["ensemble"][key] for r in runs]) for key in ("many", "medium", "few", "ece")]
        differ = [r["disagreement"]["top1"] if r["disagreement"] else {"all": None, "few": None} for r in runs]
        cells = [
            method,
            str(len(runs)),
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


def plot(results: dict[str, list[dict]], path: pathlib.Path) -> None:
    """Per-class test accuracy of the ensembles, mean over seeds, against the class's number of training images."""
    figure, (ax,) = plots.axes(9)
    markers = "os^vDPX*"
    for index, (method, runs) in enumerate(results.items()):
        if runs:
            accuracy = np.mean([np.asarray(r["ensemble"]["per_class"], float) for r in runs], axis=0)
            order = np.argsort(runs[0]["class_counts"])
            counts = np.asarray(runs[0]["class_counts"])[order]
            style = f"{markers[index % 8]}{'-' if index < 10 else '--'}"  # there are ten colours
            ax.plot(counts, 100 * accuracy[order], style, ms=4, lw=1, label=method)
    ax.set(
        xlabel="training images of the class", ylabel="test accuracy of the ensemble (%)", xscale="log", ylim=(-2, 102)
    )
    plots.number_ticks(ax.xaxis)
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=130)
