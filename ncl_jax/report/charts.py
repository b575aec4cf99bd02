"""The charts of a run's page."""

from collections.abc import Sequence

import numpy as np

from ncl_jax.evaluation.metrics import CALIBRATION_BINS
from ncl_jax.report import svg
from ncl_jax.report.plots import BORDERS, part_label

GROUPS = ("many", "medium", "few")
HEADROOM = 110  # percent: above 100, for the names of the groups
SMOOTHED = 12  # points of a line through the classes


def percent(value: float | None, digits: int = 1) -> str:
    """A share of 1 in percent, or a dash."""
    return "-" if value is None else f"{100 * value:.{digits}f}"


def losses(records: Sequence[dict], balanced: bool) -> str:
    """The training loss by part over the epochs."""
    training = [record for record in records if record["kind"] == "train"]
    parts = {part for record in training for part, value in record["parts"].items() if value > 0}
    values = [value for record in training for value in record["parts"].values() if value > 0]
    if not values:
        return ""
    epochs = svg.linear("epoch", training[0]["epoch"], training[-1]["epoch"], whole=True)
    chart = svg.Chart("training loss by part", epochs, svg.logarithmic("loss by part (nats)", min(values), max(values)))
    names = sorted(parts, key=lambda part: -training[-1]["parts"].get(part, 0))
    for style, part in enumerate(names):
        known = [record for record in training if record["parts"].get(part, 0) > 0]
        chart.line([record["epoch"] for record in known], [record["parts"][part] for record in known], style)
    return chart.svg() + svg.legend((style, part_label(part, parts, balanced)) for style, part in enumerate(names))


def accuracies(records: Sequence[dict]) -> str:
    """The ensemble's accuracy over the epochs, overall and by group of classes."""
    evaluations = [record for record in records if record["kind"] == "evaluation"]
    if not evaluations:
        return ""
    epochs = svg.linear("epoch", evaluations[0]["epoch"], evaluations[-1]["epoch"], whole=True)
    chart = svg.Chart("accuracy over the epochs", epochs, svg.linear("test accuracy (%)", 0, 100))
    shown = []
    for style, name in enumerate(("accuracy", *GROUPS)):
        values = [record["ensemble"][name] for record in evaluations]
        if None not in values:
            chart.line([r["epoch"] for r in evaluations], [100 * value for value in values], style)
            shown.append((style, "all" if name == "accuracy" else name))
            for record, value in zip(evaluations, values, strict=True):
                chart.point(
                    record["epoch"], 100 * value, style, f"{shown[-1][1]}, epoch {record['epoch']}: {percent(value)} %"
                )
    return chart.svg() + svg.legend(shown)


def size_axis(counts: Sequence[int]) -> svg.Axis:
    """Training images of a class."""
    shown = [count for count in counts if count]
    return svg.logarithmic("training images of the class", min(shown), max(shown))


def mark_groups(chart: svg.Chart, axis: svg.Axis) -> None:
    """The borders between few, medium and many."""
    for border, name in zip(BORDERS, ("medium", "many"), strict=True):
        if axis.low < border < axis.high:
            chart.rule(border, f"{name} →")


def by_size(results: dict, class_names: Sequence[str]) -> str:
    """Every class's accuracy against its number of training images: the ensemble and the mean expert."""
    counts, axis = results["class_counts"], size_axis(results["class_counts"])
    chart = svg.Chart("accuracy of each class by its size", axis, svg.linear("test accuracy (%)", 0, HEADROOM))
    mark_groups(chart, axis)
    experts = [expert["per_class"] for expert in results["experts"]]
    for c, count in enumerate(counts):
        if not count or results["ensemble"]["per_class"][c] is None:
            continue
        mean = float(np.mean([expert[c] for expert in experts]))
        text = f"{class_names[c]}, {count} training images: "
        if len(experts) > 1:
            chart.point(count, 100 * mean, 1, f"{text}mean expert {percent(mean)} %")
        value = results["ensemble"]["per_class"][c]
        chart.point(count, 100 * value, 0, f"{text}ensemble {percent(value)} %")
    entries = [(0, "ensemble"), (1, "mean expert")][: min(2, len(experts))]
    return chart.svg() + svg.legend(entries, points=True)


def disagreement(results: dict, class_names: Sequence[str], kind: str, label: str, scale: float) -> str:
    """How much the experts disagree on each class, from the largest class to the smallest, and its mean by rank."""
    values = results["disagreement"][kind]["per_class"]
    order = [c for c in np.argsort(-np.asarray(results["class_counts"]), kind="stable") if values[c] is not None]
    high = max(scale * values[c] for c in order) or 1
    ranks = svg.linear("rank of the class: head → tail", 1, len(order), whole=True)
    chart = svg.Chart(f"{label} from head to tail", ranks, svg.linear(label, 0, 1.05 * high))
    if len(order) > SMOOTHED:
        parts = np.array_split(np.arange(len(order)), SMOOTHED)
        means = [scale * float(np.mean([values[order[i]] for i in part])) for part in parts]
        chart.line([float(part.mean()) + 1 for part in parts], means, 1)
    for rank, c in enumerate(order, 1):
        text = f"{class_names[c]}, {results['class_counts'][c]} training images: {scale * values[c]:.3g}"
        chart.point(rank, scale * values[c], 0, text)
    return chart.svg()


def reliability(right: np.ndarray, confidence: np.ndarray, name: str) -> str:
    """How often a predictor is right at each confidence: bool [N] and float [N] in [0, 1]."""
    axis = svg.linear("confidence (%)", 0, 100)
    chart = svg.Chart(f"reliability of {name}", axis, svg.linear("right (%)", 0, 100), height=300)
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    for index in np.unique(bins):
        inside, width = bins == index, 100 / CALIBRATION_BINS
        share, mean = 100 * right[inside].mean(), 100 * confidence[inside].mean()
        text = f"{inside.sum()} images at {mean:.1f} % confidence: {share:.1f} % right"
        chart.bar(index * width, (index + 1) * width, share, text)
        chart.point(mean, share, 0, text)
    chart.line([0, 100], [0, 100], 1)
    return chart.svg()
