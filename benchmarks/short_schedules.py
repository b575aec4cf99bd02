"""What keeps the features alive in the first steps? Early training under each remedy and at several rates.

    python benchmarks/short_schedules.py --data_dir=DIR [--seeds 0 1 2]

Appends one JSON line a run to benchmarks/results/short_schedules.jsonl; a repeated command goes on after the runs that
are there. `python tools/make_tables.py` writes the tables of docs/short_schedules.md.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import pathlib
import statistics

import jax
import numpy as np
import optax

from ncl_jax.config import base_config, build, build_data, cifar_long_tailed, loading
from ncl_jax.config import plan as plans
from ncl_jax.evaluation import metrics
from ncl_jax.evaluation.step import make_evaluate
from ncl_jax.runtime import memory, startup
from ncl_jax.runtime.devices import make_mesh
from ncl_jax.training import optimizers, steps

RESULTS = pathlib.Path(__file__).parent / "results" / "short_schedules.jsonl"
# Candidate: gradient clipping norm, ramp in steps, learning rate that grows linearly from 0.005 by step.
REMEDIES = {
    "none (as published)": {},
    "ramp of 300 steps": {"ramp": 300},
    "ramp of 150 steps": {"ramp": 150},
    "clipped to 5": {"clip": 5.0},
    "rate from 0.005": {"low_start": True},
    "ramp of 150 steps, clipped to 5": {"ramp": 150, "clip": 5.0},
}
REMEDY_STEPS = 400
RATES = (0.1, 0.067, 0.033)  # without a warm-up, and with a ramp of 300 steps
RATE_STEPS = 190  # an epoch of CIFAR-10-LT
TAIL = 20  # last steps, whose mean is taken


def make_optimizer(remedy, config, plan):
    """The recipe's, changed by the remedy."""
    sgd = plan.optimizer
    if remedy.get("low_start"):
        last = plan.learning_rates[(REMEDY_STEPS - 1) // plan.steps_per_epoch]
        schedule = optax.linear_schedule(0.005, last, REMEDY_STEPS)
        sgd = optimizers.sgd(schedule, momentum=config.optim.momentum, weight_decay=config.optim.weight_decay)
    return optax.chain(optax.clip_by_global_norm(remedy["clip"]), sgd) if "clip" in remedy else sgd


def train(config, num_steps, make_optimizer=lambda config, plan: plan.optimizer):
    """The log of every step, by name, each `[num_steps]`, and the ensemble's accuracy in the end."""
    split = build_data.data(config)
    plan = build.make_training_plan(config, split.facts, make_mesh(1))
    plan = dataclasses.replace(plan, optimizer=make_optimizer(config, plan))
    state, keys = startup.run_once(lambda: plans.initial_state(plan)), plans.keys(plan.seed)
    step, feed = plans.train_step(plan), loading.training_feed(plan, split, keys.order)
    advance = jax.jit(steps.make_advance(step, feed.take, several=False), donate_argnums=(0, 1))
    history = steps.zero_history(step, feed.take, state, keys.step, next(feed.batches(0))[0], num_steps)
    left = num_steps
    for source, count in feed.batches(0):
        for _ in range(min(count, left)):
            state, history, last = advance(state, history, keys.step, source, 1)
            jax.block_until_ready(last)
        if (left := left - count) <= 0:
            break
    return jax.tree.map(np.asarray, history), accuracy(plan, split, state)


def accuracy(plan, split, state):
    """The ensemble's, on the whole test set."""
    evaluate = make_evaluate(plans.predictor(plan), loading.test_feed(plan, split.test, "test"), plan.mesh)
    sums = evaluate({"params": state.params, "batch_stats": state.batch_stats}).sums
    return metrics.summarize(sums, split.facts.groups())["ensemble"]["accuracy"]


def try_remedy(name, seed, data_dir):
    """CIFAR-100-LT, two experts; the run's record."""
    config = base_config()
    config.seed, config.data.dir, config.data.download = seed, data_dir, False
    config.model.num_experts = 2
    config.loss.ramp_steps = REMEDIES[name].get("ramp", 0)
    history, reached = train(config, REMEDY_STEPS, functools.partial(make_optimizer, REMEDIES[name]))
    return {
        "largest_gradient": float(history["grad_norm"].max()),
        "largest_dead": float(history["dead_features"].max()),
        "dead": float(history["dead_features"][-TAIL:].mean()),
        "feature_mean": float(history["feature_mean"][-TAIL:].mean()),
        "lowest_feature_mean": float(history["feature_mean"].min()),
        "balanced_cross_entropy": float(history["parts"]["nil"][-TAIL:].mean() / 2),
        "accuracy": reached,
    }


def try_rate(rate, seed, data_dir):
    """CIFAR-10-LT, three experts, a shortened schedule's ramp, no warm-up; the run's record."""
    config = cifar_long_tailed(f"method=ncl_supervised,epochs=10,seed={seed}", "cifar10", num_hard=3)
    config.data.dir, config.data.download = data_dir, False
    config.optim.warmup_epochs, config.optim.learning_rate = 0, rate
    history, reached = train(config, RATE_STEPS)
    return {
        "dead": float(history["dead_features"][30:].mean()),
        "feature_mean": float(history["feature_mean"][30:].mean()),
        "balanced_cross_entropy": float(history["parts"]["nil"][-TAIL:].mean() / 3),
        "accuracy": reached,
    }


def remedies_table(records):
    """Markdown: the mean over seeds, and the range of the accuracy."""
    lines = [
        "| remedy | seeds | largest gradient norm | always 0, worst / end | mean feature, lowest / end | "
        "balanced cross-entropy | test accuracy (range) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in REMEDIES:
        runs = [r for r in records if r.get("remedy") == name]
        if runs:
            mean = functools.partial(_mean, runs)
            lines.append(
                f"| {name} | {len(runs)} | {mean('largest_gradient'):.0f} | {100 * mean('largest_dead'):.0f} / "
                f"{100 * mean('dead'):.0f} % | {mean('lowest_feature_mean'):.3f} / {mean('feature_mean'):.2f} | "
                f"{mean('balanced_cross_entropy'):.2f} | {_accuracy(runs)} |"
            )
    return "\n".join(lines)


def rates_table(records):
    """Markdown: the mean over seeds, and the range of the accuracy."""
    lines = [
        "| rate | seeds | always 0 | mean feature | balanced cross-entropy | test accuracy (range) |",
        "|---|---|---|---|---|---|",
    ]
    for rate in RATES:
        runs = [r for r in records if r.get("rate") == rate]
        if runs:
            dead, feature, loss = (_mean(runs, key) for key in ("dead", "feature_mean", "balanced_cross_entropy"))
            lines.append(
                f"| {rate} | {len(runs)} | {100 * dead:.1f} % | {feature:.2f} | {loss:.2f} | {_accuracy(runs)} |"
            )
    return "\n".join(lines)


def _mean(runs, key):
    return statistics.fmean(run[key] for run in runs)


def _accuracy(runs):
    """The mean in %, and the range."""
    values = [100 * run["accuracy"] for run in runs]
    return f"{statistics.fmean(values):.1f} % ({min(values):.1f} to {max(values):.1f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    memory.keep()
    startup.prepare()
    RESULTS.parent.mkdir(exist_ok=True)
    records = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    trials = [("remedy", name, try_remedy) for name in REMEDIES] + [("rate", rate, try_rate) for rate in RATES]
    for seed, (kind, value, trial) in itertools.product(args.seeds, trials):
        label = {kind: value, "seed": seed}
        if any(label.items() <= record.items() for record in records):
            continue
        record = json.dumps(label | trial(value, seed, args.data_dir))
        with RESULTS.open("a") as file:
            file.write(record + "\n")
        print(record, flush=True)


if __name__ == "__main__":
    main()
