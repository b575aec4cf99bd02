"""The figures of a run as a text table."""

import math

import numpy as np

GROUPED = ("accuracy", "many", "medium", "few")
COLUMNS = ("accuracy", "many", "medium", "few", "nll", "ece")


def table(results: dict) -> str:
    """The final figures as a text table: accuracies in %, NLL in nats, ECE in %.

    Args:
      results: the content of `results.json` (`ensemble`, `experts`, `best_on_test`).
    """
    lines = ["{:<18}{:>10}{:>8}{:>8}{:>8}{:>8}{:>8}".format("", "accuracy", "many", "medium", "few", "NLL", "ECE")]
    lines += [f"{name:<18}" + "".join(_cell(key, row[key]) for key in COLUMNS) for name, row in predictors(results)]
    if means := class_means(results):
        lines.append(f"{'mean of classes':<18}" + "".join(_cell(key, means[key]) for key in GROUPED) + "   ensemble")
    if results.get("disagreement"):
        kl, top1 = results["disagreement"]["kl"], results["disagreement"]["top1"]
        lines.append(_disagreement_line("top-1 differs", top1, 100))
        lines.append(_disagreement_line("KL (nats)", kl, 1))
    lines += _baseline_lines(results)
    if results.get("best_on_test"):
        best = results["best_on_test"]
        lines.append(
            f"best on the test set: {100 * best['accuracy']:.2f} % after epoch {best['epoch']}, for reference only"
        )
    return "\n".join(lines)


def _baseline_lines(results):
    """What simple classifiers reach on the same features, and whether the run is worse than one of them."""
    found = results.get("baselines") or {}
    if not found:
        return []
    columns = COLUMNS[: COLUMNS.index("nll")]
    rows = [f"{name:<26}{_cell('accuracy', row['accuracy'])[2:]}" + "".join(_cell(c, row[c]) for c in columns[1:])
            for name, row in found.items()]  # fmt: skip
    return ["on the same features:", *rows, *filter(None, [worse_than(results)])]


def worse_than(results: dict) -> str:
    """A sentence where a simple classifier on the same features is better than the run; empty where none is."""
    found, own = results["baselines"], results["ensemble"]["accuracy"]
    best = max(found, key=lambda name: found[name]["accuracy"])
    if own >= found[best]["accuracy"]:
        return ""
    pair = f"{100 * own:.2f} % against {100 * found[best]['accuracy']:.2f} %"
    return f"the run is worse than a simple classifier on the same features ({best}): {pair}"


def predictors(results: dict) -> list[tuple[str, dict]]:
    """The rows of the table by name: the ensemble, every expert, their mean and the best of them."""
    experts = results["experts"]
    rows = [("ensemble", results["ensemble"])]
    rows += [(f"expert {i}", expert) for i, expert in enumerate(experts)]
    if len(experts) > 1:
        best = max(range(len(experts)), key=lambda i: experts[i]["accuracy"])
        rows += [("mean expert", mean_expert(experts)), (f"best expert ({best})", experts[best])]
    return rows


def class_means(results: dict) -> dict | None:
    """The ensemble's accuracies as means over classes, where they differ from those over images: where classes have
    test sets of different sizes. None where they are the same, and for results of before they were computed."""
    means, ensemble = results.get("class_means", {}).get("ensemble"), results["ensemble"]
    differ = means and any(not _same(means[key], ensemble[key]) for key in GROUPED)
    return means if differ else None


def _same(left, right):
    return left is right or (None not in (left, right) and math.isclose(left, right, abs_tol=1e-9))


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
    """The mean over experts of each figure of `COLUMNS`, None for an empty group."""
    mean = {}
    for key in COLUMNS:
        values = [expert[key] for expert in experts]
        mean[key] = None if None in values else float(np.mean(values))
    return mean
