"""Schedules that fit the length of their run: what cannot finish is scaled, what was chosen for a time is kept."""

from typing import Any

import ml_collections

from ncl_jax.config import build, recipes
from ncl_jax.config.fields import flatten, nested

SCALED = ("epochs", *recipes.SCALED, "loss.ramp_steps", "data.cached_views")  # what may change to fit a time
LONGEST_RAMP = 1 / 2  # of a run's steps: the rest is trained with all loss terms


def finishing(config: ml_collections.ConfigDict, steps_per_epoch: int) -> ml_collections.ConfigDict:
    """The same configuration with a ramp and a warm-up that end before the run does.

    A ramp (loss.ramp_steps) takes at most half of the steps; a warm-up without an epoch at the full rate after it
    becomes that of `recipes.scale_schedule`.
    """
    fitted = config.copy_and_resolve_references()
    most = max(1, int(LONGEST_RAMP * config.epochs * steps_per_epoch))
    fitted.loss.ramp_steps = min(config.loss.ramp_steps, most)
    if config.optim.warmup_epochs > config.epochs:
        fitted.optim.warmup_epochs = recipes.shortened_warmup(config.optim.warmup_epochs, config.epochs)
    return fitted


def shortened(config: ml_collections.ConfigDict, epochs: int) -> ml_collections.ConfigDict:
    """The same configuration in `epochs` epochs, as the argument epochs of a recipe makes it."""
    found = config.copy_and_resolve_references()
    if build.is_frozen(config) or config.loss.ramp_steps:
        recipes.scale_schedule(found, epochs)
    else:
        recipes.shorten(found, epochs)
    return found


def noted(before: ml_collections.ConfigDict, after: ml_collections.ConfigDict) -> dict[str, Any]:
    """What a run's `config.json` notes beside the fields: `scaled`, what those that were scaled had been, in sections;
    nothing where none was."""
    old, new = flatten(before), flatten(after)
    found = {name: old[name] for name in SCALED if old[name] != new[name]}
    return {"scaled": nested(found)} if found else {}


def as_begun(
    config: ml_collections.ConfigDict, stored: ml_collections.ConfigDict | None
) -> tuple[ml_collections.ConfigDict, dict[str, Any]]:
    """The configuration as a run that has begun scaled it, and what it noted.

    Fields that are what they were before take the values that the run stored, whatever the speed of the machine and the
    rules of this module are now.

    Args:
      config: as given.
      stored: the run's, with its notes; None: none has begun.
    """
    if stored is None or "scaled" not in stored:
        return config, {}
    found, kept, given = config.copy_and_resolve_references(), flatten(stored), flatten(config)
    before = flatten(stored.scaled)
    for name in SCALED:
        if name in before and given[name] == before[name]:
            value = kept[name]
            found.update_from_flattened_dict({name: tuple(value) if isinstance(value, list) else value})
    return found, {"scaled": stored.scaled.to_dict()}


def rescale(config: ml_collections.ConfigDict, before: int) -> None:
    """Moves milestones that lie behind the last epoch to the same fractions, where the number of epochs alone was
    changed from `before`."""
    milestones = config.optim.milestones
    if config.optim.schedule == "step" and 0 < config.epochs < max(milestones, default=0):
        config.optim.milestones = recipes.shortened_milestones(milestones, config.epochs / before, config.epochs)
