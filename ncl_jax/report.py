"""What a run shows at its end: the table, `results.json` and the plots."""

import json
import pathlib

import numpy as np
from matplotlib.figure import Figure

from ncl_jax.logs import read_metrics
from ncl_jax.rundir import RunDir, write_text

_COLUMNS = ("accuracy", "many", "medium", "few", "nll", "ece")


def table(results: dict) -> str:
    """The final figures as a text table: accuracies in %, NLL in nats, ECE in %.

    Args:
      results: the content of `results.json` (`ensemble`, `experts`, `best_on_test`).
    """
    experts = results["experts"]
    rows = [("ensemble", results["ensemble"])]
    rows += [(f"expert {i}", expert) for i, expert in enumerate(experts)]
    if len(experts) > 1:
        best = max(range(len(experts)), key=lambda i: experts[i]["accuracy"])
        rows += [("mean expert", mean_expert(experts)), (f"best expert ({best})", experts[best])]
    lines = ["{:<18}{:>10}{:>8}{:>8}{:>8}{:>8}{:>8}".format("", "accuracy", "many", "medium", "few", "NLL", "ECE")]
    lines += [f"{name:<18}" + "".join(_cell(key, row[key]) for key in _COLUMNS) for name, row in rows]
    if results.get("disagreement"):
        kl, top1 = results["disagreement"]["kl"], results["disagreement"]["top1"]
        lines.append(_disagreement_line("top-1 differs", top1, 100))
        lines.append(_disagreement_line("KL (nats)", kl, 1))
    if results.get("best_on_test"):
        best = results["best_on_test"]
        lines.append(
            f"best on the test set: {100 * best['accuracy']:.2f} % after epoch {best['epoch']}, for reference only"
        )
    return "\n".join(lines)


def _cell(key, value):
    width = 10 if key == "accuracy" else 8
    if value is None:
        return f"{'-':>{width}}"
    return f"{value:>{width}.3f}" if key == "nll" else f"{100 * value:>{width}.2f}"


def _disagreement_line(name, figures, scale):
    cells = [figures[key] for key in ("all", "many", "medium", "few")]
    digits = 2 if scale == 100 else 3
    text = ["-" if cell is None else f"{scale * cell:.{digits}f}" for cell in cells]
    return f"{name:<18}{text[0]:>10}" + "".join(f"{t:>8}" for t in text[1:]) + "   between experts"


def mean_expert(experts: list[dict]) -> dict:
    """The mean over experts of each figure of `_COLUMNS`, None for an empty group."""
    mean = {}
    for key in _COLUMNS:
        values = [expert[key] for expert in experts]
        mean[key] = None if None in values else float(np.mean(values))
    return mean


def write(directory: RunDir, results: dict) -> None:
    """Writes a finished run's results and plots."""
    write_text(directory.results, json.dumps(results, indent=1) + "\n")
    plot_curve(read_metrics(directory.metrics), directory.curve)
    plot_per_class(results, directory.per_class)


def axes(width: float = 7.0, panels: int = 1) -> tuple[Figure, np.ndarray]:
    """A figure, `width` inches wide, and its row of panels, without a screen."""
    figure = Figure(figsize=(width, 4), layout="constrained")
    row = figure.subplots(1, panels, squeeze=False)[0]
    for ax in row:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.3)
    return figure, row


def plot_curve(records: list[dict], path: pathlib.Path) -> None:
    """Two panels over the epochs: the loss by part, and the ensemble's accuracy, overall and by group of classes."""
    training = [r for r in records if r["kind"] == "train"]
    evaluations = [r for r in records if r["kind"] == "evaluation"]
    figure, (left, right) = axes(11, 2)
    for part in training[-1]["parts"]:
        values = [r["parts"][part] for r in training]
        if any(values):  # parts that the method leaves out are 0
            left.plot([r["epoch"] for r in training], values, label=part)
    left.set(xlabel="epoch", ylabel="training loss by part (nats)", yscale="log")
    for name in ("accuracy", "many", "medium", "few"):
        values = [100 * r["ensemble"][name] if r["ensemble"][name] is not None else np.nan for r in evaluations]
        right.plot([r["epoch"] for r in evaluations], values, marker=".", label="all" if name == "accuracy" else name)
    right.set(xlabel="epoch", ylabel="test accuracy of the ensemble (%)")
    for ax in (left, right):
        ax.legend(frameon=False)
    figure.savefig(path, dpi=130)


def plot_per_class(results: dict, path: pathlib.Path) -> None:
    """Test accuracy of every class against its number of training images: the ensemble and the mean expert."""
    counts = np.asarray(results["class_counts"])
    experts = [np.asarray(expert["per_class"], float) for expert in results["experts"]]
    figure, (ax,) = axes()
    ax.scatter(counts, 100 * np.asarray(results["ensemble"]["per_class"], float), s=22, label="ensemble")
    if len(experts) > 1:
        ax.scatter(counts, 100 * np.mean(experts, axis=0), s=22, marker="x", label="mean expert")
    ax.set(xlabel="training images of the class", ylabel="test accuracy (%)", xscale="log", ylim=(-2, 102))
    ax.legend(frameon=False)
    figure.savefig(path, dpi=130)
