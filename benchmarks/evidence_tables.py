"""The tables of what `evidence.py`, `held_out.py` and `diverse_experts.py` wrote. Figures are in % or in points."""

import numpy as np

from ncl_jax.report.comparison import spread
from ncl_jax.trust import pairs

BASE = "balanced_softmax"  # the strongest plain method, which the others are compared with
LINEAR = "linear, balanced softmax"
LEVEL = 0.05
# What is added, the method with it, and the one without.
PARTS = (
    ("the balanced prior", BASE, "ce"),
    ("the recipe's cosine head, for the linear one beside it", BASE, LINEAR),
    ("hard categories", "nil", BASE),
    ("distillation over all classes", "nbod_full", BASE),
    ("distillation over all classes and hard categories", "ncl_supervised", "nil"),
    ("momentum contrast", "ncl", "ncl_supervised"),
    ("all of NCL", "ncl", BASE),
    ("NCL++ for NCL without momentum contrast", "nclpp", "ncl_supervised"),
    ("angular margins (DBM-NCL)", "dbm_ncl", "ncl_supervised"),
    ("a prior for each expert (BalPoE)", "balpoe", BASE),
)
GROUPS = ("many", "medium", "few")
DISTILLED = ", distillation"  # ends the names of ways with it


def about(results: dict) -> str:
    """Where a data set's figures come from, as a line."""
    runs = [run for entry in results["methods"].values() for run in entry["runs"]]
    minutes = sum(run["seconds"] for run in runs) / 60
    where = f"on {results['machine']}, {results['date']}, commit {results['commit']}"
    spent = f"{len(runs)} runs, {minutes:.0f} minutes of training and compilation in all, {where}."
    return f"    {results['command']}\n\n{spent}"


def difference(results: dict, first: str, second: str) -> tuple[pairs.Estimate, float]:
    """`first` minus `second` in the mean over classes of the ensembles, with the error for seeds and images, and the
    larger of its probabilities by chance, by that error and by the one for seeds alone.

    A simple classifier has one run, which stands beside every seed.
    """
    entries = [results["methods"].get(name) or results["baselines"][name] for name in (first, second)]
    number = max(len(entry["runs"]) for entry in entries)
    values = [
        [run["ensemble"]["classes"] for run in entry["runs"]] * (number // len(entry["runs"])) for entry in entries
    ]
    shares = [np.array(list(map(int, entry["right"]))) / len(entry["runs"]) for entry in entries]
    seeds = pairs.over_seeds(*values)
    found = pairs.both(seeds, pairs.over_images(*shares, *_strata(results)))
    return found, max(found.p(), seeds.p())


def _strata(results):
    """The classes of the test images and what each counts; those with a single image are one class together, which
    changes no mean and gives it an error."""
    labels, number = np.array(results["labels"]), len(results["class_counts"])
    images = np.bincount(labels, minlength=number)
    weights, single = (images > 0) / (images > 0).sum(), images == 1
    return np.where(single[labels], number, labels), np.append(np.where(single, 0, weights), weights[single].sum())


def cell(found: pairs.Estimate, corrected: float) -> str:
    """A difference in points with its 95 % interval, in bold where the corrected test says that there is one."""
    low, high = (100 * bound for bound in found.interval())
    text = f"{100 * found.mean:+.2f} [{low:+.2f}, {high:+.2f}]".replace("-0.00", "0.00").replace("+0.00", "0.00")
    return f"**{text}**" if corrected < LEVEL else text


def parts(of_data: dict[str, dict]) -> str:
    """What each part adds to the mean over classes, by data set; Holm's correction is over the whole table."""
    lines = [f"| points | {' | '.join(of_data)} |", "|---" * (1 + len(of_data)) + "|"]
    found = [[_known(results, first, second) for results in of_data.values()] for _, first, second in PARTS]
    corrected = iter(pairs.holm([one[1] for row in found for one in row if one]))
    for (name, first, second), row in zip(PARTS, found, strict=True):
        if not any(row):
            continue
        cells = [cell(one[0], next(corrected)) if one else "" for one in row]
        lines.append(f"| {name}: `{first}` - `{second}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _known(results, first, second):
    names = results["methods"].keys() | results["baselines"].keys()
    return difference(results, first, second) if {first, second} <= names else None


def accuracy(results: dict, base: str = BASE) -> str:
    """The ensemble and the mean expert of every method, mean ± standard deviation over seeds, and their differences
    from the method `base`; below them the simple classifiers."""
    entries = {f"`{name}`": entry for name, entry in results["methods"].items()}
    entries |= {f"*{name}*": entry for name, entry in results["baselines"].items()}
    names = [name for name in GROUPS if all(e["runs"][0]["ensemble"][name] is not None for e in entries.values())]
    names = names if len(names) > 1 else []
    others = [name.strip("`*") for name in entries if name != f"`{base}`"]
    found = {name: difference(results, name, base) for name in others}
    corrected = dict(zip(others, pairs.holm([p for _, p in found.values()]), strict=True))
    heads = ["%", "all", "mean of classes", *names, "one expert, mean of classes", f"minus `{base}` [95 %]"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, entry in entries.items():
        plain = name.strip("`*")
        figures = [spread([run["ensemble"][key] for run in entry["runs"]]) for key in ("accuracy", "classes", *names)]
        expert = spread([run["expert"]["classes"] for run in entry["runs"]]) if plain in results["methods"] else ""
        against = cell(found[plain][0], corrected[plain]) if plain in found else ""
        lines.append(f"| {' | '.join([name, *figures, expert, against])} |")
    return "\n".join(lines)


def calibration(results: dict) -> str:
    """Calibration error and negative log-likelihood of the ensembles, as trained and divided by their temperature."""
    heads = ["method", "ECE", "NLL", "temperature", "ECE after", "NLL after"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, entry in results["methods"].items():
        runs = [run["ensemble"] for run in entry["runs"]]
        ece, after = (spread([run[key] for run in runs]) for key in ("ece", "ece_scaled"))
        nll, nll_after = (_plain([run[key] for run in runs]) for key in ("nll", "nll_scaled"))
        temperature = entry["runs"][0]["temperature"]
        scaled = [f"{temperature:.2f}", after, nll_after] if temperature else ["", "", ""]
        cells = [f"`{name}`", ece, nll, *scaled]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def prediction_sets(results: dict) -> str:
    """Coverage and size of the prediction sets that promise 90 %, calibrated out of fold: the standard ones, and those
    that promise the mean over classes; mean ± standard deviation over seeds."""
    runs = {name: entry["runs"] for name, entry in results["methods"].items() if entry["runs"][0].get("sets")}
    figures = {"macro": "mean of classes", "few": "few", "size": "classes in a set"}
    figures = {key: name for key, name in figures.items() if all(key in of[0]["sets"]["macro"] for of in runs.values())}
    heads = [f"{kind}: {name}" for kind in ("standard", "by class") for name in figures.values()]
    lines = [f"| method | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    for name, of in runs.items():
        found = [(key, [run["sets"][kind][key] for run in of]) for kind in ("standard", "macro") for key in figures]
        cells = [_sizes(values) if key == "size" else spread(values) for key, values in found]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _sizes(values):
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"


def _plain(values):
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


def held_out(of_data: dict[str, dict]) -> str:
    """The mean over classes on held-out images, mean ± standard deviation over seeds, by candidate and data set."""
    lines = [f"| mean over classes, held out (%) | {' | '.join(of_data)} |", "|---" * (1 + len(of_data)) + "|"]
    for name in next(iter(of_data.values()))["reached"]:
        cells = [spread(results["reached"][name]) for results in of_data.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def diverse(results: dict) -> str:
    """Ways in which experts differ: the ensembles and the mean expert on held-out images, mean ± standard deviation
    over seeds, and the differences from the first way and by distillation, with Holm's correction over both."""
    ways = [name for name in results["methods"] if not name.endswith(DISTILLED)]
    heads = ["held out (%)", "mean of classes", "one expert", "two experts differ on", f"minus {ways[0]} [95 %]"]
    heads.append("distillation adds [95 %]")
    keys = [(name, ways[0]) for name in ways[1:]]
    keys += [(name + DISTILLED, name) for name in ways if name + DISTILLED in results["methods"]]
    found = {key: difference(results, *key) for key in keys}
    corrected = dict(zip(found, pairs.holm([p for _, p in found.values()]), strict=True))
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in ways:
        runs = results["methods"][name]["runs"]
        figures = [spread([run[kind]["classes"] for run in runs]) for kind in ("ensemble", "expert")]
        differ = f"{100 * np.mean([run['disagreement'] for run in runs]):.1f}"
        both = (name, ways[0]), (name + DISTILLED, name)
        cells = [cell(found[key][0], corrected[key]) if key in found else "" for key in both]
        lines.append(f"| {' | '.join([name, *figures, differ, *cells])} |")
    return "\n".join(lines)
