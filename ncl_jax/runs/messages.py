"""What a run prints: every sentence on the console."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import ml_collections

from ncl_jax.config import adapted, build, choose
from ncl_jax.config.fields import flatten
from ncl_jax.data.dataset import Data, Facts
from ncl_jax.data.images import decode, pixels
from ncl_jax.errors import printable
from ncl_jax.methods import METHODS
from ncl_jax.methods.ncl import WEIGHTS
from ncl_jax.methods.terms import WORDS, in_words
from ncl_jax.report import tables
from ncl_jax.runs import durations
from ncl_jax.runs.durations import RAMPED
from ncl_jax.runtime import extras

# Features whose share of dead ones is above, or whose mean is below, carry next to nothing: docs/short_schedules.md.
COLLAPSED_DEAD, COLLAPSED_MEAN = 0.5, 0.02
WAITED = 0.1  # a larger share of an epoch spent waiting for data is worth a word
WEIGHT_FIELDS = (*(f"loss.{name}" for name in WEIGHTS), "loss.diversity", "contrast.weight")
RECIPE = (
    "data.image_size", "data.augment", "model.backbone", "model.depth", "loss.num_hard",
    "optim.batch_size", "optim.learning_rate", "optim.schedule", "optim.warmup_epochs", "loss.ramp_steps",
)  # fmt: skip
UNREAD_ON_FEATURES = ("data.augment",)
SHOWN_CLASSES = 200  # of larger sets the first and the last are shown


def opening(
    config: ml_collections.ConfigDict,
    data: Data,
    notes: Sequence[str],
    noted: Mapping[str, Any],
    device: str,
    workdir: str,
) -> str:
    """What is about to run, before anything else; `notes` are of the machine, `noted` of the run (`RunDir.begin`),
    `device` is in words."""
    rates, extend = build.learning_rates(config).tolist(), noted["extend"]
    length = noted.get("steps_per_epoch") or data.facts.num_train // config.optim.batch_size
    lines = [
        description(data.facts, config, config.epochs + extend, device, workdir), recipe(config), *pretraining(config),
        *notes,
        *left_out(data.facts), *data.lines(), *durations.scaled(config, noted.get("scaled", {})),
        *durations.ramp(config, length), *durations.extension(config.epochs, extend, rates), "initialising",
    ]  # fmt: skip
    return "\n".join(lines)


def description(facts: Facts, config: ml_collections.ConfigDict, epochs: int, device: str, workdir: str) -> str:
    """The data, the network, the length and the place of a run; `device` in words."""
    counts = facts.class_counts
    shown = [str(count) for count in counts]
    if len(shown) > SHOWN_CLASSES:
        shown = [*shown[: SHOWN_CLASSES // 2], "...", *shown[-SHOWN_CLASSES // 2 :]]
    of_all = f"{config.model.backbone}-{config.model.depth}{adapted.describe(config.model)}"
    return (
        f"{facts.name}: {facts.num_train} training images in {facts.num_classes} classes, the largest with "
        f"{max(counts)}, the smallest with {min(counts)} (checksum of the chosen images: {facts.rows_checksum})\n"
        f"images per class: {' '.join(shown)}\n"
        f"{config.model.num_experts} experts, {of_all}; {epochs} epochs, batch {config.optim.batch_size}; {device}; "
        f"run directory {workdir}"
    )


def pretraining(config: ml_collections.ConfigDict) -> list[str]:
    """What a frozen backbone means."""
    if build.on_features(config):
        what = f"{config.model.backbone} from model.pretrained={config.model.pretrained}"
        how = "" if config.precision != "bfloat16" else " in bfloat16 (otherwise: precision=float32)"
        return [
            f"frozen backbone: {what}. Its features are computed once{how}, kept in the cache (ncl-jax cache list) and "
            "used by all experts, which take seconds to train. Training from random weights "
            "(backbone=resnet18,pretrained=none) takes hours and usually ends lower"
        ]
    return []


def recipe(config: ml_collections.ConfigDict) -> str:
    """The method, and the fields that people change most and that the run reads, as they would be passed."""
    fields, unread = flatten(config), UNREAD_ON_FEATURES if build.on_features(config) else ()
    if config.loss.name in RAMPED and not any(config.loss[name] for name in WEIGHTS):
        unread = (*unread, "loss.num_hard", "loss.ramp_steps")
    shown = " ".join(f"{name}={fields[name]}" for name in RECIPE if name not in unread)
    return f"method: {method(config)}\nrecipe: {shown} (any field: --config.FIELD=VALUE)"


def method(config: ml_collections.ConfigDict) -> str:
    """The name of the method and what it computes."""
    name = choose.method_of(config)
    known = METHODS.get(name.partition(" ")[0])
    return f"{name} ({known.description.replace('`', '')})" if known else name


def loss_terms(names: Collection[str], config: ml_collections.ConfigDict, fed: Mapping[str, Sequence[str]]) -> str:
    """What a loss is the sum of, in words with the terms' names in `metrics.jsonl`; without those whose
    weight is 0. `fed`: the fields that each is made with, see `Objective.fields`."""
    fields = flatten(config)
    count = [n for n in in_order(names) if all(fields.get(f, 1) for f in fed.get(n, ()) if f in WEIGHT_FIELDS)]
    terms = [f"{WORDS[name]} ({name})" if name in WORDS else name for name in count]
    return f"the loss, the smaller the better, is the sum of: {', '.join(terms)}"


def in_order(names: Collection[str]) -> list[str]:
    """The names of loss terms as they are shown: those that have words first."""
    return [*filter(names.__contains__, WORDS), *(name for name in names if name not in WORDS)]


def computing_features(images: int, views: int, name: str) -> list[str]:
    """What is about to take minutes, of the `name` images whose features are not in the cache; nothing for none."""
    if not images:
        return []
    each = f", {views} views of each" if views > 1 else ""
    return [
        f"computing the features of {images:,} {name} images{each}: they are kept in the cache, where runs on the same "
        "images find them"
    ]


def epoch_line(record: dict, epochs: int, seconds: float, left: float) -> str:
    """The epoch on the console; `seconds` it took, `left` for what follows."""
    shown = [name for name in in_order(record["parts"]) if record["parts"][name]]
    parts = ", ".join(f"{in_words(name)} {record['parts'][name]:.3f}" for name in shown)
    return (
        f"epoch {record['epoch']}/{epochs}: loss {record['loss']:.3f} ({parts}), "
        f"learning rate {record['learning_rate']:.4g}, {record['images_per_second']:,.0f} images/s, {seconds:.1f} s"
        + (f" ({100 * record['waited']:.0f} % waiting for data)" if "waited" in record else "")
        + (f", {durations.duration(left)} left" if record["epoch"] < epochs else "")
    )


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
    return f"compiling the training step of {count:,} parameters (all experts together)"


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
        + (f", or a faster decoder: {extras.install('jpeg')}" if decode.simplejpeg is None else "")
    )


def left_out(facts: Facts) -> list[str]:
    """A line for each split with skipped files."""
    lines = []
    for split, classes in facts.skipped.items():
        worst = ", ".join(
            f"{count} of {printable(name)}" for name, count in sorted(classes.items(), key=lambda item: -item[1])[:10]
        )
        lines.append(
            f"skipped in {split} (unreadable, or without a label, a file or an image): {sum(classes.values()):,} "
            f"({worst}); skipped.txt lists them"
        )
    return lines


def evaluation_line(results: dict) -> str:
    """An evaluation on the console; `split`: what it is of."""
    ensemble, single = results["ensemble"], tables.mean_expert(results["experts"])["accuracy"]
    cells = ", ".join(f"{name} {100 * ensemble[name]:.2f}" for name in tables.groups_of(ensemble))
    groups = f" ({cells})" if cells else ""
    means = tables.mean_of_classes(results)
    first = "" if means is None else f"mean of classes {100 * means:.2f} %, "
    split = results.get("split", "test")
    return f"  {first}{split} accuracy {100 * ensemble['accuracy']:.2f} %{groups}, mean expert {100 * single:.2f} %"
