"""Do prediction sets, the estimated mix and known-ness keep what they promise on images with known classes?

    python benchmarks/trust_backtest.py --run=DIR --name=NAME --out=FILE [--others=FOLDER] [--draws=10]

DIR is a run that has images to calibrate on; what is promised is compared with its evaluated images. For the mix those
are drawn again, with replacement, by five mixes of classes: the training shares, equal ones, the training shares turned
around (the rarest class as common as the most common one was), random ones (Dirichlet, 1), and the training shares with
the rarer half of the classes five times as common. FOLDER holds images of another kind.
"""

import json
import pathlib
import sys
import time

import jax
import numpy as np
from scipy.special import softmax

from ncl_jax.cli.arguments import Parser
from ncl_jax.runs import trust
from ncl_jax.runs.data import same_data
from ncl_jax.runs.embeddings import embed
from ncl_jax.runs.held_out import scores_of
from ncl_jax.runs.load import load
from ncl_jax.runs.predict import find_files
from ncl_jax.runs.restore import restore
from ncl_jax.runtime import startup
from ncl_jax.storage.directory import RunDir
from ncl_jax.storage.records import device_name
from ncl_jax.trust import known, mix, selective, sets

COVERAGES, IMAGES, LEVEL = (0.8, 0.9, 0.95), 500, 0.05
RULES = {"standard": "equal priors", "marginal": "marginal", "macro": "macro"}
MIXES = {
    "train": "training shares", "equal": "equal shares", "reversed": "turned around", "random": "random shares",
    "tail": "rarer half x 5",
}  # fmt: skip


def mixes(prior: np.ndarray, random: np.random.Generator) -> dict[str, np.ndarray]:
    """The shares `[C]` by which images are drawn."""
    order, turned = np.argsort(prior, kind="stable"), np.zeros_like(prior)
    turned[order] = prior[order[::-1]]
    tail = prior * np.where(prior <= np.median(prior), 5, 1)
    return {"train": prior, "equal": np.full_like(prior, 1 / len(prior)), "reversed": turned,
            "random": random.dirichlet(np.ones(len(prior))), "tail": tail / tail.sum()}  # fmt: skip


def of_mixes(table, scores, labels, prior, source, draws) -> list[dict]:
    """What the estimate makes of images `[N]` drawn by each mix: probabilities `[N, C]` under the training prior, raw
    scores `[N, C]`; classes without images are left out of the draw."""
    random, found = np.random.default_rng(0), []
    rows = [np.flatnonzero(labels == c) for c in range(len(prior))]
    there = np.array([len(of) > 0 for of in rows])
    for _ in range(draws):
        for name, shares in mixes(prior, random).items():
            wanted = np.where(there, shares, 0) / shares[there].sum()
            drawn = np.array([random.choice(rows[c]) for c in random.choice(len(prior), IMAGES, p=wanted)])
            true = np.bincount(labels[drawn], minlength=len(prior)) / IMAGES
            of = mix.estimate(table[drawn], source)
            after = (table[drawn] * of.shares / source).argmax(1)
            errors = (float(np.abs(shares - true).sum()) for shares in (prior, of.shares))
            right = {"own": scores[drawn].argmax(1), "train": table[drawn].argmax(1), "estimated": after}
            found.append({
                "mix": name, "before": next(errors), "after": next(errors),
                "inside": float(((of.low <= wanted) & (wanted <= of.high)).mean()), "refused": bool(of.refused),
                "gain": of.gain, "accuracy": {key: float((top == labels[drawn]).mean()) for key, top in right.items()},
            })  # fmt: skip
    return found


def of_sets(calibration, table, labels, prior, groups) -> dict[str, list[dict]]:
    """What the sets of each rule are worth at every coverage."""
    pairs = calibration.true, calibration.labels
    equal = np.full_like(prior, 1 / len(prior))
    args = {"standard": (equal, "marginal"), "marginal": (prior, "marginal"), "macro": (prior, "macro")}
    return {
        name: sets.curve(pairs, (table, labels), by, promise, COVERAGES, groups) for name, (by, promise) in args.items()
    }


def measure(run: pathlib.Path, others: str | None, draws: int) -> dict:
    """All figures of a run."""
    loaded = restore(RunDir(run), None)
    facts, data = loaded.plan.facts, same_data(loaded.config, loaded.directory)
    calibration, knowing, labels = trust.calibration(loaded, None), trust.known(loaded), data.test.labels
    scores, prior = scores_of(loaded, data.test, facts.split), trust.train_prior(facts)
    table = trust.probabilities(scores, calibration.temperature, facts, loaded.plan.prior_power())
    groups = {name: mask for name, mask in facts.groups()["papers"].items() if mask.any()}
    of_images = {name: mask[labels] for name, mask in groups.items()}
    p_values = known.p_values(knowing, embed(loaded.plan, loaded.variables, data.test, facts.split))
    own = softmax(scores / calibration.temperature, axis=-1)
    confidence, right = own.max(1), own.argmax(1) == labels
    found = {
        "calibration": calibration.source, "images": len(labels), "calibrated": len(calibration.labels),
        "temperature": calibration.temperature, "sets": of_sets(calibration, table, labels, prior, groups),
        "range": sets.coverage_range(len(calibration.labels), 0.9),
        "mixes": of_mixes(table, scores, labels, prior, trust.source_prior(calibration, facts), draws),
        "refused": {"all": float((p_values < LEVEL).mean())}
        | {name: float((p_values[rows] < LEVEL).mean()) for name, rows in of_images.items()},
        "selective": selective.selective(confidence, right, of_images), "aurc": selective.aurc(confidence, right),
    }  # fmt: skip
    if others:
        strange = load(run).known(find_files([others])[:200])
        found["refused"]["others"] = float((strange < LEVEL).mean())
    return found


def share(value: float | None) -> str:
    """A share in percent."""
    return "" if value is None else f"{100 * value:.1f}"


def rows(heads, lines) -> str:
    """A table in Markdown."""
    return "\n".join(
        [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *(f"| {' | '.join(line)} |" for line in lines)]
    )


def sets_table(results: dict) -> str:
    """Coverage and size of the sets of each rule, over all images and for the few-shot classes."""
    heads = (
        "promised",
        "sets",
        "covered",
        "mean of classes",
        "classes below half",
        "size",
        "few: covered",
        "few: size",
    )
    lines = []
    for place, coverage in enumerate(COVERAGES):
        for rule, words in RULES.items():
            line = results["sets"][rule][place]
            few = line.get("few") or {"coverage": None, "size": None}
            figures = [share(line[key]) for key in ("coverage", "macro", "below_half")]
            size = "" if few["size"] is None else f"{few['size']:.2f}"
            lines.append(
                [f"{100 * coverage:g} %", words, *figures, f"{line['size']:.2f}", share(few["coverage"]), size]
            )
    return f"{where(results)}\n\n{rows(heads, lines)}"


def where(results: dict) -> str:
    """Where the figures come from."""
    low, high = results["range"]
    command = f"    python benchmarks/trust_backtest.py --run=DIR --name={results['name']} --out=FILE"
    return (
        f"{command}\n\n{results['calibrated']:,} images to calibrate on ({results['calibration']}; 90 % then means "
        f"{share(low)} to {share(high)} %), "
        f"{results['images']:,} to try it on, {results['device']}, {results['date']}."
    )


def mixes_table(results: dict) -> str:
    """The error of the shares before and after, and the accuracy, by mix; means over the draws."""
    heads = ("images drawn by", "L1 error: training shares", "estimated", "shares inside their interval", "refused",
             "accuracy: own prior", "training prior", "estimated prior")  # fmt: skip
    lines = []
    for name, words in MIXES.items():
        of = [draw for draw in results["mixes"] if draw["mix"] == name]
        mean = lambda key, of=of: float(np.mean([draw[key] for draw in of]))  # noqa: E731
        accuracies = [
            share(float(np.mean([draw["accuracy"][key] for draw in of]))) for key in ("own", "train", "estimated")
        ]
        shares = [
            f"{mean('before'):.3f}",
            f"{mean('after'):.3f}",
            f"{share(mean('inside'))} %",
            f"{share(mean('refused'))} %",
        ]
        lines.append([words, *shares, *accuracies])
    return rows(heads, lines)


def selective_table(results: dict) -> str:
    """Accuracy where only the most certain answers are given, and the few-shot classes' share that is left to a person;
    the share of images that known-ness refuses."""
    heads = ("answered", "accuracy", "few: accuracy", "few: left to a person")
    lines = []
    for line in results["selective"]:
        few = line.get("few") or {"accuracy": None, "refused": None}
        lines.append(
            [f"{100 * line['answered']:g} %", share(line["accuracy"]), share(few["accuracy"]), share(few["refused"])]
        )
    names = {"all": "all test images", "others": "images of another kind"}
    refused = ", ".join(f"{names.get(name, name)} {share(value)} %" for name, value in results["refused"].items())
    return f"{rows(heads, lines)}\n\nUnlike anything in training at the 5 % level: {refused}."


def main() -> None:
    """The command."""
    parser = Parser(description=__doc__)
    parser.add_argument("--run", required=True, type=pathlib.Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--others")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    args = parser.read(sys.argv[1:])
    startup.prepare()
    about = {"name": args.name, "date": time.strftime("%Y-%m-%d"), "device": device_name(jax.local_devices())}
    results = about | measure(args.run, args.others, args.draws)
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    print("\n\n".join(make(results) for make in (sets_table, mixes_table, selective_table)))


if __name__ == "__main__":
    main()
