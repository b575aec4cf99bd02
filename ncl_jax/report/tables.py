"""The figures of a run as a text table."""

import math
from collections.abc import Iterable

import numpy as np

from ncl_jax.models import FROZEN
from ncl_jax.trust.intervals import wilson

GROUPED = ("accuracy", "many", "medium", "few")
COLUMNS = ("accuracy", "many", "medium", "few", "nll", "ece")
MEANS = {"classes": "mean of classes", "f1": "macro F1"}  # beside the accuracy
HEADS = {"accuracy": "accuracy", **MEANS, "many": "many", "medium": "medium", "few": "few", "nll": "NLL", "ece": "ECE"}
SHOWN = 0.0005  # 0.05 %, or thousandths of a nat: differences below it are rounded away
_HEAD = "--config.model.classifier=linear --config.model.standardize=True --config.model.head_start=random"
SAME_HEAD = {  # what trains a head that is much the same as a simple classifier
    "linear, cross-entropy": f"method=ce and {_HEAD}",
    "linear, balanced softmax": f"method=balanced_softmax and {_HEAD}",
}
CONFIDENT = 1.96  # standard errors that a difference exceeds by chance in one case of 20
UNEQUAL = 1.5  # the largest class's test images over those of the smallest, above which the mean of classes comes first


def table(results: dict) -> str:
    """The final figures as a text table: accuracies in %, NLL in nats, ECE in %.

    Args:
      results: the content of `results.json` (`ensemble`, `experts`, `best_on_test`).
    """
    shown = _keys(results)
    wide = [max(8, len(HEADS[key]) + 2) for key in shown]
    lines = [" " * 18 + "".join(f"{HEADS[key]:>{width}}" for key, width in zip(shown, wide, strict=True))]
    for name, cells in columns(results)[: 1 if coincide(results) else None]:
        lines.append(f"{name:<18}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, wide, strict=True)))
    places = digits_of(results)
    if (means := class_means(results)) and groups_of(means):
        cells = [f"{name} {_cell(name, means[name], places)}" for name in groups_of(means)]
        lines.append("groups as means of classes: " + ", ".join(cells))
    if coincide(results):
        lines.append(why_they_coincide(results))
    elif results.get("disagreement"):
        kl, top1 = results["disagreement"]["kl"], results["disagreement"]["top1"]
        lines.append(_disagreement_line("experts disagree %", top1, 100))
        lines.append(_disagreement_line("KL (nats)", kl, 1))
    lines += [line for line in (untested(results), blind(results), other_prior(results)) if line]
    lines += _baseline_lines(results)
    if results.get("best_on_test"):
        best = results["best_on_test"]
        share = f"{100 * best['accuracy']:.{places}f} %"
        lines.append(f"best on the test set: {share} after epoch {best['epoch']}, for reference only")
    return "\n".join(lines)


def _keys(results: dict) -> list[str]:
    """The columns: what counts most comes first; means over classes where they are known."""
    known = [key for key in MEANS if _mean(results, 0, key) is not None]
    means_first = results.get("means_first", is_unequal(results))
    first = ["classes", "accuracy"] if "classes" in known and means_first else ["accuracy", "classes"]
    groups = groups_of(results["ensemble"])
    return [key for key in [*first, "f1", *groups, "nll", "ece"] if key in known or key not in MEANS]


def groups_of(row: dict) -> list[str]:
    """The groups of classes that have a figure; none where all classes are in one, whose figure is that of all."""
    known = [name for name in GROUPED[1:] if row.get(name) is not None]
    return known if len(known) > 1 else []


def heads(results: dict) -> list[str]:
    """The heads of the table for a page; accuracies and ECE are in %, NLL in nats."""
    return ["%", *(HEADS[key] + (" (nats)" if key == "nll" else "") for key in _keys(results))]


def columns(results: dict) -> list[tuple[str, list[str]]]:
    """The rows of the table, by the predictors' names, as texts."""
    shown, places = _keys(results), digits_of(results)
    return [(name, [_cell(key, row.get(key), places) for key in shown]) for name, row in predictors(results)]


def _mean(results, index, key):
    """A mean over classes of predictor `index`, the ensemble first; None where it is not known."""
    means = results.get("class_means")
    of = [means["ensemble"], *means["experts"]] if means else []
    return of[index].get({"classes": "accuracy"}.get(key, key)) if index < len(of) else None


def digits_for(images: int) -> int:
    """Decimals of a share of so many images in percent."""
    return (images >= 100) + (images >= 5000)


def digits_of(results: dict) -> int:
    """Decimals of a run's accuracies: two for results of before the test images were counted."""
    return digits_for(sum(results["test_counts"])) if results.get("test_counts") else 2


def is_unequal(results: dict) -> bool:
    """Whether the test set is not balanced: the mean over classes says more than the share of all images."""
    counts = [count for count in results.get("test_counts", ()) if count]
    return bool(counts) and max(counts) > UNEQUAL * min(counts)


def mean_of_classes(results: dict) -> float | None:
    """The ensemble's mean over classes where it comes first, and is known; None otherwise."""
    return _mean(results, 0, "classes") if is_unequal(results) else None


def untested(results: dict) -> str:
    """What means are over, where classes have no test image; empty otherwise."""
    counts = results.get("test_counts") or [1]
    there = sum(count > 0 for count in counts)
    return (
        ""
        if there == len(counts)
        else f"means of classes and macro F1 are over the {there} of {len(counts)} classes with images"
    )


def blind(results: dict) -> str:
    """What is reached without looking at the images, where the test set is not balanced; empty otherwise."""
    if not is_unequal(results):
        return ""
    tested, training = np.asarray(results["test_counts"]), np.asarray(results["class_counts"])
    share, chance = tested[training.argmax()] / tested.sum(), 1 / (tested > 0).sum()
    return (
        f"without looking at the images: always naming the largest class is right for {100 * share:.1f} % of them, "
        f"{100 * chance:.1f} % as a mean of classes; guessing among the tested classes, for {100 * chance:.1f} %"
    )


def other_prior(results: dict) -> str:
    """A sentence where the training images' class shares would give more right answers; empty otherwise."""
    moved, own = results.get("moved"), results["ensemble"]["accuracy"]
    mean = _mean(results, 0, "classes")
    if not moved or mean is None or not is_unequal(results):
        return ""
    number, places = sum(results["test_counts"]), digits_of(results)
    if moved["accuracy"] <= float(wilson(own * number, number)[1]):
        return ""
    shares = f"{100 * moved['accuracy']:.{places}f} % of the images instead of {100 * own:.{places}f} %"
    means = f"{100 * moved['class_mean']:.{places}f} % instead of {100 * mean:.{places}f} % as a mean of classes"
    return (
        "the classes of the test set are not equally frequent: with --prior=train, which expects them to be as "
        f"frequent as in training, the model is right for {shares}, and {means}: the balanced scores answer another "
        "question"
    )


def _baseline_lines(results):
    """What simple classifiers reach on the frozen features, and whether the run is worse than one of them."""
    heads, rows = baselines(results)
    if not rows:
        return []
    wide = [max(8, len(head) + 2) for head in heads]
    lines = [
        f"{name:<26}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, wide, strict=True))
        for name, cells in [("on the frozen features:", heads), *rows]
    ]
    return [*lines, *filter(None, [worse_than(results)])]


def baselines(results: dict) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The heads and the rows, by name, of the simple classifiers on the frozen features, the best first."""
    found, places, leading = results.get("baselines") or {}, digits_of(results), _leading(results)
    keys = ["classes"] * (leading == "classes") + ["accuracy", *groups_of(results["ensemble"])]
    rows = {name: row | {"classes": _of_classes(row)} for name, row in found.items()}
    order = sorted(rows, key=lambda name: -(rows[name][leading] or 0))
    return [HEADS[key] for key in keys], [
        (name, [_cell(key, rows[name][key], places) for key in keys]) for name in order
    ]


def _of_classes(row):
    """The mean over classes of a row's accuracies."""
    known = [share for share in row.get("per_class", ()) if share is not None]
    return float(np.mean(known)) if known else None


def _leading(results):
    """The figure by which runs are compared."""
    there = all("per_class" in row for row in (results.get("baselines") or {}).values())
    return "classes" if mean_of_classes(results) is not None and there else "accuracy"


def worse_than(results: dict) -> str:
    """A sentence where a simple classifier on the frozen features is better than the run by more than chance, and what
    trains that one; empty where none is."""
    found, key, places = results.get("baselines") or {}, _leading(results), digits_of(results)
    if not found:
        return ""
    of = {name: (_of_classes(row) if key == "classes" else row["accuracy"]) or 0 for name, row in found.items()}
    best = max(of, key=lambda name: of[name])
    own = _mean(results, 0, "classes") if key == "classes" else results["ensemble"]["accuracy"]
    if of[best] - own <= _chance(results, found[best], key):
        return ""
    pair = f"{100 * own:.{places}f} % against {100 * of[best]:.{places}f} %" + " as a mean of classes" * (
        key == "classes"
    )
    trained = f". ncl-jax train with {SAME_HEAD[best]} trains that one" if best in SAME_HEAD else ""
    return f"the run is worse than a simple classifier on the frozen features ({best}): {pair}{trained}"


def _chance(results, row, key):
    """The difference between the run and another classifier that other test images would make, at 95 %; as if they were
    not the same images for both, which is the more careful. 0 for results of before the test images were counted."""
    counts = np.array(results.get("test_counts", ()), float)
    if not counts.sum():
        return 0.0
    pairs: Iterable[tuple[float | None, float | None]] = [(results["ensemble"]["accuracy"], row["accuracy"])]
    if key == "classes":
        pairs = zip(results["ensemble"]["per_class"], row["per_class"], strict=True)
    spread = np.array([sum(p * (1 - p) for p in pair if p is not None) for pair in pairs])
    if key == "classes":
        there = counts > 0
        return CONFIDENT * float(np.sqrt((spread[there] / counts[there]).sum())) / int(there.sum())
    return CONFIDENT * math.sqrt(spread.sum() / counts.sum())


def predictors(results: dict) -> list[tuple[str, dict]]:
    """The rows of the table by name: the ensemble, every expert, their mean and the best of them; the ensemble alone
    where its experts coincide; of a single network its row alone, and that of the ensemble that it learned from."""
    rows = [
        row | {key: _mean(results, index, key) for key in MEANS}
        for index, row in enumerate([results["ensemble"], *results["experts"]])
    ]
    ensemble, *experts = rows
    if coincide(results):
        return [("ensemble", ensemble)]
    if len(experts) == 1:
        teacher = results.get("teacher")
        return [("student", ensemble), ("its teacher", teacher)] if teacher else [("the network", ensemble)]
    named = [("ensemble", ensemble), *((f"expert {i}", expert) for i, expert in enumerate(experts))]
    best = max(range(len(experts)), key=lambda i: experts[i]["accuracy"])
    return [*named, ("mean expert", mean_expert(experts)), (f"best expert ({best})", experts[best])]


def coincide(results: dict) -> bool:
    """Whether a run has several experts that give the same answers, but for less than a table shows."""
    differ = results.get("disagreement")
    if len(results["experts"]) < 2 or not differ:
        return False
    return all(differ[kind]["all"] is not None and differ[kind]["all"] < SHOWN for kind in ("kl", "top1"))


def why_they_coincide(results: dict) -> str:
    """A sentence on experts that give the same answers."""
    frozen = results.get("config", {}).get("model", {}).get("freeze") == FROZEN
    why = (
        ": on frozen features all learn the same; model.num_experts=1 reaches the same for a part of the training"
        if frozen
        else ""
    )
    return f"the {len(results['experts'])} experts give the same answers{why}; the ensemble stands for each of them"


def ensemble(results: dict) -> dict:
    """The ensemble's figures, those of the table alone."""
    row = results["ensemble"] | {key: _mean(results, 0, key) for key in MEANS}
    return {key: row[key] for key in (*COLUMNS, *MEANS)}


def class_means(results: dict) -> dict | None:
    """The ensemble's accuracies as means over classes, where they differ from those over images: where classes have
    test sets of different sizes. None where they are the same, and for results of before they were computed."""
    means, ensemble = results.get("class_means", {}).get("ensemble"), results["ensemble"]
    differ = means and any(not _same(means[key], ensemble[key]) for key in GROUPED)
    return means if differ else None


def _same(left, right):
    return left is right or (None not in (left, right) and math.isclose(left, right, abs_tol=1e-9))


def _cell(key, value, places=2):
    if value is None:
        return "-"
    return f"{value:.3f}" if key == "nll" else f"{100 * value:.{places}f}"


def _disagreement_line(name, figures, scale):
    digits = 1 if scale == 100 else 3
    cells = {key: figures[key] for key in ("all", *GROUPED[1:]) if figures[key] is not None}
    return f"{name:<20}" + ", ".join(f"{key} {scale * cell:.{digits}f}" for key, cell in cells.items())


def mean_expert(experts: list[dict]) -> dict:
    """The mean over experts of each figure, None for an empty group and for what is not known."""
    mean = {}
    for key in (*COLUMNS, *MEANS):
        values = [expert[key] for expert in experts if expert.get(key) is not None]
        mean[key] = float(np.mean(values)) if len(values) == len(experts) else None
    return mean
