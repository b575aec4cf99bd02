"""A run's records: the objects of `metrics.jsonl` and `results.json`, and the device in words."""

import pathlib
import platform
from collections.abc import Sequence
from importlib import metadata

import jax
import numpy as np

from ncl_jax._version import __version__
from ncl_jax.data.dataset import Facts
from ncl_jax.data.images import parallel

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy", "pillow")  # whose versions the figures depend on


def new_progress() -> dict:
    """The host-side record of a run that has done nothing yet."""
    return {"seconds": 0.0, "images_per_second": [], "best_on_test": None}


def device_name(devices: Sequence[jax.Device]) -> str:
    """The kind and number of the run's devices; for CPUs the processor and the cores that it may use."""
    if devices[0].platform != "cpu":
        return f"{len(devices)} x {devices[0].device_kind}"
    return f"{len(devices)} x CPU ({processor()}), {parallel.cores()} cores"


def processor() -> str:
    """The processor's name."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def epoch(history: dict, number: int, step: int, rate: float, images_per_second: float) -> dict:
    """An epoch's object: means over its steps' metrics, arrays `[steps]` by name, and the largest gradient norm."""
    means = jax.tree.map(lambda values: float(values.mean()), history)
    return {
        "epoch": number,
        "step": step,
        "loss": means.pop("loss"),
        "parts": means.pop("parts"),
        **means,
        "grad_norm_max": float(history["grad_norm"].max()),
        "learning_rate": float(rate),
        "images_per_second": images_per_second,
    }


def final(results: dict, facts: Facts, progress: dict, device: str, config: dict) -> dict:
    """The content of `results.json`.

    `seconds` is the time of the training steps alone; `images_per_second` the median over epochs, images of the data
    set, however many views are made of each.
    """
    return {
        "dataset": facts.name,
        "split": facts.split,
        "num_train": facts.num_train,
        "class_counts": list(facts.class_counts),
        "rows_checksum": facts.rows_checksum,
        **results,
        "best_on_test": progress["best_on_test"],
        **({"pretrained": progress["pretrained"]} if "pretrained" in progress else {}),
        "seconds": progress["seconds"],
        "images_per_second": float(np.median(speeds)) if (speeds := progress["images_per_second"]) else None,
        "device": device,
        "operations": progress.get("convolution"),
        "versions": {"ncl-jax": __version__, **{name: metadata.version(name) for name in LIBRARIES}},
        "config": config,
    }
