"""How long is one training step, against an equivalent PyTorch step on the same machine?

    python benchmarks/step_time.py [--torch=PYTHON] [--methods=ncl_supervised,ncl,nclpp] [--repeats=10] [--out=FILE]

A step is augmentation, forward, losses, backward and update of ResNet-32 experts on CIFAR-100-LT's shapes (random
pixels), or with --backbone=resnet --depth=18 --image_size=224 --batch=32 of ResNet-18 on photographs'. The steps take
turns in every repeat, each idle while another works: ours (augmentation on the device included), ours on ready batches,
and PyTorch's on the same ready batches (torch_step.py, run by --torch, a Python with torch and NumPy): as installed,
eager in the faster of its two memory layouts, and with --tuned also at its best, as torch_tune.py found it. Those on
ready batches do the same arithmetic: before anything is timed they start from the same weights and their losses must
agree; `ratio` compares them, pair by pair. Several methods, or ways to run one, take turns too.

--strategies, --precisions (float32, tf32, bfloat16) and --steps_per_call take several values; the first of each is the
base, from which one is changed at a time, on an accelerator for example

    --strategies=unroll,vmap,packed --precisions=float32,tf32,bfloat16 --steps_per_call=1,10,100

Each PyTorch is a process of its own, stopped while another works. The last column is the least time of roofline.py
over ours.
"""

# ruff: noqa: E402

import argparse
import functools
import json
import os
import pathlib
import tempfile
from typing import NamedTuple

from ncl_jax.runtime import memory

os.environ.setdefault("XLA_CLIENT_MEM_FRACTION", "0.5")  # leaves PyTorch its share of an accelerator's memory
memory.keep()  # before there are threads

import jax
import jax.numpy as jnp
import numpy as np
import roofline
import step_report
from own_step import Ours, make_feed
from torch_peer import INSTALLED, Peer

from ncl_jax.config import base_config, build, choose_method
from ncl_jax.config import plan as plans
from ncl_jax.data import longtail
from ncl_jax.data.dataset import Facts
from ncl_jax.runtime import startup
from ncl_jax.training import steps

LEARNING_RATE = 0.005  # low enough that random images do not collapse the features
NUM_BATCHES = 3  # ready batches, which PyTorch visits in turn; the losses are compared over as many steps
TOLERANCE = 1e-4  # relative, of the first loss in float32; later ones also carry the updates' rounding
MATMUL = {"float32": "float32", "tf32": "tensorfloat32", "bfloat16": "tensorfloat32"}


class Variant(NamedTuple):
    """One way to run a method."""

    strategy: str
    precision: str
    steps_per_call: int


def variants(args):
    """The base and, around it, one change at a time."""
    choices = (args.strategies, args.precisions, args.steps_per_call)
    base = [values[0] for values in choices]
    changed = [[*base[:i], value, *base[i + 1 :]] for i, values in enumerate(choices) for value in values[1:]]
    return [Variant(*values) for values in [base, *changed]]


def make_config(args, method, variant):
    """The recipe on CIFAR-100-LT, at a learning rate that keeps random images' features alive."""
    config = base_config()
    choose_method(config, method)
    config.model.backbone, config.model.depth = args.backbone, args.depth
    if args.backbone == "resnet":
        config.model.width, config.data.augment, config.contrast.augment = 64, "imagenet", "imagenet"
    if method != "nclpp":
        config.model.num_experts = args.num_experts
    config.optim.batch_size, config.optim.learning_rate, config.optim.warmup_epochs = args.batch, LEARNING_RATE, 0
    config.precision = "bfloat16" if variant.precision == "bfloat16" else "float32"
    config.run.strategy, config.run.steps_per_call = variant.strategy, variant.steps_per_call
    return config


def make_data(side=32):
    """(facts, images uint8 [N, side, side, 3], labels [N]): CIFAR-100-LT's shapes, or few and large; random pixels."""
    counts = longtail.class_counts(*((500, 100, 100) if side == 32 else (20, 20, 100)))
    facts = Facts("random", (side, side, 3), tuple(map(str, range(100))), tuple(counts.tolist()), "")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (facts.num_train, *facts.image_shape), np.uint8)
    labels = np.repeat(np.arange(100, dtype=np.int32), counts)
    return facts, images, labels


def ready_views(config, facts):
    """Stand-ins for the two augmentations that cost next to nothing: normalised images, and the same flipped for the
    key view; the copies of an image differ in contrast, so that NCL++ has something to distil."""
    normalize, copies = plans.view(build.make_plan(config, facts), "none"), config.loss.copies

    def views(key, images):
        scale = jnp.repeat(1 + 0.1 * jnp.arange(copies), len(images) // copies)
        return normalize(key, images) * scale[:, None, None, None]

    return views, lambda key, images: normalize(key, images)[:, :, ::-1]


def ready_step(config, facts):
    """The training step on `ready_views`."""
    views, key_views = ready_views(config, facts)
    plan = build.make_training_plan(config, facts)
    return steps.make_train_step(
        plan.step_network,
        plan.optimizer,
        plan.objective,
        views,
        strategy=plan.strategy,
        copies=plan.copies,
        key_augment=key_views if config.contrast.weight else None,
    )


def ready_batches(config, data):
    """What `ready_step` sees in its first steps, for PyTorch: stacked NumPy arrays by name."""
    feed, copies = make_feed(config, data), config.loss.copies
    views, key_views = map(jax.jit, ready_views(config, data[0]))
    source, _ = next(feed.batches(0))
    batches = [feed.take(source, step) for step in range(NUM_BATCHES)]
    return {
        "images": np.stack([views(None, jnp.tile(b.images[:, 0], (copies, 1, 1, 1))) for b in batches]),
        "labels": np.stack([jnp.tile(b.labels, copies) for b in batches]),
        "key_images": np.stack([key_views(None, b.images[:, -1]) for b in batches]),
    }


def make_peers(args, folder):
    """The PyTorch processes by the side's name, each with the forms that its steps may take."""
    if not args.torch:
        return {}
    peers = {"torch": (Peer(args.torch, INSTALLED, folder), ["channels_last", "contiguous"])}
    if args.tuned:
        best = json.loads(args.tuned.read_text())["best"]
        peers["best"] = (Peer(args.torch, best["environment"], folder), [best["form"]])
    return peers


def torch_spec(args, precision, data):
    """What a PyTorch step is told beside the method's fields (`Peer.make`)."""
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    classes = {"num_classes": 100, "class_counts": data[0].class_counts}
    return {"device": device, "precision": precision, "tune_steps": args.steps, **classes}


def prepare(args, method, variant, data, peers, ceilings):
    """Compiles a method's steps, checks them against PyTorch's: ({side: seconds a step of `count` steps}, notes)."""
    config = make_config(args, method, variant)
    weights, notes, name = None, {}, "_".join(map(str, (method, *variant)))
    for side, (peer, forms) in peers.items():
        spec = torch_spec(args, variant.precision, data) | {"forms": forms}
        if spec["device"] == "cuda" and not peer.facts["cuda"]:
            raise SystemExit(f"JAX runs on the GPU, but the PyTorch of --torch={args.torch} sees none")
        weights, notes[side] = peer.make(name, config, ready_batches(config, data), spec)
    ready = Ours(config, data, ready_step(config, data[0]), weights)
    train_step = plans.train_step(build.make_training_plan(config, data[0]))
    augmented = Ours(config, data, train_step)
    notes["compile_seconds"] = augmented.compile_seconds
    config.run.conv = "xla"  # our own kernels are opaque to the count
    counted = plans.train_step(build.make_training_plan(config, data[0]))
    notes["roofline"] = roofline.bound(counted, (augmented.state, *one_batch(config, data)), ceilings)
    sides = {"augmented": augmented.timed, "ready": ready.timed}
    if peers:
        ours = list(ready.losses(NUM_BATCHES))
    for side, (peer, _) in peers.items():
        answer = peer.ask("check", name=name, steps=NUM_BATCHES)
        notes[side] |= {"peak_bytes": answer["peak_bytes"]}
        notes[side]["loss_differences"] = compare(name, variant.precision, ours, answer["losses"])
        sides[side] = functools.partial(peer.timed, name)
    return sides, notes


def one_batch(config, data):
    """The step's key and first batch."""
    feed = make_feed(config, data)
    return plans.keys(config.seed).step, feed.take(next(feed.batches(0))[0], 0)


def compare(name, precision, ours, theirs):
    """Relative differences of the first losses. Exits if the first one, in float32, is above TOLERANCE."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    differences = np.abs(ours - theirs) / np.abs(theirs)
    text = ", ".join(f"{value:.1e}" for value in differences)
    print(f"{name}: losses differ by {text} in steps 1 to {NUM_BATCHES}", flush=True)
    if precision == "float32" and not differences[0] <= TOLERANCE:
        raise SystemExit(f"{name}: ours {ours}, PyTorch's {theirs}: not the same step, so nothing is timed")
    return differences.tolist()


def measure(args, data, peers):
    """Times all methods in all variants, all steps taking turns; one record for each."""
    prepared = {}
    for variant in variants(args):
        with jax.default_matmul_precision(MATMUL[variant.precision]):
            ceilings = roofline.ceilings(variant.precision)
            for method in args.methods:
                prepared[method, variant] = prepare(args, method, variant, data, peers, ceilings)
    seconds = {case: {side: [] for side in sides} for case, (sides, _) in prepared.items()}
    for _ in range(args.warmup + args.repeats):
        for case, (sides, _) in prepared.items():
            for side, timed in sides.items():
                seconds[case][side].append(timed(max(args.steps, case[1].steps_per_call)))
    kept = {case: {side: values[args.warmup :] for side, values in sides.items()} for case, sides in seconds.items()}
    return [step_report.summarize(args, *case, kept, notes) for case, (_, notes) in prepared.items()]


def make_parser(description=__doc__):
    """The command line; lists are separated by commas."""
    words = lambda text: text.split(",")  # noqa: E731
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", type=words, default=["ncl_supervised", "ncl", "nclpp"])
    parser.add_argument("--torch", help="a Python with torch and NumPy; without it only ours is timed")
    parser.add_argument(
        "--tuned", type=pathlib.Path, help="what torch_tune.py wrote: PyTorch at its best is timed, too"
    )
    parser.add_argument("--strategies", type=words, default=["unroll"])
    parser.add_argument("--precisions", type=words, default=["float32"])
    parser.add_argument("--steps_per_call", type=lambda text: [int(n) for n in words(text)], default=[1])
    parser.add_argument("--num_experts", type=int, default=3, help="NCL++ always has 2")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--backbone", default="cifar_resnet", choices=("cifar_resnet", "resnet"))
    parser.add_argument("--depth", type=int, default=32)
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=2, help="repeats that are not counted")
    parser.add_argument("--steps", type=int, default=0, help="steps in a turn; 0: 1 on CPU, 100 on an accelerator")
    parser.add_argument("--out", type=pathlib.Path)
    return parser


def main():
    args = make_parser().parse_args()
    startup.prepare()
    jax.config.update("jax_enable_compilation_cache", False)  # compilation is timed, too
    args.steps = args.steps or (1 if jax.default_backend() == "cpu" else 100)
    with tempfile.TemporaryDirectory() as folder:
        peers = make_peers(args, folder)
        data = make_data(args.image_size)
        content = step_report.report(args, measure(args, data, peers), peers)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(content, indent=1) + "\n")
    print(step_report.text(content))


if __name__ == "__main__":
    main()
