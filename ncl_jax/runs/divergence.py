"""A run whose numbers are no longer finite: found where an epoch ends or is saved, and which fields are the cause."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from ncl_jax.config import checks
from ncl_jax.config.fields import fields, flatten
from ncl_jax.errors import CheckpointError, Diverged
from ncl_jax.runs.setup import Run
from ncl_jax.training import steps

LARGE_PIXEL = 1e3  # normalised; those of photographs are below 5
ODD = 1e3  # times a field's default, above or below, at which a value is suspected first
SLOWER = "Lower optim.learning_rate, set loss.ramp_steps or lengthen optim.warmup_epochs"


def check_finite(run: Run, history: steps.Metrics, first_step: int) -> None:
    """Looks at the metrics `[steps]`, the first of which is of `first_step` (from 0), and at the state.

    Raises:
      Diverged: one is not finite; names what was so first, the fields that feed it, and the newest checkpoint.
    """
    finite = np.all([np.isfinite(values) for values in jax.tree.leaves(history)], axis=0)
    if not finite.all():
        bad = int(np.argmin(finite))
        values = jax.tree.map(lambda values: float(values[bad]), history)
        named = {"loss": values["loss"], **values["parts"], "grad_norm": values["grad_norm"]}
        row = ", ".join(f"{name}={value:.4g}" for name, value in named.items())
        why = cause(run.config, run.term_fields, values, first_step + bad)
        raise Diverged(f"step {first_step + bad + 1} is not finite: {row}; {_newest(run)}. {why}, in another --workdir")
    finite = np.asarray(run.are_finite(run.state))
    names = [name for name, good in zip(_leaves(run.state), finite, strict=True) if not good]
    if names:
        raise Diverged(
            f"after step {int(run.state.step)} the losses are finite, but {', '.join(names[:3])} in the state is not; "
            f"{_newest(run)}. {cause_in_state(run.config, names[0])}, in another --workdir"
        )


def _leaves(state):
    return [jax.tree_util.keystr(path)[1:] for path, leaf in jax.tree.leaves_with_path(state) if steps.is_inexact(leaf)]


def _newest(run):
    with contextlib.suppress(CheckpointError):
        run.checkpoints.wait()  # a save that fails leaves the list
    saved = run.checkpoints.steps()
    return f"the last good checkpoint is step {saved[-1]} in {run.checkpoints.path}" if saved else "no checkpoint yet"


def cause(
    config: ml_collections.ConfigDict, of_terms: Mapping[str, Sequence[str]], values: Mapping[str, Any], step: int
) -> str:
    """What to change, from the metrics of the first step (from 0) that were not finite.

    Asked in the order in which a step computes: the pixels, the features, the loss terms, the gradients, which are
    those of the largest term. Before the first step the learning rate has done nothing; later a term, which sees
    weights that may have grown without bounds, is blamed on its fields only where one is far from its default.

    Args:
      config: of the run.
      of_terms: see `Objective.fields`.
      values: the step's metrics by name.
      step: done before it.
    """
    if pixels := _pixels(config):
        return pixels
    if not np.isfinite(values.get("feature_mean", 0.0)):
        return _slower(config) if step else _of_start(config)
    term = next((name for name, value in values["parts"].items() if not np.isfinite(value)), None)
    term = term or max(values["parts"], key=lambda name: abs(values["parts"][name]))
    given = flatten(config)
    names = [name for name in of_terms.get(term, ()) if name in given and _is_read(config, name)]
    names = [name for name in names if is_odd(name, given[name])] or ([] if step else names)
    if not names and step:
        return _slower(config)
    fed = ", ".join(f"{name}={given[name]}" for name in names) or f"loss.name={config.loss.name}"
    return f"The first loss term that is not finite is {term}, which depends on {fed}: change that"


def _pixels(config):
    most = checks.largest_pixel(config.data.mean, config.data.std)
    where = f"data.mean={tuple(config.data.mean)} and data.std={tuple(config.data.std)}"
    return f"Normalised pixels are as large as {most:.2g}: change {where}" if most > LARGE_PIXEL else ""


def _slower(config):
    """What to change where the weights have grown without bounds."""
    given = flatten(config)
    odd = [name for name in ("optim.weight_decay", "optim.backbone_scale") if is_odd(name, given[name])]
    return f"Lower {', '.join(f'{name}={given[name]}' for name in odd)}" if odd else SLOWER


def _of_start(config):
    model = config.model
    what = f"change model.backbone={model.backbone}, model.depth={model.depth} or precision={config.precision}"
    if model.pretrained:
        what = f"replace the weights of model.pretrained={model.pretrained}"
    return f"The features are not finite from the start: {what}"


def _is_read(config, name):
    return name != "model.cosine_scale" or config.model.classifier != "linear"


def is_odd(name: str, value: Any) -> bool:
    """Whether a number, or one of several, is far from the field's default."""
    usual = fields()[name].default if name in fields() else 1
    if isinstance(value, list):
        return any(abs(number) > ODD for number in value)
    if not isinstance(value, int | float):
        return False
    return abs(value) > ODD * max(abs(usual), 1) or 0 < abs(value) < abs(usual) / ODD


def cause_in_state(config: ml_collections.ConfigDict, name: str) -> str:
    """What to change where the part `name` of the state, `memory['contrast'].keys`, is the first that is not finite."""
    if name.startswith("memory['contrast']") or ".encoder" in name:
        section = config.contrast
        return f"Change contrast.momentum={section.momentum} or contrast.temperature={section.temperature}"
    if name.startswith("memory"):
        return f"It is the method's own: change loss.name={config.loss.name}"
    return _pixels(config) or _slower(config)
