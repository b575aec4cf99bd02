"""The charts of a run's page, of a comparison and of `ncl-jax inspect`, as Matplotlib figures."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ncl_jax.errors import printable
from ncl_jax.evaluation.metrics import CALIBRATION_BINS
from ncl_jax.report import plots
from ncl_jax.report.plots import COLORS, SOFT, style

# The loss terms (`losses`, `methods`) in words; others are shown by their own names.
TERMS = {
    "nil": "individual, all classes",
    "nil_hard": "individual, hard categories",
    "nbod": "distillation, all classes",
    "nbod_hard": "distillation, hard categories",
    "inter": "between experts, all classes",
    "inter_hard": "between experts, hard categories",
    "intra": "between copies, all classes",
    "intra_hard": "between copies, hard categories",
    "contrast": "momentum contrast",
}
MOST_NAMES = 20  # classes; the names of more have no room
BOTTOM, TOP = -3, 112  # of the accuracies by class, with room for the names of the groups
SMOOTHED = 12  # points of a line through the classes
SAID = 1000  # points of a chart that say what they are; of more, none does


def percent(value: float | None, digits: int = 1) -> str:
    """A share of 1 in percent, or a dash."""
    return "-" if value is None else f"{100 * value:.{digits}f}"


@style()
def curves(records: Sequence[dict], balanced: bool) -> Figure:
    """Two panels over the epochs: the loss by term, and the ensemble's accuracy, overall and by group of classes.

    Args:
      records: the objects of `metrics.jsonl`.
      balanced: the configuration's `loss.balanced`; without it, a loss of nothing but `nil` is plain cross-entropy.
    """
    epochs = [r["epoch"] for r in records] or [1]  # the file may have been damaged or lost
    figure, (left, right) = plots.axes(11, 2, 4.8, below=1.3)
    _terms(left, [r for r in records if r["kind"] == "train"], balanced)
    _accuracies(right, [r for r in records if r["kind"] == "evaluation"])
    first, last = min(epochs), max(epochs)
    margin = max(0.5, 0.03 * (last - first))
    for ax, columns in ((left, 2), (right, 4)):
        ax.set(xlabel="epoch", xlim=(first - margin, last + margin))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
        plots.legend_below(figure, ax, columns)
    return figure


def _terms(ax: Axes, training: list[dict], balanced: bool) -> None:
    used = {term for record in training for term, value in record["parts"].items() if value > 0}
    for term in [*(term for term in TERMS if term in used), *sorted(used - TERMS.keys())]:
        values = [record["parts"].get(term, np.nan) for record in training]
        _line(ax, [record["epoch"] for record in training], values, term_label(term, used, balanced))
    ax.set(ylabel="training loss by term (nats)", yscale="log")
    plots.number_ticks(ax.yaxis)


def term_label(term: str, used: Collection[str], balanced: bool) -> str:
    """A loss term in words; `used` are all of them, `balanced` is the configuration's `loss.balanced`."""
    return "cross-entropy" if set(used) == {"nil"} and not balanced else TERMS.get(term, term)


def _accuracies(ax: Axes, evaluations: list[dict]) -> None:
    for name in ("accuracy", "many", "medium", "few"):
        values = [record["ensemble"][name] for record in evaluations]
        if values and None not in values:  # a group without a class
            epochs = [record["epoch"] for record in evaluations]
            _line(ax, epochs, 100 * np.asarray(values), "all" if name == "accuracy" else name)
    ax.set(ylabel="test accuracy of the ensemble (%)")


def _line(ax: Axes, x: Any, y: Any, label: str) -> None:
    """One more line of a panel, in a colour and dashes of its own."""
    index, number = len(ax.lines), len(COLORS)
    dashes, size = plots.DASHES[(index + index // number) % len(plots.DASHES)], 6 if len(x) <= 50 else 3
    ax.plot(x, y, color=COLORS[index % number], linestyle=dashes, marker=".", markersize=size, label=label)


@style()
def per_class(results: dict, class_names: Sequence[str]) -> Figure:
    """Test accuracy of every class against its number of training images: the ensemble and the mean expert.

    Args:
      results: the content of `results.json`.
      class_names: C names, shown above the panel unless there are too many.
    """
    shown = [index for index, count in enumerate(results["class_counts"]) if count]  # the axis has no place for 0
    counts, names = np.asarray(results["class_counts"])[shown], [class_names[index] for index in shown]
    predictors = [results["ensemble"], *results["experts"]]
    ensemble, *experts = (100 * np.asarray(predictor["per_class"], float)[shown] for predictor in predictors)
    named = len(class_names) <= MOST_NAMES
    figure, (ax,) = plots.axes(height=5.2, right=0.9, below=0.9, above=1.2) if named else plots.axes(below=0.9)
    drawn = {"ensemble": ensemble} | ({"mean expert": np.mean(experts, axis=0)} if len(experts) > 1 else {})
    for (name, values), marker in zip(drawn.items(), "ox", strict=False):
        points = ax.scatter(counts, values, s=22, marker=marker, label=name)
        if len(shown) <= SAID:
            rows = zip(names, counts, values, strict=True)
            plots.say(points, [f"{c}, {count} training images: {name} {value:.1f} %" for c, count, value in rows])
    ax.set(xlabel="training images of the class", ylabel="test accuracy (%)", xscale="log", ylim=(BOTTOM, TOP))
    ax.set_yticks(range(0, 101, 20))
    plots.number_ticks(ax.xaxis)
    plots.mark_groups(ax, counts, 107)
    if named:
        _name_classes(ax, counts, np.nan_to_num(ensemble), names)
    plots.legend_below(figure, ax, 2)
    return figure


def _name_classes(ax: Axes, counts: np.ndarray, accuracy: np.ndarray, class_names: Sequence[str]) -> None:
    """Slanted names above the panel, each with a thin line down to its class."""
    low, high = np.log(ax.get_xlim())
    order = np.argsort(counts, kind="stable")
    across = (np.log(counts[order]) - low) / (high - low)
    up = (accuracy[order] - BOTTOM) / (TOP - BOTTOM)
    frame: dict[str, Any] = {"transform": ax.transAxes, "clip_on": False}
    for index, x, y, place in zip(order, across, up, _spread(across, 0.04), strict=True):
        ax.plot([x, x, place], [y, 1, 1.03], color=plots.EDGE, linewidth=0.8, zorder=0, **frame)
        ax.text(place, 1.05, short(class_names[index], 24), fontsize=9, rotation=40, rotation_mode="anchor", **frame)


def short(name: str, most: int) -> str:
    """A class's name, cut where there is no room for more."""
    name = printable(name)
    return name if len(name) <= most else name[: most - 1] + "…"


def _spread(wanted: np.ndarray, gap: float) -> np.ndarray:
    """Rising places in [0, 1], near the wanted ones, that keep the gap between neighbours."""
    steps = gap * np.arange(len(wanted))
    upwards = np.maximum.accumulate(wanted - steps)
    downwards = np.minimum.accumulate((wanted - steps)[::-1])[::-1]
    return np.clip((upwards + downwards) / 2 + steps, steps, 1 - steps[::-1])


@style()
def disagreement(results: dict, class_names: Sequence[str]) -> Figure:
    """How much the experts disagree on each class, from the largest to the smallest, and its mean by rank (NCL, figure
    1): the KL divergence, and the share of pairs that name different classes."""
    figure, row = plots.axes(11, 2, 3.8)
    labels = {"kl": ("KL between experts (nats)", 1), "top1": ("pairs that name different classes (%)", 100)}
    counts = results["class_counts"]
    for ax, (kind, (label, scale)) in zip(row, labels.items(), strict=True):
        values = results["disagreement"][kind]["per_class"]
        order = [
            c
            for c in np.argsort(-np.asarray(counts), kind="stable")
            if values[c] is not None and np.isfinite(values[c])
        ]
        shown = np.array([scale * values[c] for c in order])
        points = ax.scatter(np.arange(1, len(order) + 1), shown, s=18)
        if len(order) <= SAID:
            texts = [f"{class_names[c]}, {counts[c]} training images: {scale * values[c]:.3g}" for c in order]
            plots.say(points, texts)
        if len(order) > SMOOTHED:
            parts = np.array_split(np.arange(len(order)), SMOOTHED)
            ax.plot([p.mean() + 1 for p in parts], [shown[p].mean() for p in parts], "--", color=COLORS[1])
        ax.set(xlabel="rank of the class: head → tail", ylabel=label, ylim=(0, 1.05 * shown.max(initial=1e-9)))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


@style()
def reliability(right: np.ndarray, confidence: np.ndarray, titles: Sequence[str]) -> Figure:
    """How often predictors are right at each confidence: bool and float in [0, 1], `[P, N]`, a panel each."""
    figure, row = plots.axes(3.0 * len(titles) + 0.2, len(titles), 3.2, above=0.35)
    for ax, hits, sure, title in zip(row, right, confidence, titles, strict=True):
        bins = np.minimum((sure * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
        used, width = np.unique(bins), 100 / CALIBRATION_BINS
        shares = [100 * hits[bins == index].mean() for index in used]
        means = [100 * sure[bins == index].mean() for index in used]
        ax.bar(used * width, shares, width, align="edge", color=COLORS[0], alpha=0.55, edgecolor=plots.EDGE)
        rows = zip(used, means, shares, strict=True)
        texts = [f"{(bins == i).sum()} images at {mean:.1f} % confidence: {s:.1f} % right" for i, mean, s in rows]
        plots.say(ax.scatter(means, shares, s=14, color=COLORS[0]), texts)
        ax.plot([0, 100], [0, 100], "--", color=COLORS[1], linewidth=1)
        ax.set(xlabel="confidence (%)", ylabel="right (%)", xlim=(0, 100), ylim=(0, 100), title=title)
    return figure


def _with_legend(names: Sequence[str]) -> tuple[Figure, Axes, int]:
    """A figure of one panel with room for a legend of these names below, and the legend's columns."""
    columns = 1 if max(map(len, names), default=0) > 34 else 2
    below = 0.75 + 0.2 * -(-len(names) // columns)
    figure, (ax,) = plots.axes(6.4, height=3.4 + below, below=below)
    return figure, ax, columns


@style()
def strips(groups: Sequence[tuple[str, list[str], dict[str, list[float | None]]]]) -> Figure:
    """Every run of some groups, a point for each figure: name, names of the runs, their figures by name."""
    figure, ax, columns = _with_legend([name for name, _, _ in groups])
    figures = list(groups[0][2]) if groups else []
    for index, (name, runs, values) in enumerate(groups):
        offset = (index - (len(groups) - 1) / 2) * 0.7 / len(groups)
        known = [
            (place + offset, 100 * value, f"{name}, {run}, {figure_name}: {percent(value)} %")
            for place, figure_name in enumerate(figures)
            for run, value in zip(runs, values[figure_name], strict=True)
            if value is not None
        ]
        x, y, texts = zip(*known, strict=True) if known else ((), (), ())
        color, marker = COLORS[index % len(COLORS)], plots.MARKERS[index % len(plots.MARKERS)]
        plots.say(ax.scatter(x, y, s=22, color=color, marker=marker, label=name), texts)
    ax.set_xticks(range(len(figures)), ["all" if name == "accuracy" else name for name in figures])
    ax.set(ylabel="test accuracy (%)", ylim=(0, 100))
    plots.legend_below(figure, ax, columns)
    return figure


@style()
def by_size(groups: Sequence[tuple[str, np.ndarray]], class_counts: Sequence[int], smoothed: int = SMOOTHED) -> Figure:
    """Accuracy by class size, a line for each group: name, and accuracies `[C]`, NaN where a class was not tested.

    `smoothed`: points of a line, each the mean over neighbouring classes.
    """
    counts = np.asarray(class_counts)
    tested = ~np.isnan(np.array([values for _, values in groups], float)).any(0)
    order = [c for c in np.argsort(counts, kind="stable") if counts[c] and tested[c]]
    figure, ax, columns = _with_legend([name for name, _ in groups])
    if order:
        parts = np.array_split(order, min(smoothed, len(order)))
        sizes = [float(np.exp(np.log(counts[part]).mean())) for part in parts]
        ax.set(xscale="log", xlim=(counts[order].min() / 1.15, counts[order].max() * 1.15))
        for name, values in groups:
            means = [100 * float(np.asarray(values, float)[part].mean()) for part in parts]
            _line(ax, sizes, means, name)
            texts = [
                f"{name}: {mean:.1f} % at about {size:.0f} images" for size, mean in zip(sizes, means, strict=True)
            ]
            plots.say(ax.scatter(sizes, means, s=20, alpha=0), texts)
        plots.number_ticks(ax.xaxis)
        plots.mark_groups(ax, counts[order], 107)
    ax.set(xlabel="training images of the class", ylabel="test accuracy (%)", ylim=(BOTTOM, TOP))
    plots.legend_below(figure, ax, columns)
    return figure


@style()
def class_sizes(name: str, class_counts: Sequence[int]) -> Figure:
    """The sizes of the classes, largest first, with the borders of the groups."""
    counts = np.sort(class_counts)[::-1]
    figure, (ax,) = plots.axes(above=0.4)
    ax.bar(np.arange(1, len(counts) + 1), counts, width=1.0 if len(counts) > 60 else 0.8)
    ax.set(xlabel="classes, largest first", ylabel="training images", yscale="log", xlim=(0.4, len(counts) + 0.6))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_title(f"{name}: {counts.sum():,} training images in {len(counts):,} classes")
    ax.grid(axis="x", visible=False)
    plots.number_ticks(ax.yaxis)
    few, many = plots.BORDERS
    for border, text, side in ((few, f"few: fewer than {few}", "top"), (many, f"many: more than {many}", "bottom")):
        if counts.min() < border < counts.max():
            ax.axhline(border, color=SOFT, linestyle=":", linewidth=1)
            ax.annotate(text, (1, border), xycoords=("axes fraction", "data"), va=side, ha="right")
    return figure
