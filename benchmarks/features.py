"""How many images a second go through EfficientNet-Lite0 for their features, beside PyTorch on the same machine?

    python benchmarks/features.py --torch=PYTHON [--batch=16] [--size=224] [--repeats=10] [--out=FILE]

PYTHON has torch and efficientnet-lite-pytorch. Both get the same weights and the same pixels, and their features must
agree before anything is timed; then they take turns, each idle while the other works. PyTorch runs channels last, with
as many threads as there are cores, as it is installed ("installed") and with glibc told to keep freed memory ("kept"),
as `runtime.memory.keep` does here; that is its best of what was tried.
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
from torch_peer import Peer

from ncl_jax.models import cpu
from ncl_jax.models.efficientnet import EfficientNetLite
from ncl_jax.runs import pretrained
from ncl_jax.storage.records import device_name
from ncl_jax.weights import names
from ncl_jax.weights.read import read_weights

KEPT = "MALLOC_MMAP_THRESHOLD_=4294967296,MALLOC_TRIM_THRESHOLD_=8589934592,MALLOC_TOP_PAD_=268435456"
TOLERANCE = 1e-4  # of the largest feature
CALLS = 3  # timed together, in each turn


def ours(images: np.ndarray):
    """A function that computes the features of the images, by the kernels where they are available."""
    tensors = read_weights(pretrained.find("efficientnet_lite0"))
    variables = {kind: tree["backbone"] for kind, tree in names.from_torch(tensors).items()}
    reason = cpu.load()
    if reason:
        raise SystemExit(f"the kernels are not available: {reason}")
    ready, apply = cpu.inference(EfficientNetLite(operations=cpu.OPERATIONS))
    held, program, pixels = jax.device_put(ready(variables)), jax.jit(apply), jax.device_put(images)
    return lambda: program(held, pixels).block_until_ready()


def seconds(function) -> float:
    """Of one call, the mean of a few."""
    began = time.perf_counter()
    for _ in range(CALLS):
        function()
    return (time.perf_counter() - began) / CALLS


def main() -> None:
    """Compares, times and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", required=True, help="Python with torch and efficientnet-lite-pytorch")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    images = np.random.RandomState(0).standard_normal((args.batch, args.size, args.size, 3)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "images.npy"
        np.save(path, images)
        peers = {
            name: Peer(args.torch, env, folder, "torch_features.py")
            for name, env in (("installed", ""), ("kept", KEPT))
        }
        run = ours(images)
        own = np.asarray(run())
        weights = str(pretrained.find("efficientnet_lite0"))
        for peer in peers.values():
            peer.ask("make", images=str(path), weights=weights, features=str(path.with_name("features.npy")))
            theirs = np.load(path.with_name("features.npy"))
            assert np.abs(own - theirs).max() < TOLERANCE * np.abs(theirs).max(), "the features differ"
        times: dict[str, list[float]] = {name: [] for name in ("ncl_jax", *peers)}
        for _ in range(args.repeats):
            times["ncl_jax"].append(seconds(run))
            for name, peer in peers.items():
                times[name].append(peer.ask("time", calls=CALLS)["seconds"])
    speeds = {name: args.batch / statistics.median(values) for name, values in times.items()}
    record = {
        "device": device_name(jax.devices()[:1]), "torch": peers["kept"].facts, "batch": args.batch, "size": args.size,
        "repeats": args.repeats, "seconds": times, "images_per_second": speeds,
    }  # fmt: skip
    for name, speed in speeds.items():
        print(f"{name:<12}{speed:8.1f} images/s   {speeds['ncl_jax'] / speed:5.2f} times as fast: ncl_jax")
    if args.out:
        args.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
