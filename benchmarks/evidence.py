"""What is each method worth on the features of a frozen backbone? Every method and seed, in one process.

    python benchmarks/evidence.py --name=NAME --config=CONFIG[:ARGUMENTS] [--methods=NAME,...] [--seeds=5] [--folds=5]
        [--config.FIELD=VALUE ...] [--command=... --commit=... --machine=... --date=...]

CONFIG is one with a frozen backbone, such as cifar100lt:backbone=efficientnet_lite0,image_size=224. The heads are those
of `ncl-jax train` with the same method and seed, and so is what they reach; a process for each run would spend most of
its time on its start. Of the first seed's heads, --folds sets more give the out-of-fold scores that a method's
temperature is fitted on, and its prediction sets calibrated; --folds=0 goes without.

Writes benchmarks/results/runs/NAME.json after every method; a repeated command continues with the methods that are not
there. `python tools/make_tables.py` writes the tables of docs/evidence.md from it.
"""

# ruff: noqa: E402

import argparse
import json
import pathlib
import sys
import time

from ncl_jax.runtime import memory

memory.keep()  # before there are threads

import jax
import jax.numpy as jnp
import numpy as np

from ncl_jax.cli.arguments import Parser, add_config, read_config
from ncl_jax.config import build, build_data, checks
from ncl_jax.config import plan as plans
from ncl_jax.evaluation import metrics, priors
from ncl_jax.evaluation.baselines import BASELINES
from ncl_jax.evaluation.temperature import fit_temperature
from ncl_jax.methods import METHODS
from ncl_jax.runs import folds, pretrained, trunk, trust
from ncl_jax.runs.held_out import HeldOut
from ncl_jax.runtime import startup
from ncl_jax.trust import sets

RESULTS = pathlib.Path(__file__).parent / "results" / "runs"
FIGURES = ("accuracy", "many", "medium", "few", "nll", "ece")
COVERAGE = 0.9  # that prediction sets promise
ABOUT = ("command", "commit", "machine", "date")


def read(args: argparse.Namespace, method: str, seed: int):
    """The configuration of one run, as `ncl-jax ablate` makes it."""
    path, _, arguments = args.config.partition(":")
    arguments = ",".join(filter(None, [arguments, f"method={method}", f"seed={seed}"]))
    config = read_config(argparse.Namespace(config=f"{path}:{arguments}", fields=args.fields))
    checks.validate(config)
    return config


def scored(plan, data, config) -> tuple[np.ndarray, float]:
    """The test scores `[E, N, C]` of heads that are trained now, and the seconds that takes."""
    began = time.perf_counter()
    start = folds.started(plan, config.model.head_start == "class_mean", data.train.images, data.train.labels)
    state = folds.trained(plan, data, start)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    predict = jax.jit(plans.predictor(plan, on_features=True).logits)
    return np.asarray(predict(variables, data.test.images[:, 0])), time.perf_counter() - began


def out_of_fold(config, plan, data, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores `[N, E, C]` of training images by heads that have not seen them, and the classes `[N]`."""
    logits, _ = folds.scores(config, plan, data, number)
    seen = ~np.isnan(logits[:, 0, 0])
    return logits[seen], data.train.labels[seen]


def temperatures(plan, facts, logits: np.ndarray, labels: np.ndarray) -> list[float]:
    """Of the ensemble and of each expert, fitted on out-of-fold scores."""
    counts = np.array(facts.class_counts)
    adjust = priors.log_ratio(counts / counts.sum(), priors.own(facts.class_counts, plan.prior_power()))
    each = [logits.mean(1), *logits.swapaxes(0, 1)]
    return [fit_temperature(scores.astype(np.float64), labels, adjust) for scores in each]


def set_rules(plan, facts, logits: np.ndarray, labels: np.ndarray):
    """What makes the ensemble's prediction sets of raw test scores `[N, C]`, by the kind of promise: the standard one,
    for all images as they come in training, and the mean over classes; calibrated on out-of-fold scores."""
    power, prior = plan.prior_power(), trust.train_prior(facts)
    found = trust.make_calibration(HeldOut(logits.mean(1), labels, "folds"), facts, power)
    kinds = {"standard": (np.full_like(prior, 1 / len(prior)), "marginal"), "macro": (prior, "macro")}
    rules = {name: sets.calibrate(found.true, found.labels, by, COVERAGE, to) for name, (by, to) in kinds.items()}
    return lambda scores: {
        name: sets.predict_sets(rule, trust.probabilities(scores, found.temperature, facts, power))
        for name, rule in rules.items()
    }


def coverages(found, labels: np.ndarray, groups) -> dict:
    """The mean over classes of the coverage, that of each group, and the mean size, by the kind of promise."""
    described = {name: sets.describe(made, labels, groups) for name, made in found.items()}
    return {
        name: {"macro": of["macro"], "size": of["size"]} | {group: of[group]["coverage"] for group in groups}
        for name, of in described.items()
    }


def figures(logits: np.ndarray, data, scales: list[float]) -> dict:
    """Of the ensemble and of the mean expert: accuracy, mean over classes, groups, NLL and ECE, both also with each
    predictor's scores divided by its temperature; and how often the experts differ."""
    rows = []
    for scores, scale in zip([logits.mean(0), *logits], scales, strict=True):
        scaled = summary(scores / scale, data)
        rows.append(summary(scores, data) | {f"{name}_scaled": scaled[name] for name in ("nll", "ece")})
    mean = {name: None if rows[1][name] is None else float(np.mean([r[name] for r in rows[1:]])) for name in rows[1]}
    return {"ensemble": rows[0], "expert": mean, "disagreement": _disagreement(logits)}


def summary(scores: np.ndarray, data) -> dict:
    """The figures of one predictor's test scores `[N, C]`; `classes` is the mean over classes."""
    sums, _ = metrics.evaluate_batch(jnp.asarray(scores, jnp.float32)[None], jnp.asarray(data.test.labels), None)
    found = metrics.summarize(sums, data.facts.groups())
    means = found["class_means"]["ensemble"]
    return {name: found["ensemble"][name] for name in FIGURES} | {"classes": means["accuracy"]}


def _disagreement(logits):
    top = logits.argmax(-1)
    pairs = [(a != b).mean() for i, a in enumerate(top) for b in top[i + 1 :]]
    return float(np.mean(pairs)) if pairs else 0.0


def right(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether the class of the largest score `[N, C]` is an image's own, bool [N]."""
    return scores.argmax(-1) == labels


def digits(numbers: np.ndarray) -> str:
    """A digit for each number of 0 to 9."""
    return "".join(map(str, numbers.astype(int)))


def method(args, name: str, data) -> dict:
    """One method's runs, and for every test image the number of seeds whose ensemble is right."""
    runs, correct, scales, rules = [], 0, [], None
    groups = {group: mask for group, mask in data.facts.groups()["papers"].items() if mask.any()}
    for seed in range(args.seeds):
        config = read(args, name, seed)
        plan = build.make_training_plan(config, data.facts, build.mesh(config))
        logits, seconds = scored(plan, data, config)
        if not runs:
            scales = [1.0] * (1 + len(logits))
        if not runs and args.folds:
            held = out_of_fold(config, plan, data, args.folds)
            scales, rules = temperatures(plan, data.facts, *held), set_rules(plan, data.facts, *held)
        found = figures(logits, data, scales) | {"seconds": seconds, "temperature": scales[0] if args.folds else None}
        found["sets"] = rules and coverages(rules(logits.mean(0)), data.test.labels, groups)
        runs.append(found)
        correct = correct + right(logits.mean(0), data.test.labels)
        print(name, seed, f"{100 * runs[-1]['ensemble']['accuracy']:.2f} %, {seconds:.1f} s", flush=True)
    return {"runs": runs, "right": digits(correct)}


def simple(data) -> dict:
    """The simple classifiers, one run each."""
    train, labels, number = data.train.images[:, 0], data.train.labels, data.facts.num_classes
    found = {name: make(train, labels, data.test.images[:, 0], number) for name, make in BASELINES.items()}
    return {
        name: {"runs": [{"ensemble": summary(scores, data)}], "right": digits(right(scores, data.test.labels))}
        for name, scores in found.items()
    }  # fmt: skip


def main() -> None:
    """Trains what is not there yet."""
    parser = Parser(description=__doc__)
    add_config(parser)
    parser.add_argument("--name", required=True)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--folds", type=int, default=5)
    for field in ABOUT:
        parser.add_argument(f"--{field}", default="")
    args = parser.read(sys.argv[1:])
    startup.prepare()
    config = read(args, args.methods.split(",")[0], 0)
    data = build_data.data(config)
    plan = build.make_training_plan(config, data.facts, build.mesh(config))
    data = trunk.featurize(plan, pretrained.load(config, plan).trunk, data)
    path = RESULTS / f"{args.name}.json"
    facts = {"class_counts": list(data.facts.class_counts), "labels": data.test.labels.tolist()}
    results = json.loads(path.read_text()) if path.exists() else facts | {"baselines": simple(data), "methods": {}}
    results = {field: getattr(args, field) for field in ABOUT} | results
    for name in args.methods.split(","):
        if name not in results["methods"]:
            found = results["methods"] | {name: method(args, name, data)}
            results["methods"] = {known: found[known] for known in METHODS if known in found}
            path.write_text(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()
