"""Are adapters in a small transformer worth more than heads on its features, or than training the whole of it?

    ncl-jax train --config=benchmarks/tiny_vit.py --config.data.dir=DIR --workdir=runs/tiny_vit
    python benchmarks/adapters.py --run=runs/tiny_vit --data=DIR [--seeds=3] [--ways=NAME,...]
        [--command=... --commit=... --machine=... --date=...]

Every way of `WAYS` starts from that network and has the same epochs, images, batches and augmentation; its learning
rate is the one of two that is better on a quarter of each class's training images, held out, with one seed. Writes
benchmarks/results/runs/adapters_tiny_vit.json after every way, and a repeated command continues;
`python tools/make_tables.py` makes a table of it.
"""

# ruff: noqa: E402

import argparse
import json
import pathlib
import time
from typing import NamedTuple

from ncl_jax.runtime import memory

memory.keep()  # before there are threads

import evidence
import held_out
import jax
import numpy as np

from ncl_jax.config import build, build_data, checks, files, lift
from ncl_jax.runs import folds, pretrained, trunk
from ncl_jax.runtime import startup
from ncl_jax.runtime.devices import replicated

HERE = pathlib.Path(__file__).parent
RESULT = HERE / "results" / "runs" / "adapters_tiny_vit.json"
EPOCHS, RATE = 5, "optim.learning_rate"
COMMON = {"model.pretrained_expert": 0, "data.augment": "crop_flip", "data.resize": 0, "data.download": False}
# Of LIFT's recipe, what a network that is trained as a whole can have too.
_TRAINED = {
    name: value
    for name, value in lift.RECIPES["lift"].fields.items()
    if name.startswith("optim.") or name in ("model.classifier", "model.cosine_scale", "model.num_experts")
}


class Way(NamedTuple):
    """A way to use the network.

    Attributes:
      arguments: of the configuration file.
      fields: what it sets beside.
      rates: learning rates to choose from.
    """

    arguments: str
    fields: dict
    rates: tuple[float, float]


def _adapters(kind: str) -> Way:
    return Way("recipe=lift", {"model.adapters": kind}, (0.01, 0.05))


WAYS = {
    "heads": Way("method=logit_adjustment", {"model.num_experts": 1, "optim.batch_size": 128}, (1e-3, 5e-3)),
    "adaptformer": _adapters("adaptformer"),
    "whole": Way("method=logit_adjustment,freeze=0", _TRAINED | {"optim.backbone_scale": 1.0}, (0.01, 0.05)),
    "lora": _adapters("lora"),
    "bitfit": _adapters("bitfit"),
    "layernorm": _adapters("layernorm"),
    "vpt": _adapters("vpt"),
    "ncl_adapters": Way("recipe=ncl_adapters", {}, (0.01, 0.05)),
}


def read(args: argparse.Namespace, way: Way, rate: float, seed: int):
    """The configuration of one run."""
    start = f"backbone=tiny_vit,pretrained={args.run},epochs={EPOCHS},seed={seed}"
    config = files.load(f"{HERE / 'tiny_vit.py'}:{start},{way.arguments}")
    config.update_from_flattened_dict(COMMON | way.fields | {RATE: rate, "data.dir": str(args.data)})
    checks.validate(config)
    return config


def scored(config, data, features) -> np.ndarray:
    """The test scores `[E, N, C]` of experts that are trained now; every head starts at the class means."""
    plan = build.make_training_plan(config, data.facts, build.mesh(config))
    start, seen = pretrained.load(config, plan), features if plan.on_features else data
    frozen = jax.device_put(start.trunk, replicated(plan.mesh)) if plan.lower is not None else None
    state = folds.started(plan, True, features.train.images, features.train.labels, frozen)
    state = folds.trained(plan, seen, pretrained.apply(state, start), frozen=frozen)
    return folds.scored(plan, state, seen.test, frozen).swapaxes(0, 1)


def choose(args, way: Way, data, features) -> dict[str, float]:
    """The mean over classes on the held-out part by learning rate."""
    config = read(args, way, way.rates[0], 0)
    parts = held_out.parts(config, data, 0.0), held_out.parts(config, features, 0.0)
    scores = {rate: scored(read(args, way, rate, 0), *parts).mean(0) for rate in way.rates}
    return {str(rate): evidence.summary(found, parts[0])["classes"] for rate, found in scores.items()}


def method(args, way: Way, data, features) -> dict:
    """A way's runs, and for every test image the number of seeds whose ensemble is right."""
    tried = choose(args, way, data, features)
    rate, runs, correct = float(max(tried, key=lambda rate: tried[rate])), [], 0
    for seed in range(args.seeds):
        began = time.perf_counter()
        logits = scored(read(args, way, rate, seed), data, features)
        runs.append(evidence.figures(logits, data, [1.0] * (1 + len(logits))))
        runs[-1] |= {"seconds": time.perf_counter() - began}
        correct = correct + evidence.right(logits.mean(0), data.test.labels)
        print(seed, rate, f"{100 * runs[-1]['ensemble']['classes']:.2f} %, {runs[-1]['seconds']:.0f} s", flush=True)
    return {"runs": runs, "right": evidence.digits(correct), "held_out": tried}


def main() -> None:
    """Trains what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ways", default=",".join(WAYS))
    for field in evidence.ABOUT:
        parser.add_argument(f"--{field}", default="")
    args = parser.parse_args()
    startup.prepare()
    config = read(args, WAYS["heads"], 1e-3, 0)
    data = build_data.data(config)
    plan = build.make_training_plan(config, data.facts, build.mesh(config))
    features = trunk.featurize(plan, pretrained.load(config, plan).trunk, data)
    facts = {"class_counts": list(data.facts.class_counts), "labels": data.test.labels.tolist(), "epochs": EPOCHS}
    facts |= {field: getattr(args, field) for field in evidence.ABOUT}
    results = facts | {"baselines": evidence.simple(features), "methods": {}}
    if RESULT.exists():
        results = json.loads(RESULT.read_text())
    for name in args.ways.split(","):
        if name not in results["methods"]:
            print(name, flush=True)
            results["methods"][name] = method(args, WAYS[name], data, features)
            RESULT.write_text(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()
