"""Which recipe trains heads on frozen features? Fields of `config.backbone.ON_FEATURES`, each changed by itself, judged
on training images that are held out; no test image is looked at.

    python benchmarks/held_out.py --name=NAME --config=CONFIG[:ARGUMENTS] [--rest=IMBALANCE] [--seeds=3]
        [--config.FIELD=VALUE ...] [--command=... --commit=... --machine=... --date=...]

Held out is a quarter of each class or, with --rest of a configuration that leaves the data as it is, what a cut to that
imbalance leaves out. Writes benchmarks/results/held_out_NAME.json; `python tools/make_tables.py` makes a table of it.
"""

# ruff: noqa: E402

import json
import pathlib
import sys

from ncl_jax.runtime import memory

memory.keep()  # before there are threads

import jax
import numpy as np

from ncl_jax.cli.arguments import Parser, add_config, read_config
from ncl_jax.config import build, build_data, recipes
from ncl_jax.config import plan as plans
from ncl_jax.data import dataset, longtail
from ncl_jax.data.types import Split
from ncl_jax.report.comparison import spread
from ncl_jax.runs import folds, pretrained, trunk
from ncl_jax.runtime import startup

RESULTS = pathlib.Path(__file__).parent / "results"
ABOUT = ("command", "commit", "machine", "date")
BATCH = "optim.batch_size"
CANDIDATES = {
    "the recipe": {},
    "learning rate 3e-4": {"optim.learning_rate": 3e-4},
    "learning rate 3e-3": {"optim.learning_rate": 3e-3},
    "half the batch": {BATCH: 0.5},
    "twice the batch": {BATCH: 2},
    "factor 10": {"model.cosine_scale": 10.0},
    "factor 30": {"model.cosine_scale": 30.0},
    "random start": {"model.head_start": "random"},
    "linear, random start": {"model.classifier": "linear", "model.head_start": "random"},
    "standardised features": {"model.standardize": True},
    "an adapter of 64 units": {"model.adapter": 64},
}


def parts(config, data: dataset.Data, rest: float) -> dataset.Data:
    """The data with a part of its training images for a test set, and without them in training."""
    labels, number = data.train.labels, data.facts.num_classes
    held = folds.assign(labels, number, 4) == 0
    if rest:
        held = np.ones(len(labels), bool)
        held[longtail.select(labels, rest, number)] = False
    train = Split(data.train.images[~held], labels[~held])
    facts = data.facts._replace(class_counts=tuple(np.bincount(train.labels, minlength=number).tolist()))
    return data._replace(facts=facts, train=train, test=Split(data.train.images[held], labels[held]))


def reached(config, data: dataset.Data) -> float:
    """The mean over classes of the share of the held out images that the ensemble names right."""
    plan = build.make_training_plan(config, data.facts, build.mesh(config))
    start = folds.started(plan, config.model.head_start == "class_mean", data.train.images, data.train.labels)
    state = folds.trained(plan, data, start)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits = jax.jit(plans.predictor(plan, on_features=True).logits)(variables, data.test.images[:, 0])
    right = np.asarray(logits).mean(0).argmax(-1) == data.test.labels
    return float(np.mean([right[data.test.labels == label].mean() for label in np.unique(data.test.labels)]))


def changed(config, values: dict, seed: int):
    """The configuration with a candidate's fields; the batch is a share of the recipe's."""
    config = config.copy_and_resolve_references()
    config.seed = seed
    share = {BATCH: int(config.optim.batch_size * values[BATCH])} if BATCH in values else {}
    config.update_from_flattened_dict(values | share)
    return config


def main() -> None:
    """Tries every candidate."""
    parser = Parser(description=__doc__)
    add_config(parser)
    parser.add_argument("--name", required=True)
    parser.add_argument("--rest", type=float, default=0.0)
    parser.add_argument("--seeds", type=int, default=3)
    for field in ABOUT:
        parser.add_argument(f"--{field}", default="")
    args = parser.read(sys.argv[1:])
    startup.prepare()
    config = read_config(args)
    data = build_data.data(config)
    plan = build.make_training_plan(config, data.facts, build.mesh(config))
    data = parts(config, trunk.featurize(plan, pretrained.load(config, plan).trunk, data), args.rest)
    recipes.fit_batch(config, len(data.train))
    found = {}
    for name, values in CANDIDATES.items():
        found[name] = [reached(changed(config, values, seed), data) for seed in range(args.seeds)]
        print(name, spread(found[name]), flush=True)
    about = {field: getattr(args, field) for field in ABOUT}
    path = RESULTS / f"held_out_{args.name}.json"
    path.write_text(
        json.dumps(about | {"num_train": len(data.train), "held_out": len(data.test), "reached": found}) + "\n"
    )


if __name__ == "__main__":
    main()
