"""How many images a second go through a frozen backbone for their features, beside PyTorch on the same machine?

    python benchmarks/features.py --torch=PYTHON --backbone=resnet50 [--batch=32] [--size=224] [--repeats=8]
        [--out=FILE]

PYTHON has torch and timm; images are channels last there. Both get the same seeded weights and pixels, and their
features must agree, in each of PyTorch's forms, before anything is timed. Then PyTorch's best is looked for: as
installed and, with freed memory kept as `runtime.memory.keep` does here, eager, traced and frozen, and compiled (the
last two fold batch normalisation). The best, PyTorch as installed, and ours take turns, each idle while the others
work.
"""

# ruff: noqa: E402

import argparse
import json
import pathlib
import statistics
import tempfile
import time

from ncl_jax.runtime import memory

memory.keep()  # before there are threads

import jax
import numpy as np
import roofline
from torch_peer import Peer, environments

from ncl_jax.models import cpu, make_backbone
from ncl_jax.models.layers import XLA
from ncl_jax.models.named import NAMED
from ncl_jax.storage.records import device_name
from ncl_jax.weights import names
from ncl_jax.weights.read import read_weights

TIMM = {
    "resnet18": "resnet18", "resnet34": "resnet34", "resnet50": "resnet50", "resnet101": "resnet101",
    "resnet152": "resnet152", "efficientnet_lite0": "tf_efficientnet_lite0", "vit_small": "vit_small_patch16_224",
    "vit_base": "vit_base_patch16_224", "dinov2_small": "vit_small_patch14_dinov2", "convnext_tiny": "convnext_tiny",
}  # by our names  # fmt: skip
FORMS = {"as installed": ["eager"], "memory kept": ["eager", "frozen", "compiled"]}  # of PyTorch, by environment
INSTALLED = ("as installed", "eager")
TOLERANCE = 1e-4  # of the largest feature


def ours(backbone: str, weights: pathlib.Path, images: np.ndarray):
    """A function that computes the features of the images by the kernels, and the milliseconds
    that its operations, done one by one, would take at the speed of a large matrix product."""
    named = NAMED[backbone]
    variables = {kind: tree["backbone"] for kind, tree in names.from_torch(read_weights(weights)).items()}
    shape = {"backbone": named.backbone, "depth": named.depth, "width": named.width, "precision": "float32"}
    reason = cpu.load()
    if reason:
        raise SystemExit(f"the kernels are not available: {reason}")
    ready, apply = cpu.inference(make_backbone(**shape, operations=cpu.OPERATIONS))
    held, program, pixels = jax.device_put(ready(variables)), jax.jit(apply), jax.device_put(images)
    plain = make_backbone(**shape, operations=XLA)
    work = jax.jit(lambda v, x: plain.apply(v, x, False)).lower(variables, images).cost_analysis()["flops"]
    return lambda: program(held, pixels).block_until_ready(), 1000 * work / roofline.ceilings("float32")[0]


def seconds(function) -> float:
    """Of one call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def start(python: str, backbone: str, folder: str, images: np.ndarray):
    """PyTorch's processes by name, with all forms made, where their weights are and, by place, their features."""
    path = pathlib.Path(folder)
    np.save(path / "images.npy", images)
    peers = {name: Peer(python, environments()[name], folder, "torch_features.py") for name in FORMS}
    common = {"name": TIMM[backbone], "images": str(path / "images.npy")}
    peers[INSTALLED[0]].ask("weights", name=TIMM[backbone], path=str(path / "model.safetensors"))
    for number, (name, peer) in enumerate(peers.items()):
        peer.ask("make", **common, forms=FORMS[name], features=str(path / f"features{number}_{{}}.npy"))
    return peers, path / "model.safetensors", sorted(path.glob("features*.npy"))


def main() -> None:
    """Compares, times and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", required=True, help="Python with torch and timm")
    parser.add_argument("--backbone", choices=TIMM, default="efficientnet_lite0")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    images = np.random.RandomState(0).standard_normal((args.batch, args.size, args.size, 3)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        peers, weights, theirs = start(args.torch, args.backbone, folder, images)
        run, bound = ours(args.backbone, weights, images)
        own = np.asarray(run())
        for features in map(np.load, theirs):
            assert np.abs(own - features).max() < TOLERANCE * np.abs(features).max(), "the features differ"
        ask = {(name, form): lambda name=name, form=form: peers[name].ask("time", form=form, calls=1)["seconds"]
               for name in FORMS for form in FORMS[name]}  # fmt: skip
        tried = {key: min(time(), time()) for key, time in ask.items()}
        best = min(tried, key=tried.get)
        turns = {"ncl_jax": lambda: seconds(run), "installed": ask[INSTALLED], "best": ask[best]}
        times: dict[str, list[float]] = {name: [] for name in turns}
        for _ in range(args.repeats):
            for name, turn in turns.items():
                times[name].append(turn())
    speeds = {name: args.batch / statistics.median(values) for name, values in times.items()}
    record = {
        "device": device_name(jax.devices()[:1]), "torch": peers[INSTALLED[0]].facts, "backbone": args.backbone,
        "batch": args.batch, "size": args.size, "repeats": args.repeats, "best": ", ".join(best),
        "tried_seconds": {", ".join(key): value for key, value in tried.items()}, "seconds": times,
        "images_per_second": speeds, "arithmetic_ms": bound,
    }  # fmt: skip
    print(f"{args.backbone}; PyTorch's best: {record['best']}; arithmetic alone: {bound:.0f} ms a batch")
    for name, speed in speeds.items():
        ratios = [theirs / own for own, theirs in zip(times["ncl_jax"], times[name], strict=True)]
        print(f"{name:<12}{speed:8.1f} images/s   ncl_jax is {statistics.median(ratios):5.2f} times as fast"
              f" ({min(ratios):.2f} to {max(ratios):.2f})")  # fmt: skip
    if args.out:
        args.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
