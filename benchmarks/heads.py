"""How long do heads on frozen features take to train? On random features of CIFAR-100-LT's number and size.

    python benchmarks/heads.py [--methods=ncl_supervised,ncl] [--repeats=1] [--config.FIELD=VALUE ...]

Three experts, 10,847 rows of 4 training views of 1,280 numbers, 30 epochs, with compilation: nothing is taken from
the compilation cache. Prints the seconds by the clock and the processor's, of all cores together: beside other work
only the latter says anything.
"""

# ruff: noqa: E402

import argparse
import sys
import time

from ncl_jax.runtime import memory

memory.keep()  # before there are threads

import jax
import numpy as np

from ncl_jax.cli.arguments import Parser, add_fields, read_config
from ncl_jax.config import build
from ncl_jax.data import dataset, longtail
from ncl_jax.data.dataset import Facts
from ncl_jax.data.types import Split
from ncl_jax.runs import folds

FEATURES, VIEWS = 1280, 5  # the test view is the first


def random_data() -> dataset.Data:
    """Features as those of CIFAR-100-LT, imbalance 100, but random."""
    counts = longtail.class_counts(500, 100, 100)
    labels = np.repeat(np.arange(100, dtype=np.int32), counts)
    draws = np.random.default_rng(0)
    images = np.maximum(draws.standard_normal((len(labels), VIEWS, FEATURES), np.float32), 0)
    facts = Facts("cifar100", (128, 128, 3), tuple(map(str, range(100))), tuple(map(int, counts)), "test")
    train = Split(images, labels)
    return dataset.Data(facts, train, Split(images[:, :1], labels), {})


def main() -> None:
    """Trains and prints."""
    parser = Parser(description=__doc__)
    add_fields(parser)
    parser.add_argument("--methods", default="ncl_supervised")
    parser.add_argument("--repeats", type=int, default=1)
    args = parser.read(sys.argv[1:])
    data = random_data()
    for method in args.methods.split(",") * args.repeats:
        name = f"cifar100lt:backbone=efficientnet_lite0,image_size=128,method={method}"
        config = read_config(argparse.Namespace(config=name, fields=args.fields))
        plan = build.make_training_plan(config, data.facts, build.mesh(config))
        jax.clear_caches()
        clock, processor = time.perf_counter(), time.process_time()
        start = folds.started(plan, config.model.head_start == "class_mean", data.train.images, data.train.labels)
        jax.block_until_ready(folds.trained(plan, data, start))
        clock, processor = time.perf_counter() - clock, time.process_time() - processor
        print(f"{method}: {clock:.1f} s by the clock, {processor:.1f} s of the processor", flush=True)


if __name__ == "__main__":
    main()
