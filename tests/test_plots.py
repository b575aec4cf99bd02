"""The plots of a finished run, read back from matplotlib's figures."""

import warnings

import numpy as np
import pytest

from ncl_jax.config import base_config
from ncl_jax.methods import terms
from ncl_jax.report import charts

PICTURES = True
NAMES = ("T-shirt/top", "Pullover", "Sneaker", "Trouser", "Bag", "Ankle boot", "Dress", "Sandal", "Coat", "Shirt")
COUNTS = (500, 299, 179, 107, 64, 38, 23, 13, 8, 5)  # the embedded data's
NCL = {"contrast": 14.0, "nbod": 0.1, "nbod_hard": 0.05, "nil": 2.0, "nil_hard": 0.4}


@pytest.fixture(autouse=True)
def no_warnings():
    """Matplotlib warns of a layout that does not fit and of an empty legend."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def metrics(epochs, parts, few=0.2, every=1):
    """A run's `metrics.jsonl`, as `read_metrics` gives it."""
    records = []
    for epoch in range(1, epochs + 1):
        records.append({"kind": "train", "epoch": epoch, "parts": {k: v / epoch for k, v in parts.items()}})
        if epoch % every == 0:
            ensemble = {"accuracy": 0.5, "many": 0.8, "medium": 0.6, "few": few}
            records.append({"kind": "evaluation", "epoch": epoch, "ensemble": ensemble})
    return records


def results(counts=COUNTS, num_experts=3):
    """What the plots need of `results.json`; expert e is e + 1 points below 90 % on every class."""
    experts = [{"per_class": [0.89 - 0.01 * e] * len(counts)} for e in range(num_experts)]
    ensemble = {"per_class": np.linspace(0.9, 0, len(counts)).tolist()}
    config = base_config().to_dict()
    return {"class_counts": list(counts), "ensemble": ensemble, "experts": experts, "config": config}


def legend(owner):
    return [text.get_text() for text in owner.get_texts()]


def shown_ticks(axis):
    """Labels of the ticks within the panel."""
    low, high = axis.get_view_interval()
    return [tick.label1.get_text() for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]


def borders(ax):
    return [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == ":"]


def texts(ax):
    return [text.get_text() for text in ax.texts]


@pytest.mark.parametrize("epochs", [1, 2, 3, 4, 20, 200])
def test_epochs_are_whole_numbers_and_every_line_has_markers(epochs):
    figure = charts.curves(metrics(epochs, NCL, every=min(epochs, 4)))
    figure.draw_without_rendering()
    for ax in figure.axes:
        ticks = shown_ticks(ax.xaxis)
        assert ticks and all(label.isdigit() for label in ticks)
        assert all(line.get_marker() == "." for line in ax.lines)
    assert [len(line.get_xdata()) for line in figure.axes[0].lines] == [epochs] * 5


def test_terms_are_named_in_words_and_in_the_table_s_order():
    left, right = charts.curves(metrics(3, NCL | {"own": 0.3, "unused": 0.0})).axes
    assert legend(left.get_legend()) == [terms.WORDS[name] for name in terms.WORDS if name in NCL] + ["own"]
    by_label = {line.get_label(): line.get_ydata()[0] for line in left.lines}
    assert by_label[terms.WORDS["contrast"]] == 14.0 and by_label[terms.WORDS["nil"]] == 2.0
    assert legend(right.get_legend()) == ["all", "many", "medium", "few"]


def test_a_group_without_classes_has_no_curve():
    _, right = charts.curves(metrics(2, NCL, few=None)).axes
    assert legend(right.get_legend()) == ["all", "many", "medium"]


def test_names_borders_and_groups_of_the_embedded_data():
    figure = charts.per_class(results(), NAMES)
    figure.draw_without_rendering()
    (ax,) = figure.axes
    assert texts(ax) == ["few", "medium", "many", *reversed(NAMES)]
    assert borders(ax) == [20, 100]
    assert shown_ticks(ax.xaxis) == ["5", "10", "20", "50", "100", "200", "500"]
    assert legend(figure.axes[0].get_legend()) == ["ensemble", "mean expert"]
    np.testing.assert_allclose(ax.collections[1].get_offsets(), [(count, 88) for count in COUNTS])
    for text in ax.texts:
        box = text.get_window_extent()
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    for group in ax.texts[:3]:
        box = group.get_window_extent()
        assert not any(box.x0 <= ax.transData.transform((border, 0))[0] <= box.x1 for border in borders(ax))


@pytest.mark.parametrize("counts", [COUNTS, [500] * 20, [500] * 10 + [5] * 10, [*range(30, 10, -1)]])
def test_names_do_not_overlap(counts):
    figure = charts.per_class(results(counts), (NAMES * 2)[: len(counts)])
    figure.draw_without_rendering()
    names = figure.axes[0].texts[-len(counts) :]
    starts = np.array([name.get_transform().transform(name.get_position()) for name in names])
    assert len(set(starts[:, 1])) == 1  # they are parallel, so that their distance follows from where they start
    distances = np.diff(starts[:, 0]) * np.sin(np.deg2rad(names[0].get_rotation())) * 72 / figure.dpi
    assert distances.min() >= names[0].get_fontsize()


@pytest.mark.parametrize(
    ("counts", "expected_groups", "expected_borders"),
    [
        ((5000, 700, 100, 50), ["medium", "many"], [100]),
        ((101, 100), ["medium", "many"], [100]),
        ((100, 20), ["medium"], []),
        ((20, 19), ["few", "medium"], [20]),
        ((9, 6, 3, 2), ["few"], []),
        ((500, 500, 500), ["many"], []),
        ((500, 5), ["few", "medium", "many"], [20, 100]),
        ((500, 5, 0), ["few", "medium", "many"], [20, 100]),  # no place for 0 on the axis, nor for its name
    ],
)
def test_groups_are_marked_where_there_are_classes_on_both_sides(counts, expected_groups, expected_borders):
    figure = charts.per_class(results(counts), NAMES[: len(counts)])
    figure.draw_without_rendering()
    (ax,) = figure.axes
    shown = np.count_nonzero(counts)
    assert texts(ax)[:-shown] == expected_groups and sorted(texts(ax)[-shown:]) == sorted(NAMES[:shown])
    assert borders(ax) == expected_borders
    assert shown_ticks(ax.xaxis) and all(float(label) for label in shown_ticks(ax.xaxis))


def test_a_single_expert_and_many_classes():
    counts = np.geomspace(500, 5, 100).astype(int).tolist()
    figure = charts.per_class(results(counts, 1), [f"class {c}" for c in range(100)])
    assert texts(figure.axes[0]) == ["few", "medium", "many"]
    assert figure.axes[0].get_legend() is None


def test_odd_names_and_a_class_without_test_images():
    content = results(COUNTS[:3])
    for predictor in (content["ensemble"], *content["experts"]):
        predictor["per_class"][1] = None
    figure = charts.per_class(content, ["$a_", "b$^{", "great white shark, man-eating shark"])
    figure.draw_without_rendering()
    assert texts(figure.axes[0])[1:] == ["great white shark, man-…", "$a_"]
    for predictor in (content["ensemble"], *content["experts"]):
        predictor["per_class"] = [None] * 3
    charts.per_class(content, ["a", "b", "c"]).draw_without_rendering()
