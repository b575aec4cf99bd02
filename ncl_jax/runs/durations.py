"""What a run prints of its length: how long it takes, what its schedule became, why it ended when it did."""

from collections.abc import Sequence

import ml_collections

from ncl_jax.config import backbone, build, recipes
from ncl_jax.config.fields import flatten
from ncl_jax.methods.ncl import WEIGHTS
from ncl_jax.models.named import DEFAULT, NAMED
from ncl_jax.runs.next_steps import is_negligible, quoted
from ncl_jax.runs.timing import Estimate, Pace

RAMPED = ("ncl", "nclpp", "distilled", "dbm")  # what grows its WEIGHTS over loss.ramp_steps
PER_MINUTE = 2000  # images whose features two cores compute; with kernels, at 224 pixels
SOON, LONG = 20, 30 * 60  # seconds: shorter runs are not estimated, for longer ones it is said what is faster


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


def faster(config: ml_collections.ConfigDict, text: str, arguments: str) -> list[str]:
    """That own images are trained from random weights here, and the command that uses pretrained features instead.

    Args:
      config: of the run.
      text: the value of `--config` that it comes from.
      arguments: the command's other ones, as a shell takes them.
    """
    features = backbone.on_features(text)
    if not features or config.model.pretrained:
        return []
    small = config.data.image_size <= recipes.LARGEST_SMALL
    which = f"images of up to {recipes.LARGEST_SMALL} pixels" if small else "photographs"
    command = " ".join(filter(None, ["ncl-jax train", quoted(f"--config={features}"), arguments]))
    return [
        f"{which} are trained from random weights here, which takes far longer than heads on pretrained features: "
        f"those take about a minute for every {PER_MINUTE:,} images on two cores. With them, in another --workdir: "
        f"{backbone.installing(NAMED[DEFAULT])}{command}"
    ]


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
    install, own = backbone.installing(NAMED[DEFAULT]), config.data.name in ("folder", "list")
    frozen, size = build.on_features(config), config.data.image_size
    found = [
        (own and not frozen, f"pretrained features, in minutes: {install}--config=...,backbone={DEFAULT}"),
        (True, "a new run with --time=30m, which chooses the number of epochs"),
        (not frozen and size >= 128, f"smaller images, image_size={size // 2}"),
        (not frozen and config.model.depth >= 50, "a smaller network, --config.model.depth=18"),
        (build.has_contrast(config) or config.loss.copies > 1, "method=ncl_supervised, with one view of each image"),
    ]  # fmt: skip
    return [text for applies, text in found if applies]


def measuring(pace: Pace) -> str:
    """What takes up to a minute before the first epoch of a run with a limit."""
    return f"timing a few steps and an evaluation, to see how many epochs fit into --time={duration(pace.limit)}"


def fitted(
    pace: Pace, config: ml_collections.ConfigDict, epochs: int, epoch_seconds: float, is_too_long: bool
) -> list[str]:
    """How many epochs a run of this configuration with a limit gets; `is_too_long`: not even one of them fits."""
    wanted = config.epochs
    took = f"an epoch takes {duration(epoch_seconds)}, an evaluation {duration(pace.evaluation or 0)}"
    limit = f"--time={duration(pace.limit)}"
    if is_too_long:
        return [
            f"warning: {limit} is not enough for one epoch ({took}): the run ends in the middle of it. Ctrl-C stops "
            f"it; what is shorter, in another --workdir: {'; '.join(shorter(config))}"
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


def extension(epochs: int, extend: int, rates: Sequence[float]) -> list[str]:
    """What extending a run of `epochs` with these learning rates does to its schedule."""
    if not extend:
        return []
    text = f"extended by {extend} epochs, from {epochs} to {epochs + extend}: they are trained at the schedule's last "
    lines = [text + f"learning rate, {rates[-1]:.4g}; everything before stays the same"]
    if is_negligible(rates[-1], max(rates)):
        lines.append(
            f"warning: that learning rate is next to nothing beside the run's highest, {max(rates):.4g}: the figures "
            f"will hardly change. A new run with a longer schedule (--config.epochs={2 * epochs} and another --workdir)"
            " learns more"
        )
    return lines


def counted(epochs: int, extend: int, given: int) -> list[str]:
    """What --extend=`given` counts from, where it trains nothing: the run of `epochs` has `extend` more already."""
    if not 0 < given <= extend:
        return []
    return [
        f"--extend={given} counts from the {epochs} epochs of the configuration, and this run has been extended to "
        f"{epochs + extend} already: --extend={extend + given} trains {given} more"
    ]
