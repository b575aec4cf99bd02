"""What a run prints: every sentence on the console."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import ml_collections

from ncl_jax.config import adapted, backbone, build, recipes
from ncl_jax.config.fields import flatten
from ncl_jax.data.dataset import Data, Facts
from ncl_jax.data.images import decode, pixels
from ncl_jax.errors import printable
from ncl_jax.methods.ncl import WEIGHTS
from ncl_jax.methods.terms import WORDS, in_words
from ncl_jax.models.named import DEFAULT, NAMED
from ncl_jax.report import tables
from ncl_jax.runs.timing import Estimate, Pace
from ncl_jax.runtime import extras

# Features whose share of dead ones is above, or whose mean is below, carry next to nothing: docs/short_schedules.md.
COLLAPSED_DEAD, COLLAPSED_MEAN = 0.5, 0.02
WAITED = 0.1  # a larger share of an epoch spent waiting for data is worth a word
RECIPE = (
    "data.image_size", "data.augment", "model.backbone", "model.depth", "loss.name", "loss.num_hard",
    "optim.batch_size", "optim.learning_rate", "optim.schedule", "optim.warmup_epochs", "loss.ramp_steps",
)  # fmt: skip
SOON, LONG = 20, 30 * 60  # seconds: shorter runs are not estimated, for longer ones it is said what is faster
RAMPED = ("ncl", "nclpp", "distilled", "dbm")  # what grows its WEIGHTS over loss.ramp_steps
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
    rate, extend = build.learning_rates(config)[-1], noted["extend"]
    length = noted.get("steps_per_epoch") or data.facts.num_train // config.optim.batch_size
    lines = [
        description(data.facts, config, config.epochs + extend, device, workdir), recipe(config), *pretraining(config),
        *notes,
        *left_out(data.facts), *data.lines(), *scaled(config, noted.get("scaled", {})),
        *ramp(config, length), *extension(config.epochs, extend, rate), "initialising",
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
    """What a frozen backbone means, or that photographs would be better off with one."""
    if build.on_features(config):
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
    fields, unread = flatten(config), UNREAD_ON_FEATURES if build.on_features(config) else ()
    shown = " ".join(f"{name}={fields[name]}" for name in RECIPE if name not in unread)
    return f"recipe: {shown} (any field: --config.FIELD=VALUE)"


def scaled(config: ml_collections.ConfigDict, before: dict) -> list[str]:
    """What of a schedule was scaled to the length of the run, from what it had been."""
    old, new = flatten(before), flatten(config)
    changed = [f"{name} {old[name]} to {new[name]}" for name in old if name in new and old[name] != new[name]]
    return (
        [f"changed to fit the run's length ({config.epochs} epochs) or --time: {', '.join(changed)}"] if changed else []
    )


def ramp(config: ml_collections.ConfigDict, steps_per_epoch: int) -> list[str]:
    """Why the loss rises at first, where it does."""
    steps, grow = config.loss.ramp_steps, [name for name in WEIGHTS if config.loss[name]]
    if not steps or not grow or config.loss.name not in RAMPED:
        return []
    return [
        f"over the first {steps} steps ({steps / max(steps_per_epoch, 1):.2g} epochs) the loss terms for hard "
        "categories and for distillation between experts are switched on gradually (ramp): the loss rises meanwhile, "
        "which is expected"
    ]


def loss_terms(names: Collection[str]) -> str:
    """What a loss is the sum of, in words with the terms' names in `metrics.jsonl`."""
    terms = [f"{WORDS[name]} ({name})" if name in WORDS else name for name in in_order(names)]
    return f"the loss, the smaller the better, is the sum of: {', '.join(terms)}"


def in_order(names: Collection[str]) -> list[str]:
    """The names of loss terms as they are shown: those that have words first."""
    return [*filter(names.__contains__, WORDS), *(name for name in names if name not in WORDS)]


def epoch_line(record: dict, epochs: int, seconds: float, left: float) -> str:
    """The epoch on the console; `seconds` it took, `left` for what follows."""
    shown = [name for name in in_order(record["parts"]) if record["parts"][name]]
    parts = ", ".join(f"{in_words(name)} {record['parts'][name]:.3f}" for name in shown)
    return (
        f"epoch {record['epoch']}/{epochs}: loss {record['loss']:.3f} ({parts}), "
        f"learning rate {record['learning_rate']:.4g}, {record['images_per_second']:.0f} images/s, {seconds:.1f} s"
        + (f" ({100 * record['waited']:.0f} % waiting for data)" if "waited" in record else "")
        + (f", {duration(left)} left" if record["epoch"] < epochs else "")
    )


def estimate(found: Estimate, config: ml_collections.ConfigDict) -> list[str]:
    """How long a run will take, before it takes it, and what would make it shorter where that is long; nothing for
    one that is over soon."""
    if found.seconds < SOON:
        return []
    line = (
        f"this run will take about {duration(found.seconds)}: {found.epochs} epochs of {duration(found.epoch)}, "
        f"{found.evaluations} evaluations of {duration(found.evaluation)}. Ctrl-C saves and stops it; the same command "
        "continues"
    )
    return [line, f"shorter: {'; '.join(shorter(config))}"] if found.seconds > LONG else [line]


def shorter(config: ml_collections.ConfigDict) -> list[str]:
    """What would make a run shorter, the most useful first; each in another --workdir."""
    named, own = NAMED[DEFAULT], config.data.name in ("folder", "list")
    frozen, size = build.on_features(config), config.data.image_size
    found = [
        (own and not frozen, f"pretrained features, in minutes: backbone={DEFAULT} ({named.install})"),
        (True, "a new run with --time=30m, which chooses the number of epochs"),
        (not frozen and size >= 128, f"smaller images, image_size={size // 2}"),
        (not frozen and config.model.depth >= 50, "a smaller network, --config.model.depth=18"),
        (build.has_contrast(config) or config.loss.copies > 1, "method=ncl_supervised, with one view of each image"),
    ]  # fmt: skip
    return [text for applies, text in found if applies]


def fitted(pace: Pace, epochs: int, wanted: int, epoch_seconds: float, is_too_long: bool) -> list[str]:
    """How many epochs a run with a limit gets; `is_too_long`: not even one of them fits."""
    took = f"an epoch takes {duration(epoch_seconds)}, an evaluation {duration(pace.evaluation or 0)}"
    limit = f"--time={duration(pace.limit)}"
    if is_too_long:
        return [
            f"warning: {limit} is not enough for one epoch ({took}): the run ends in the middle of it. A smaller "
            "network, smaller images or pretrained features are faster"
        ]
    if epochs == wanted:
        return [f"{limit}: all {epochs} epochs fit; {took}"]
    return [f"{limit}: {epochs} of {wanted} epochs fit, and the schedule is scaled to them; {took}"]


def fitted_views(limit: float, views: int, wanted: int, needed: float, seconds: float) -> list[str]:
    """How many training views of each image a run with a limit gets; `needed`: seconds for their features, of
    `seconds` that there are."""
    took = f"--time={duration(limit)}: the features take about {duration(needed)}"
    if needed > seconds:
        return [
            f"warning: {took} even with one view of each training image, so the run takes longer than that. A smaller "
            "image_size is faster; the features are kept for other runs on the same images"
        ]
    fewer = f", with {views} of the {wanted} views of each training image (data.cached_views)" if views < wanted else ""
    return [f"{took}{fewer}"]


def stopped_early(best: dict, epoch: int, patience: int) -> str:
    """Why a run ended before its last epoch: its val split (`early`) did not improve."""
    return (
        f"stopped early after epoch {epoch}: for {patience} epochs (run.patience) the val split did not get better "
        f"than {100 * best['accuracy']:.2f} % after epoch {best['epoch']}. The figures are those of the last epoch"
    )


def time_up(epoch: int, epochs: int) -> str:
    """Why a run ended before its last epoch."""
    return f"the time is up after epoch {epoch} of {epochs}: the figures are of this state; the same command continues"


def duration(seconds: float) -> str:
    """`0.4 s`, `45 s`, `12 min` or `3 h 05 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 2 else f"{seconds:.1f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def extension(epochs: int, extend: int, rate: float) -> list[str]:
    """What extending a run does to its schedule."""
    text = f"extended by {extend} epochs, from {epochs} to {epochs + extend}: they are trained at the schedule's last "
    return [text + f"learning rate, {rate:.4g}; everything before stays the same"] if extend else []


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
    """An evaluation on the console."""
    ensemble, single = results["ensemble"], tables.mean_expert(results["experts"])["accuracy"]
    groups = {name: ensemble[name] for name in ("many", "medium", "few")}
    cells = ", ".join(f"{name} {'-' if value is None else f'{100 * value:.2f}'}" for name, value in groups.items())
    means = tables.mean_of_classes(results)
    first = "" if means is None else f"mean of classes {100 * means:.2f} %, "
    return f"  {first}test accuracy {100 * ensemble['accuracy']:.2f} % ({cells}), mean expert {100 * single:.2f} %"
