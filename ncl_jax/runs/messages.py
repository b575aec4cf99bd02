"""What a run prints: every sentence on the console."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from ncl_jax.config import backbone, build, recipes
from ncl_jax.config.fields import flatten
from ncl_jax.data.dataset import Data, Facts
from ncl_jax.data.images import decode, pixels
from ncl_jax.errors import printable
from ncl_jax.models.named import DEFAULT, NAMED
from ncl_jax.report import tables

# Features whose share of dead ones is above, or whose mean is below, carry next to nothing: docs/short_schedules.md.
COLLAPSED_DEAD, COLLAPSED_MEAN = 0.5, 0.02
WAITED = 0.1  # a larger share of an epoch spent waiting for data is worth a word
RECIPE = (
    "data.image_size", "data.augment", "model.backbone", "model.depth", "loss.name", "loss.num_hard",
    "optim.batch_size", "optim.learning_rate", "optim.schedule", "optim.warmup_epochs", "loss.ramp_steps",
)  # fmt: skip
UNREAD_ON_FEATURES = ("data.augment",)
SHOWN_CLASSES = 200  # of larger sets the first and the last are shown


def opening(
    config: ml_collections.ConfigDict, data: Data, notes: Sequence[str], extend: int, device: str, workdir: str
) -> str:
    """What is about to run, before anything else; `notes` are of the machine, `device` is in words."""
    rate = build.learning_rates(config)[-1]
    lines = [
        description(data.facts, config, config.epochs + extend, device, workdir), recipe(config), *pretraining(config),
        *notes,
        *left_out(data.facts), *data.notes, *extension(config.epochs, extend, rate), "initialising",
    ]  # fmt: skip
    return "\n".join(lines)


def description(facts: Facts, config: ml_collections.ConfigDict, epochs: int, device: str, workdir: str) -> str:
    """The data, the network, the length and the place of a run; `device` in words."""
    counts = facts.class_counts
    shown = [str(count) for count in counts]
    if len(shown) > SHOWN_CLASSES:
        shown = [*shown[: SHOWN_CLASSES // 2], "...", *shown[-SHOWN_CLASSES // 2 :]]
    frozen = " (frozen, one for all)" if build.is_frozen(config) else ""
    network = f"{config.model.num_experts} experts, {config.model.backbone}-{config.model.depth}{frozen}"
    return (
        f"{facts.name}: {facts.num_train} training images, {facts.num_classes} classes of {max(counts)} to "
        f"{min(counts)}, rows {facts.rows_checksum}\n"
        f"images per class: {' '.join(shown)}\n"
        f"{network}; {epochs} epochs, batch {config.optim.batch_size}; {device}; run directory {workdir}"
    )


def pretraining(config: ml_collections.ConfigDict) -> list[str]:
    """What a frozen backbone means, or that photographs would be better off with one."""
    if build.is_frozen(config):
        what = f"{config.model.backbone} from model.pretrained={config.model.pretrained}"
        return [
            f"frozen backbone: {what}. Its features are computed once, kept in the cache (ncl-jax cache list) and used "
            "by all experts, which take seconds to train. Training from random weights "
            "(backbone=resnet18,pretrained=none) takes hours and usually ends lower"
        ]
    own = config.data.name in ("folder", "list") and config.data.image_size > recipes.LARGEST_SMALL
    named = NAMED[DEFAULT]
    if own and not config.model.pretrained and not backbone.is_installed(named):
        return [
            "photographs are trained from random weights here, for hours. With pretrained features it takes minutes "
            f"and usually ends higher: {named.install}, then the same command in another --workdir"
        ]
    return []


def recipe(config: ml_collections.ConfigDict) -> str:
    """The fields that people change most and that the run reads, as they would be passed."""
    fields, unread = flatten(config), UNREAD_ON_FEATURES if build.is_frozen(config) else ()
    shown = " ".join(f"{name}={fields[name]}" for name in RECIPE if name not in unread)
    return f"recipe: {shown} (any field: --config.FIELD=VALUE)"


def epoch_line(record: dict, epochs: int, seconds: float, left: float) -> str:
    """The epoch on the console; `seconds` it took, `left` for those that follow."""
    parts = " ".join(f"{name} {value:.3f}" for name, value in record["parts"].items() if value)
    return (
        f"epoch {record['epoch']}/{epochs}: loss {record['loss']:.3f} ({parts}), lr {record['learning_rate']:.4g}, "
        f"dead features {100 * record['dead_features']:.0f} %, gradient {record['grad_norm']:.2g}, "
        f"{record['images_per_second']:.0f} images/s, {seconds:.1f} s"
        + (f" ({100 * record['waited']:.0f} % waiting for data)" if "waited" in record else "")
        + (f", {duration(left)} left" if record["epoch"] < epochs else "")
    )


def time_left(images_per_second: list[float], images: int, epochs: int) -> float:
    """Seconds of the epochs to come, of `images` each, at the median speed of the last five; compilation is not in."""
    return (epochs - len(images_per_second)) * images / float(np.median(images_per_second[-5:]))


def duration(seconds: float) -> str:
    """`45 s`, `12 min` or `3 h 05 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def extension(epochs: int, extend: int, rate: float) -> list[str]:
    """What extending a run does to its schedule."""
    text = f"extended by {extend} epochs, from {epochs} to {epochs + extend}: they are trained at the schedule's last "
    return [text + f"learning rate, {rate:.4g}; all before is as without"] if extend else []


def other_machine(before: dict, now: dict) -> list[str]:
    """What it means that a run continues on another machine, number of devices or cores, or by other operations.

    Args:
      before: what the run noted of it (`convolution`, see `TrainingPlan.operations`, and `device`); older runs less.
      now: the same of this start.
    """
    names = {"convolution": "run.conv=", "device": ""}
    changed = [name for name in names if before.get(name) not in (None, now[name])]
    parts = [f"{names[name]}{before[name]} and continues with {names[name]}{now[name]}" for name in changed]
    text = (
        f"warning: this run had {'; it had '.join(parts)}: its figures agree with those of an unbroken run up to "
        "rounding; they are not bit-identical"
    )
    return [text] if parts else []


def accepted(noted: Mapping[str, Any]) -> list[str]:
    """What it means that a run was continued with other data; `noted` in its `config.json`."""
    text = "an epoch stays as many steps as it had, and the images that the run knows stay in their splits"
    return [f"the data has changed {line}; {text}" for line in noted.get("data_changed", ())]


def other_pixels(rule: int, of_files: bool) -> list[str]:
    """What it means that a run began by another rule for pixels than `pixels.VERSION`; nothing for arrays."""
    text = (
        f"note: this run began with images read by rule {rule or 'unknown'} of data/images/pixels.py, now it is rule "
        f"{pixels.VERSION}: TIFFs with an orientation and images of 16 bits, 32 bits or floats may look different to it"
    )
    return [text] if of_files and rule != pixels.VERSION else []


def size(params: Any) -> str:
    """What is about to be compiled."""
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    return f"compiling the training step of {count / 1e6:.3g} million parameters (all experts together)"


def collapse_warning(record: dict) -> str | None:
    """Says in plain words that the features carry next to nothing; None if they do not."""
    dead, mean = record["dead_features"], record["feature_mean"]
    if dead <= COLLAPSED_DEAD and mean >= COLLAPSED_MEAN:
        return None
    return (
        f"warning: the features have collapsed: {100 * dead:.0f} % of them are 0 for all images of a batch, their"
        f" mean is {mean:.2g}. They grow back, but over thousands of steps; for a short run set loss.ramp_steps "
        "(docs/short_schedules.md)"
    )


def wait_warning(record: dict) -> str | None:
    """Says what to do where the steps waited for data; None where they hardly did."""
    if record.get("waited", 0) < WAITED:
        return None
    return (
        f"the steps waited for data in {100 * record['waited']:.0f} % of the time: more cores or data.workers, or "
        "smaller image files (docs/data.md)"
        + (', or pip install "ncl_jax[jpeg]" for a faster decoder' if decode.simplejpeg is None else "")
    )


def left_out(facts: Facts) -> list[str]:
    """A line for each split that files were left out of."""
    lines = []
    for split, classes in facts.skipped.items():
        worst = ", ".join(
            f"{count} of {printable(name)}" for name, count in sorted(classes.items(), key=lambda item: -item[1])[:10]
        )
        lines.append(
            f"unreadable {split} images that are left out: {sum(classes.values())} ({worst}); skipped.txt lists them"
        )
    return lines


def evaluation_line(results: dict) -> str:
    """An evaluation on the console."""
    ensemble, single = results["ensemble"], tables.mean_expert(results["experts"])["accuracy"]
    groups = {name: ensemble[name] for name in ("many", "medium", "few")}
    cells = ", ".join(f"{name} {'-' if value is None else f'{100 * value:.2f}'}" for name, value in groups.items())
    means = tables.mean_of_classes(results)
    first = "" if means is None else f"mean of classes {100 * means:.2f} %, "
    return f"  {first}test accuracy {100 * ensemble['accuracy']:.2f} % ({cells}), mean expert {100 * single:.2f} %"
