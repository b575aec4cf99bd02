"""The plots of a run as pictures: its course, and its accuracy by class."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from ncl_jax.data import longtail

# The parts of the losses (`losses.py`, `methods/`) in the words of the plots; others are shown by their own names.
PARTS = {
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
_GROUPS, BORDERS = ("few", "medium", "many"), (20, 100)  # training images, see `longtail.groups`
_MOST_NAMES = 20  # classes; the names of more have no room
_BOTTOM, _TOP = -3, 112  # of the accuracies by class, with room for the names of the groups


def axes(width: float = 7.0, panels: int = 1) -> tuple[Figure, np.ndarray]:
    """A figure, `width` inches wide, and its row of panels, without a screen."""
    figure = Figure(figsize=(width, 4), layout="constrained")
    row = figure.subplots(1, panels, squeeze=False)[0]
    for ax in row:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.3)
    return figure, row


def curve_figure(records: list[dict], balanced: bool) -> Figure:
    """Two panels over the epochs: the loss by part, and the ensemble's accuracy, overall and by group of classes.

    Args:
      records: the objects of `metrics.jsonl`.
      balanced: the configuration's `loss.balanced`; without it, a loss of nothing but `nil` is plain cross-entropy.
    """
    epochs = [r["epoch"] for r in records] or [1]  # the file may have been damaged or lost
    figure, (left, right) = axes(11, 2)
    figure.set_figheight(4.8)  # the legends are below the panels
    _plot_parts(left, [r for r in records if r["kind"] == "train"], balanced)
    _plot_accuracy(right, [r for r in records if r["kind"] == "evaluation"])
    first, last = min(epochs), max(epochs)
    margin = max(0.5, 0.03 * (last - first))
    for ax, columns in ((left, 2), (right, 4)):
        ax.set(xlabel="epoch", xlim=(first - margin, last + margin))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
        if ax.lines:
            place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14)}
            ax.legend(frameon=False, fontsize=9, ncols=columns, columnspacing=1.2, **place)
    return figure


def _plot_parts(ax: Axes, training: list[dict], balanced: bool) -> None:
    used = {part for record in training for part, value in record["parts"].items() if value}  # the others are left out
    for part in [*(part for part in PARTS if part in used), *sorted(used - PARTS.keys())]:
        values = [record["parts"].get(part, np.nan) for record in training]
        _plot_line(ax, training, values, part_label(part, used, balanced))
    ax.set(ylabel="training loss by part (nats)", yscale="log")
    number_ticks(ax.yaxis)


def part_label(part: str, used: Collection[str], balanced: bool) -> str:
    """A part of the loss in words; `used` are all parts of it, `balanced` is the configuration's `loss.balanced`."""
    return "cross-entropy" if set(used) == {"nil"} and not balanced else PARTS.get(part, part)


def number_ticks(axis: Axis) -> None:
    """Plain numbers on a logarithmic axis: 1, 2, 5, 10, ..., or all digits if there is little more than one decade."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 12 * low else range(1, 10)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def _plot_accuracy(ax: Axes, evaluations: list[dict]) -> None:
    for name in ("accuracy", "many", "medium", "few"):
        values = [record["ensemble"][name] for record in evaluations]
        if values and None not in values:  # a group without a class
            _plot_line(ax, evaluations, 100 * np.asarray(values), "all" if name == "accuracy" else name)
    ax.set(ylabel="test accuracy of the ensemble (%)")


def _plot_line(ax, records, values, label):
    size = 6 if len(records) <= 50 else 3
    ax.plot([record["epoch"] for record in records], values, marker=".", markersize=size, label=label)


def per_class_figure(results: dict, class_names: Sequence[str]) -> Figure:
    """Test accuracy of every class against its number of training images: the ensemble and the mean expert.

    Args:
      results: the content of `results.json`.
      class_names: C names, shown above the panel unless there are too many.
    """
    shown = [index for index, count in enumerate(results["class_counts"]) if count]  # the axis has no place for 0
    counts = np.asarray(results["class_counts"])[shown]
    predictors = [results["ensemble"], *results["experts"]]
    ensemble, *experts = (100 * np.asarray(predictor["per_class"], float)[shown] for predictor in predictors)
    figure, (ax,) = axes()
    ax.scatter(counts, ensemble, s=22, label="ensemble")
    if len(experts) > 1:
        ax.scatter(counts, np.mean(experts, axis=0), s=22, marker="x", label="mean expert")
    ax.set(xlabel="training images of the class", ylabel="test accuracy (%)", xscale="log", ylim=(_BOTTOM, _TOP))
    ax.set_yticks(range(0, 101, 20))
    number_ticks(ax.xaxis)
    _mark_groups(ax, counts)
    if len(class_names) <= _MOST_NAMES:
        figure.set_figheight(4.8)
        _name_classes(ax, counts, ensemble, [class_names[index] for index in shown])
    figure.legend(frameon=False, ncols=2, loc="outside lower center")
    return figure


def _mark_groups(ax: Axes, counts: np.ndarray) -> None:
    """The names of the groups of classes that the counts reach into, and dotted borders between them."""
    low, high = ax.get_xlim()
    ends = longtail.groups(np.array([counts.min(), counts.max()]), "papers")
    first, last = np.argmax([ends[name] for name in _GROUPS], axis=0)
    borders = BORDERS[first:last]
    for border in borders:
        ax.axvline(border, color="0.4", linestyle=":", linewidth=1)
    edges = [low, *borders, high]
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    for name, left, right in zip(_GROUPS[first : last + 1], edges[:-1], edges[1:], strict=True):
        ax.text((left * right) ** 0.5, 107, name, color="0.4", fontsize=9, ha="center", va="center", bbox=box)
    ax.set_xlim(low, high)


def _name_classes(ax: Axes, counts: np.ndarray, accuracy: np.ndarray, class_names: Sequence[str]) -> None:
    """Slanted names above the panel, each with a thin line down to its class."""
    low, high = np.log(ax.get_xlim())
    order = np.argsort(counts, kind="stable")
    across = (np.log(counts[order]) - low) / (high - low)
    up = (accuracy[order] - _BOTTOM) / (_TOP - _BOTTOM)
    frame: dict[str, Any] = {"transform": ax.transAxes, "clip_on": False}
    for index, x, y, place in zip(order, across, up, _spread(across, 0.04), strict=True):
        ax.plot([x, x, place], [y, 1, 1.03], color="0.8", linewidth=0.8, zorder=0, **frame)
        name = class_names[index].encode("utf-8", "replace").decode()
        name = name if len(name) <= 24 else name[:23] + "…"
        ax.text(place, 1.05, name, fontsize=9, rotation=40, rotation_mode="anchor", parse_math=False, **frame)


def _spread(wanted: np.ndarray, gap: float) -> np.ndarray:
    """Rising places in [0, 1], near the wanted ones, that keep the gap between neighbours."""
    steps = gap * np.arange(len(wanted))
    upwards = np.maximum.accumulate(wanted - steps)
    downwards = np.minimum.accumulate((wanted - steps)[::-1])[::-1]
    return np.clip((upwards + downwards) / 2 + steps, steps, 1 - steps[::-1])
