"""What a run promises: prediction sets, predictions that are left to a person, images unlike those of training."""

from collections.abc import Iterable, Sequence
from typing import Any

from ncl_jax.report.charts import percent
from ncl_jax.report.html import Html, paragraph, table

GROUPS = ("many", "medium", "few")
SOURCES = {
    "out-of-fold scores": "training images, each scored by heads that had not seen it", "val split": "val images",
}  # fmt: skip
NAMES = {"marginal": "over all images", "macro": "as a mean over classes"}


def section(results: dict) -> Html:
    """The section of a page; nothing for a run that nothing could be calibrated for."""
    found = results.get("trust")
    if not found:
        return Html()
    return Html("".join([
        "<h2>What it promises</h2>", *_sets(found), *_selective(found["selective"]), *_unlike(found["unlike"]),
        paragraph("The shares are measured on the test images. The promise over all images is for the mix of classes "
                  "in training: where the test images have another one, it may not hold for them (docs/trust.md)."),
    ]))  # fmt: skip


def _sets(found: dict[str, Any]) -> list[Html]:
    wanted, (low, high) = percent(found["coverage"], 0), found["range"]
    number, source = found["number"], SOURCES.get(found["source"], found["source"])
    said = (
        f"For each image the set of classes that holds the true one in {wanted} % of the cases. Calibrated on "
        f"{number:,} {source}: for images with the mix of classes in training, what is promised over all images lies "
        f"between {percent(low)} and {percent(high)} % with a probability of 90 %."
    )
    if found["without_promise"]:
        said += (
            f" {found['without_promise']} classes have too few of these images for a promise of their own: the promise "
            "is about all classes together."
        )
    groups = _several(name for name in GROUPS if found["sets"]["marginal"][name]["coverage"] is not None)
    heads = ("promised", "true class in the set", "mean over classes", *groups, "classes under a half",
             "classes in a set", *(f"of {name}" for name in groups))  # fmt: skip
    rows = [(f"{wanted} % {words}", *_row(found["sets"][promise], groups)) for promise, words in NAMES.items()]
    curve = [(f"{percent(of['promised'], 0)} %", _share(of["coverage"]), _size(of["size"])) for of in found["curve"]]
    return [
        Html("<h3>Prediction sets</h3>"), paragraph(said), table(heads, rows, first=-1),
        table(("promised over all images", "true class in the set", "classes in a set"), curve, first=-1),
    ]  # fmt: skip


def _row(of: dict[str, Any], groups: Sequence[str]) -> list[str]:
    shares = [of["coverage"], of["macro"], *(of[name]["coverage"] for name in groups), of["below_half"]]
    return [*map(_share, shares), *(_size(part["size"]) for part in (of, *(of[name] for name in groups)))]


def _selective(lines: Sequence[dict[str, Any]]) -> list[Html]:
    if not lines:
        return []
    words = (
        "Accuracy where the least certain predictions are left to a person. One limit holds for all images, so that "
        "one group of classes may lose more of them than another."
    )
    groups = _several(name for name in GROUPS if lines[0][name]["refused"] is not None)
    heads = ("answered", "accuracy", *(f"{name} (left to a person)" for name in groups))
    rows = [
        (f"{percent(of['answered'], 0)} %", _share(of["accuracy"]),
         *(f"{_share(of[name]['accuracy'])} ({_share(of[name]['refused'])})" for name in groups))
        for of in lines
    ]  # fmt: skip
    return [Html("<h3>If a person decides the uncertain ones</h3>"), paragraph(words), table(heads, rows, first=-1)]


def _unlike(found: dict[str, Any] | None) -> list[Html]:
    if not found:
        return []
    groups = _several(name for name in GROUPS if found[name] is not None)
    shares = ", ".join(f"{_share(found[name])} of {name}" for name in groups)
    by_group = f" ({shares})" if shares else ""
    level = percent(found["level"], 0)
    words = (
        f"{_share(found['all'])} of the test images are unlike anything in training at the {level} % level{by_group}; "
        f"about {level} % would be by chance. Images of classes that look like known ones are not found in this way."
    )
    return [Html("<h3>Unlike anything in training</h3>"), paragraph(words)]


def _several(groups: Iterable[str]) -> list[str]:
    """Groups of classes; none where all classes are in one, whose figures are those of all."""
    found = list(groups)
    return found if len(found) > 1 else []


def _share(value: float | None) -> str:
    return "-" if value is None else f"{percent(value)} %"


def _size(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
