"""How many labels that were flipped on purpose does `ncl-jax inspect` find, and how many of its suspects are right?

    python benchmarks/flipped_labels.py --config=CONFIG [--config.FIELD=VALUE ...] --out=FILE [--seeds=3]

A share of the training images (5 %), drawn at random, get another label: drawn in proportion to the sizes of the
classes ("size"), so that about the same share of every class is wrong, or with the same probability for all
("uniform"), so that a large part of the smallest classes is. The features are those of the configuration's frozen
backbone. What is found is counted by the group that the given labels make of a class, for the rule of inspect and for
each of its views alone. A label that was wrong before counts as a false alarm.
"""

import json
import pathlib
import sys
import time

import jax
import numpy as np

from ncl_jax.cli.arguments import Parser, add_config, read_config
from ncl_jax.config import build_data
from ncl_jax.data import longtail
from ncl_jax.runs import findings
from ncl_jax.runtime import startup
from ncl_jax.storage.records import device_name
from ncl_jax.trust.labels import votes
from ncl_jax.trust.neighbours import nearest

SHARE, FIRST = 0.05, 20
GROUPS = ("many", "medium", "few", "all")
RULES = {"both": "both views", "classifier": "the classifier alone", "neighbours": "the nearest images alone"}
DRAWS = {"size": "in proportion to class sizes", "uniform": "uniform over classes"}


def flipped(labels: np.ndarray, num_classes: int, draw: str, seed: int) -> np.ndarray:
    """The labels, `SHARE` of them replaced by others."""
    rng, result = np.random.default_rng(seed), labels.copy()
    weights = np.bincount(labels, minlength=num_classes) if draw == "size" else np.ones(num_classes)
    for row in rng.choice(len(labels), round(SHARE * len(labels)), replace=False):
        others = np.where(np.arange(num_classes) == labels[row], 0, weights)
        result[row] = rng.choice(num_classes, p=others / others.sum())
    return result


def found_by(rule: str, features: np.ndarray, given: np.ndarray, num_classes: int, near: tuple) -> tuple:
    """The rows that a rule suspects, group by group the most probable first, and the classes that it suggests."""
    counts = np.bincount(given, minlength=num_classes)
    if rule == "both":
        groups = {name: longtail.groups(counts, name) for name in longtail.CONVENTIONS}
        suspects = findings.judge(features, given, groups, near)
        return suspects.rows, suspects.suggested
    if rule == "classifier":
        scores = findings.probabilities(features, given, num_classes)
    else:
        columns = [votes(*near, given, np.full(len(given), c)) for c in range(num_classes)]
        scores = np.stack(columns, 1)
    best = scores.argmax(1)
    rows = np.flatnonzero(best != given)
    return rows[np.argsort(scores[rows, given[rows]], kind="stable")], best[rows]


def counted(rows: np.ndarray, suggested: np.ndarray, given: np.ndarray, true: np.ndarray, num_classes: int) -> dict:
    """What was found, by group."""
    masks, wrong, result = longtail.groups(np.bincount(given, minlength=num_classes), "papers"), given != true, {}
    for group in GROUPS:
        inside = masks[group][given] if group != "all" else np.ones(len(given), bool)
        here = inside[rows]
        result[group] = {
            "images": int(inside.sum()), "flipped": int((wrong & inside).sum()), "suspected": int(here.sum()),
            "found": int(wrong[rows[here]].sum()), "suggested": int((suggested == true[rows])[here].sum()),
            "first": len(rows[here][:FIRST]), "found_first": int(wrong[rows[here][:FIRST]].sum()),
        }  # fmt: skip
    return result


def table(results: dict) -> str:
    """The command, and a row for each draw and group, means and shares over the seeds; each view alone below."""
    command = f"    python benchmarks/flipped_labels.py --config={results['config']} --out=FILE"
    seeds = len({run["seed"] for run in results["runs"]})
    heads = ("labels flipped", "group", "images", "flipped", "suspected", "precision", "recall", "among the first 20")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for draw, words in DRAWS.items():
        for rule, group in [("both", group) for group in GROUPS] + [(rule, "all") for rule in list(RULES)[1:]]:
            runs = [run[rule][group] for run in results["runs"] if run["draw"] == draw]
            total = {key: sum(run[key] for run in runs) for key in runs[0]}
            if not total["images"]:
                continue
            name = group if rule == "both" else f"*all, {RULES[rule]}*"
            shares = (("found", "suspected"), ("found", "flipped"), ("found_first", "first"))
            cells = [f"{100 * total[a] / total[b]:.0f} %" if total[b] else "" for a, b in shares]
            if group == "all":  # the suspects are sorted within the groups
                cells[2] = ""
            sizes = [f"{total[key] / len(runs):,.0f}" for key in ("images", "flipped", "suspected")]
            lines.append(f"| {' | '.join([words, name, *sizes, *cells])} |")
    where = f"{command}\n\n{seeds} seeds, {results['device']}, {results['date']}.\n"
    return "\n".join([where, *lines])


def main() -> None:
    """The command."""
    parser = Parser(description=__doc__)
    add_config(parser)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    args = parser.read(sys.argv[1:])
    startup.prepare()
    config = read_config(args)
    data = build_data.data(config)
    rows = {name: np.arange(len(split)) for name, split in data.splits().items()}
    features, why = findings.of_backbone(config, data, rows)
    if not features:
        raise SystemExit(why)
    train, true, number = features["train"], data.train.labels, data.facts.num_classes
    near, runs = nearest(train, train, 10, same=True), []
    for draw in DRAWS:
        for seed in range(args.seeds):
            given = flipped(true, number, draw, seed)
            of_rules = {
                rule: counted(*found_by(rule, train, given, number, near), given, true, number) for rule in RULES
            }
            runs.append({"draw": draw, "seed": seed, **of_rules})
    about = {
        "config": args.config.replace(config.data.dir, pathlib.Path(config.data.dir).name), "share": SHARE,
        "date": time.strftime("%Y-%m-%d"), "device": device_name(jax.local_devices()),
    }  # fmt: skip
    results = about | {"runs": runs}
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
