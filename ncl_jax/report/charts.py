"""The charts of a run's page, of a comparison and of `ncl-jax inspect`, as Matplotlib figures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ncl_jax.errors import printable
from ncl_jax.evaluation.metrics import CALIBRATION_BINS
from ncl_jax.methods.terms import WORDS, in_words
from ncl_jax.report import plots, tables
from ncl_jax.report.plots import COLORS, SOFT, style

MOST_NAMES = 20  # classes; the names of more have no room
BOTTOM, TOP = -3, 112  # of the accuracies by class, with room for the names of the groups
SMOOTHED = 12  # points of a line through the classes
SAID = 1000  # points of a chart that say what they are; of more, none does
MOST_POINTS = 8000  # classes of a chart


def percent(value: float | None, digits: int = 1) -> str:
    """A share of 1 in percent, or a dash."""
    return "-" if value is None else f"{100 * value:.{digits}f}"


PANELS = ("loss", "accuracy")


@style()
def curves(records: Sequence[dict], panels: Sequence[str] = PANELS) -> Figure:
    """Panels over the epochs: the loss by term, and the ensemble's accuracy, overall and by group of classes.

    Args:
      records: the objects of `metrics.jsonl`.
      panels: of `PANELS`.
    """
    epochs = [r["epoch"] for r in records] or [1]  # the file may have been damaged or lost
    figure, row = plots.axes(5.5 * len(panels), len(panels), 4.8, below=1.3)
    first, last = min(epochs), max(epochs)
    margin = max(0.5, 0.03 * (last - first))
    for ax, panel in zip(row, panels, strict=True):
        if panel == "loss":
            _terms(ax, [r for r in records if r["kind"] == "train"])
        else:
            _accuracies(ax, [r for r in records if r["kind"] == "evaluation"])
        columns = 2 if panel == "loss" else 4
        ax.set(xlabel="epoch", xlim=(first - margin, last + margin))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
        plots.legend_below(figure, ax, columns)
    return figure


def _terms(ax: Axes, training: list[dict]) -> None:
    used = {term for record in training for term, value in record["parts"].items() if value > 0}
    for term in [*(term for term in WORDS if term in used), *sorted(used - WORDS.keys())]:
        values = [record["parts"].get(term, np.nan) for record in training]
        _line(ax, [record["epoch"] for record in training], values, in_words(term))
    ax.set(ylabel="training loss by term (nats)", yscale="log")
    plots.number_ticks(ax.yaxis)


def _accuracies(ax: Axes, evaluations: list[dict]) -> None:
    groups = tables.groups_of(evaluations[0]["ensemble"]) if evaluations else []
    for name in ("accuracy", *groups):
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


def thinned(classes: list[int]) -> list[int]:
    """Every second, third, ... class of more than `MOST_POINTS`: a chart of all would be too large for a page."""
    return classes[:: -(-len(classes) // MOST_POINTS)] if classes else []


@style()
def per_class(results: dict, class_names: Sequence[str]) -> Figure:
    """Test accuracy of every class against its number of training images: the ensemble and the mean expert. Classes
    without test images are skipped.

    Args:
      results: the content of `results.json`.
      class_names: C names, shown above the panel unless there are too many.
    """
    tested = [share is not None for share in results["ensemble"]["per_class"]]
    # The axis has no place for 0 training images.
    shown = thinned([c for c, count in enumerate(results["class_counts"]) if count and tested[c]])
    counts, names = np.asarray(results["class_counts"])[shown], [class_names[index] for index in shown]
    predictors = [results["ensemble"], *(() if tables.coincide(results) else results["experts"])]
    ensemble, *experts = (100 * np.asarray(predictor["per_class"], float)[shown] for predictor in predictors)
    named = len(class_names) <= MOST_NAMES
    figure, (ax,) = plots.axes(height=5.2, right=0.9, below=0.9, above=1.2) if named else plots.axes(below=0.9)
    drawn = {"ensemble": ensemble} | ({"mean expert": np.mean(experts, axis=0)} if len(experts) > 1 else {})
    for (name, values), marker in zip(drawn.items(), "ox", strict=False):
        points = ax.scatter(counts, values, s=22, marker=marker, label=name)
        if len(shown) <= SAID:
            rows = zip(names, counts, values, strict=True)
            plots.say(points, [f"{c}, {count} training images: {name} {value:.1f} %" for c, count, value in rows])
    ax.set(xlabel="training images of the class", ylabel="test accuracy (%)", ylim=(BOTTOM, TOP))
    ax.set_yticks(range(0, 101, 20))
    if shown:
        ax.set_xscale("log")
        plots.number_ticks(ax.xaxis)
        plots.mark_groups(ax, counts, 107)
    if named and shown:
        _name_classes(ax, counts, np.nan_to_num(ensemble), names)
    if len(drawn) > 1:
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
def reliability(right: np.ndarray, confidence: np.ndarray, title: str) -> Figure:
    """How often a predictor is right at each confidence: bool and float in [0, 1], `[N]`; above each bar its images."""
    figure, (ax,) = plots.axes(3.3, height=3.3, above=0.35, left=0.65)
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    used, numbers = np.unique(bins, return_counts=True)
    width = 100 / CALIBRATION_BINS
    shares = [100 * right[bins == index].mean() for index in used]
    means = [100 * confidence[bins == index].mean() for index in used]
    ax.bar(used * width, shares, width, align="edge", color=COLORS[0], alpha=0.55, edgecolor=plots.EDGE)
    for index, share, number in zip(used, shares, numbers, strict=True):
        ax.text((index + 0.5) * width, share + 5, f"{number:,}", ha="center", va="bottom", rotation=90, fontsize=8)
    rows = zip(numbers, means, shares, strict=True)
    texts = [f"{number} images at {mean:.1f} % confidence: {share:.1f} % right" for number, mean, share in rows]
    plots.say(ax.scatter(means, shares, s=14, color=COLORS[0]), texts)
    ax.plot([0, 100], [0, 100], "--", color=COLORS[1], linewidth=1)
    ax.set(xlabel="confidence (%)", ylabel="right (%)", xlim=(0, 100), ylim=(0, 125), title=title)
    ax.set_yticks(range(0, 101, 20))
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
def class_sizes(name: str, class_counts: Sequence[int], class_names: Sequence[str] = ()) -> Figure:
    """The sizes of the classes, largest first: named bars with their numbers, or, of more classes than have room for
    names, points on a logarithmic axis with the borders of the groups."""
    order = np.argsort(-np.asarray(class_counts), kind="stable")
    counts = np.asarray(class_counts)[order]
    title = f"{name}: {counts.sum():,} training images in {len(counts):,} classes"
    if len(counts) <= min(MOST_NAMES, len(class_names)):
        return _size_bars(title, counts, [short(class_names[c], 24) for c in order])
    figure, (ax,) = plots.axes(above=0.4)
    ax.scatter(np.arange(1, len(counts) + 1), counts, s=12 if len(counts) > 60 else 22)
    ax.set(xlabel="classes, largest first", ylabel="training images (logarithmic axis)", yscale="log", title=title)
    ax.set_xlim(0.4, len(counts) + 0.6)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    plots.number_ticks(ax.yaxis)
    few, many = plots.BORDERS
    for border, text, side in ((few, f"few: fewer than {few}", "top"), (many, f"many: more than {many}", "bottom")):
        if counts.min() < border < counts.max():
            ax.axhline(border, color=SOFT, linestyle=":", linewidth=1)
            ax.annotate(text, (1, border), xycoords=("axes fraction", "data"), va=side, ha="right")
    return figure


def _size_bars(title: str, counts: np.ndarray, names: Sequence[str]) -> Figure:
    """Bars that begin at 0, each with its number above and its class below."""
    slanted = max(map(len, names)) * len(names) > 80  # letters that stand side by side
    figure, (ax,) = plots.axes(height=4.4 if slanted else 3.6, below=1.3 if slanted else 0.5, above=0.4, left=0.9)
    places = np.arange(len(counts))
    ax.bar(places, counts, width=0.8)
    for place, count in zip(places, counts, strict=True):
        ax.text(place, count, f"{count:,}", ha="center", va="bottom", fontsize=9)
    turned: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
    ax.set_xticks(places, names, **turned)
    ax.set(ylabel="training images", ylim=(0, 1.08 * counts.max()), title=title)
    ax.grid(axis="x", visible=False)
    return figure
