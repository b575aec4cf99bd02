"""The page of several runs on the same data: means and spreads over seeds, and paired differences."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from ncl_jax.config.fields import MAY_CHANGE, METHOD_FILE, flatten, identities
from ncl_jax.config.recipes import SCALED
from ncl_jax.errors import ConfigError
from ncl_jax.report import charts, comparable, glossary, plots, tables
from ncl_jax.report.content import RunContent
from ncl_jax.report.html import document, figure, folded, paragraph, table
from ncl_jax.report.page import MOST_BYTES, sections

COMPARED = ("accuracy", "many", "medium", "few")
TRAINED, IMAGES = "trained epochs", "training images"  # beside the configuration's fields


class Group(NamedTuple):
    """The runs of one configuration, whatever their seed."""

    name: str
    runs: list[RunContent]

    def values(self, figure: str) -> list[float | None]:
        """A figure of every run's ensemble, see `tables.ensemble`; `mean expert` is the accuracy of the mean expert."""
        if figure == "mean expert":
            return [tables.mean_expert(run.results["experts"])["accuracy"] for run in self.runs]
        return [tables.ensemble(run.results)[figure] for run in self.runs]

    def by_seed(self) -> dict[int, RunContent]:
        """The runs by their seed."""
        return {run.results["config"]["seed"]: run for run in self.runs}


def group(runs: Sequence[RunContent]) -> list[Group]:
    """The runs by configuration, in the order given, named by method and what else differs."""
    fields = [_fields(run) for run in runs]
    kinds: dict[tuple, list[RunContent]] = {}
    for run, values in zip(runs, fields, strict=True):
        kinds.setdefault(tuple(sorted((name, str(value)) for name, value in values.items())), []).append(run)
    for members in kinds.values():
        _check_seeds(members)
    groups = [Group(members[0].method, members) for members in kinds.values()]
    names = [one.name for one in groups]
    return [Group(_distinct(one, groups) if names.count(one.name) > 1 else one.name, one.runs) for one in groups]


def _check_seeds(members: Sequence[RunContent]) -> None:
    """Raises ConfigError where two runs of one configuration have the same seed: they would count twice."""
    seen: dict[int, str] = {}
    for run in members:
        seed = run.results["config"]["seed"]
        if seed in seen:
            raise ConfigError(
                f"{seen[seed]} and {run.name} have the same configuration and seed {seed}: pass one of them"
            )
        seen[seed] = run.name


def _fields(run: RunContent) -> dict:
    (config,) = identities(flatten(run.config))
    fields = {name: value for name, value in config.items() if name != "seed" and not name.startswith(MAY_CHANGE)}
    images = f"{run.facts.num_train} ({str(run.results.get('rows_checksum'))[:6]})"
    return fields | {TRAINED: run.results["epoch"], IMAGES: images}


def _distinct(one: Group, groups: Sequence[Group]) -> str:
    """The method's name and the fields by which it differs from others of the same."""
    own, others = _fields(one.runs[0]), [_fields(g.runs[0]) for g in groups if g.name == one.name]
    differing = [name for name in own if name != METHOD_FILE and any(_tells(name, own, other) for other in others)]
    return f"{one.name}, " + " ".join(f"{name}={own[name]}" for name in differing[:3])


def _tells(name: str, own: dict, other: dict) -> bool:
    """Whether two runs differ in a field, and not only because it goes with their epochs."""
    return other.get(name) != own[name] and not (name in (TRAINED, *SCALED) and other["epochs"] != own["epochs"])


def spread(values: Sequence[float | None], digits: int = 1) -> str:
    """Mean ± standard deviation in percent; a dash where a figure is missing."""
    known = [100 * value for value in values if value is not None]
    if not known or len(known) < len(values):
        return "-"
    deviation = f" ± {np.std(known, ddof=1):.{digits}f}" if len(known) > 1 else ""
    return f"{np.mean(known):.{digits}f}{deviation}"


def differences(one: Group, base: Group, figure: str) -> list[float | None]:
    """`one` minus `base` for every seed that both have."""
    mine, other = one.by_seed(), base.by_seed()
    pairs = [
        (tables.ensemble(mine[seed].results)[figure], tables.ensemble(other[seed].results)[figure])
        for seed in mine
        if seed in other
    ]
    return [None if None in pair else pair[0] - pair[1] for pair in pairs]


def page(runs: Sequence[RunContent], with_images: bool = True) -> str:
    """The page of several runs; `with_images`: see `page.page`. Raises ConfigError for runs on different data."""
    comparable.check_same_test_images(runs)
    groups = group(runs)
    title = f"{len(runs)} runs on {runs[0].data}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        paragraph(comparable.different_training(runs), "warn"),
        means(groups),
        paired(groups),
        f'<div class="pair">{strips(groups)}{lines(groups)}</div>',
    ]
    room = (MOST_BYTES - len("".join(parts))) // len(groups)
    for index, one in enumerate(groups):
        run = one.runs[0]
        heading = f"{one.name}: {run.name} in full"
        content = sections(run, f"run{index}", room, with_images)
        fits = sum(map(len, parts)) + len(content) < MOST_BYTES
        parts.append(folded(heading, content if fits else "No room here: ncl-jax report shows this run alone."))
    return document(title, "\n".join([*parts, glossary.section()]))


def means(groups: Sequence[Group]) -> str:
    """Every group's figures, mean ± standard deviation over its runs."""
    first = leading(groups)
    shown = [first, *(name for name in ("accuracy", "classes", "f1", "many", "medium", "few", "ece") if name != first)]
    shown = [name for name in [*shown, "mean expert"] if any(None not in one.values(name) for one in groups)]
    shown = [name for name in shown if name not in COMPARED[1:] or name in compared(groups)]
    heads = ("%", "runs", *(tables.HEADS.get(name, name) for name in shown))
    rows = [(one.name, str(len(one.runs)), *(spread(one.values(name)) for name in shown)) for one in groups]
    known = [[value for value in one.values(first) if value is not None] for one in groups]
    best = int(np.argmax([float(np.mean(values)) if values else -1.0 for values in known]))
    words = f"Mean ± standard deviation over runs that differ in their seed. In bold: the best {tables.HEADS[first]}."
    blind = tables.blind(groups[0].runs[0].results)
    return (
        "<h2>Mean and spread</h2>"
        + paragraph(words, "soft")
        + table(heads, rows, best)
        + paragraph(f"{blind[:1].upper()}{blind[1:]}." if blind else "")
    )


def compared(groups: Sequence[Group]) -> list[str]:
    """The accuracy, and that of the groups of classes, of which some run has several."""
    known = {name for one in groups for run in one.runs for name in tables.groups_of(run.results["ensemble"])}
    return [name for name in COMPARED if name == "accuracy" or name in known]


def leading(groups: Sequence[Group]) -> str:
    """The figure by which groups are compared: the mean of classes where the test set is not balanced."""
    known = all(tables.mean_of_classes(run.results) is not None for one in groups for run in one.runs)
    return "classes" if known else "accuracy"


def paired(groups: Sequence[Group]) -> str:
    """The differences to the first group, seed by seed."""
    base, rows = groups[0], []
    shown = compared(groups) if leading(groups) == "accuracy" else ["classes", *compared(groups)]
    for one in groups[1:]:
        found = {name: differences(one, base, name) for name in shown}
        if found["accuracy"]:
            rows.append((one.name, str(len(found["accuracy"])), *(spread(found[name]) for name in shown)))
    if not rows:
        return ""
    text = f"Each minus {base.name} with the same seed, in points; mean ± standard deviation over these pairs."
    heads = ("", "pairs", *(tables.HEADS[name] for name in shown))
    return "<h2>Paired differences</h2>" + paragraph(text, "soft") + table(heads, rows, -1)


def strips(groups: Sequence[Group]) -> str:
    """Every run's accuracy overall and by group of classes."""
    shown = compared(groups)
    rows = [(one.name, [run.name for run in one.runs], {name: one.values(name) for name in shown}) for one in groups]
    return figure(plots.svg(charts.strips(rows), "accuracy of every run"), "Every run, a point.")


def lines(groups: Sequence[Group]) -> str:
    """Accuracy by class size, the mean over each group's runs and over neighbouring classes."""
    means = [
        (one.name, np.mean([np.array(run.results["ensemble"]["per_class"], float) for run in one.runs], axis=0))
        for one in groups
    ]
    drawn = charts.by_size(means, groups[0].runs[0].facts.class_counts)
    return figure(plots.svg(drawn, "accuracy by class size"), "Mean over runs and neighbouring classes.")
