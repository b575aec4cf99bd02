"""Which remedy keeps the features alive in the first steps? Early training of CIFAR-100-LT under each candidate.

    python benchmarks/short_schedules.py --data_dir=DIR [--seeds 0 1 2] [--steps=400]

Appends one JSON line a run to benchmarks/results/short_schedules.jsonl (a repeated command goes on after the runs that
are there) and prints the table of docs/short_schedules.md.
"""

import argparse
import functools
import json
import pathlib
import statistics

import jax
import numpy as np
import optax

from ncl_jax import build, inputs, metrics, optim, startup, steps
from ncl_jax.config import base_config
from ncl_jax.evaluate import make_evaluate
from ncl_jax.sharding import make_mesh

RESULTS = pathlib.Path(__file__).parent / "results" / "short_schedules.jsonl"
RATES = (0.0467, 0.06, 0.0733)  # the recipe's first epochs
# Candidate: gradient clipping norm, ramp in steps, learning rate that grows linearly from 0.005 by step.
REMEDIES = {
    "none (as published)": {},
    "ramp of 300 steps": {"ramp": 300},
    "ramp of 150 steps": {"ramp": 150},
    "clipped to 5": {"clip": 5.0},
    "rate from 0.005": {"low_start": True},
    "ramp of 150 steps, clipped to 5": {"ramp": 150, "clip": 5.0},
}


def learning_rate(low_start, length, num_steps):
    if not low_start:
        return optim.per_epoch(np.asarray(RATES), length)
    return optax.linear_schedule(0.005, RATES[(num_steps - 1) // length], num_steps)


def make_optimizer(remedy, length, num_steps):
    schedule = learning_rate(remedy.get("low_start"), length, num_steps)
    sgd = optim.sgd(schedule, momentum=0.9, weight_decay=2e-4)
    return optax.chain(optax.clip_by_global_norm(remedy["clip"]), sgd) if "clip" in remedy else sgd


def run(name, seed, num_steps, data_dir):
    """One run; returns its record."""
    config = base_config()
    config.seed, config.data.dir, config.data.download = seed, data_dir, False
    config.model.num_experts = 2
    config.loss.ramp_steps = REMEDIES[name].get("ramp", 0)
    split = inputs.data(config)
    length = build.steps_per_epoch(config, split.facts)
    optimizer = make_optimizer(REMEDIES[name], length, num_steps)
    state = jax.jit(lambda: build.initial_state(config, split.facts))()
    state = state._replace(opt_state=optimizer.init(state.params))
    keys, mesh = build.keys(seed), make_mesh(1)
    step = steps.make_train_step(
        build.network(config, 100, build.operations(config, mesh)), optimizer,
        build.objective(config, split.facts.class_counts),
        build.view(config, split.facts, "autoaugment", cut=False), strategy="unroll",
    )  # fmt: skip
    feed = inputs.training_feed(config, split, keys.order, mesh)
    advance = jax.jit(steps.make_advance(step, feed.take, several=False), donate_argnums=(0, 1))
    history = steps.zero_history(step, feed.take, state, keys.step, next(feed.batches(0))[0], num_steps)
    left = num_steps
    for source, count in feed.batches(0):
        for _ in range(min(count, left)):
            state, history, last = advance(state, history, keys.step, source, 1)
            jax.block_until_ready(last)
        if (left := left - count) <= 0:
            break
    history = jax.tree.map(np.asarray, history)
    evaluate = make_evaluate(
        build.predictor(config, 100, mesh), inputs.test_feed(config, split.test, "test", split.facts, mesh), mesh
    )
    sums = evaluate({"params": state.params, "batch_stats": state.batch_stats}).sums
    figures = metrics.summarize(sums, split.facts.groups())
    return {
        "remedy": name,
        "seed": seed,
        "steps": num_steps,
        "largest_gradient": float(history["grad_norm"].max()),
        "largest_dead": float(history["dead_features"].max()),
        "dead": float(history["dead_features"][-20:].mean()),
        "feature_mean": float(history["feature_mean"][-20:].mean()),
        "lowest_feature_mean": float(history["feature_mean"].min()),
        "balanced_cross_entropy": float(history["parts"]["nil"][-20:].mean() / 2),
        "accuracy": figures["ensemble"]["accuracy"],
    }


def table(records):
    """Markdown: the mean over seeds, and the range of the accuracy."""
    lines = [
        "| remedy | seeds | largest gradient norm | dead features, worst / end | mean feature, lowest / end | "
        "balanced cross-entropy | test accuracy (range) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in REMEDIES:
        runs = [r for r in records if r["remedy"] == name]
        if runs:
            mean = functools.partial(lambda runs, key: statistics.fmean(r[key] for r in runs), runs)
            accuracies = [100 * r["accuracy"] for r in runs]
            lines.append(
                f"| {name} | {len(runs)} | {mean('largest_gradient'):.0f} | {100 * mean('largest_dead'):.0f} / "
                f"{100 * mean('dead'):.0f} % | {mean('lowest_feature_mean'):.3f} / {mean('feature_mean'):.2f} | "
                f"{mean('balanced_cross_entropy'):.2f} | {statistics.fmean(accuracies):.1f} % "
                f"({min(accuracies):.1f} to {max(accuracies):.1f}) |"
            )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=400)
    args = parser.parse_args()
    startup.prepare()
    RESULTS.parent.mkdir(exist_ok=True)
    records = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    for seed in args.seeds:
        for name in REMEDIES:
            if any((r["remedy"], r["seed"], r["steps"]) == (name, seed, args.steps) for r in records):
                continue
            records.append(run(name, seed, args.steps, args.data_dir))
            with RESULTS.open("a") as file:
                file.write(json.dumps(records[-1]) + "\n")
            print(json.dumps(records[-1]), flush=True)
    print(table([r for r in records if r["steps"] == args.steps]))


if __name__ == "__main__":
    main()
