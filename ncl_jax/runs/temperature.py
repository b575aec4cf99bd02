"""The temperature of a run's model: a number, or fitted on its val split and kept in its directory."""

import contextlib
import json
import math

import numpy as np

from ncl_jax.errors import ConfigError, DataError
from ncl_jax.evaluation import priors
from ncl_jax.evaluation.temperature import fit_temperature
from ncl_jax.runs.held_out import of_val
from ncl_jax.runs.restore import Loaded
from ncl_jax.runtime.files import write_text
from ncl_jax.runtime.schema import mapping, number, read_json
from ncl_jax.storage.directory import RunDir

MOST_FITTED = 2**20  # bytes of the file that keeps them


def find_temperature(loaded: Loaded, expert: int | None, wanted: str | float | None) -> float:
    """The temperature of a run's ensemble or of one expert.

    Args:
      loaded: the run's checkpoint.
      expert: its number; None for the ensemble.
      wanted: a number above 0; "val" for the one that fits the run's val split, which is then kept in the run's
        directory; None for 1.

    Raises:
      ConfigError: another value.
      DataError: the data is not there, or has no val split.
    """
    if wanted is None:
        return 1.0
    if wanted != "val":
        return _number(wanted)
    name = f"{loaded.step}/{'ensemble' if expert is None else expert}" + ("/5 crops" if loaded.plan.crop else "")
    known = _read(loaded.directory)
    if name not in known:
        known[name] = _fit_on_val(loaded, expert)
        with contextlib.suppress(OSError):  # a directory that cannot be written is none the worse for it
            write_text(loaded.directory.temperature, json.dumps(known, indent=1) + "\n")
    return known[name]


def _number(text: str | float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ConfigError(f"--temperature={text} must be a number above 0, or val")
    return number


def _read(directory: RunDir) -> dict[str, float]:
    """What was fitted before; nothing where that cannot be read."""
    try:
        return read_json(directory.temperature, MOST_FITTED, mapping(number(1e-6, 1e6)))
    except (OSError, ValueError, DataError):
        return {}


def _fit_on_val(loaded: Loaded, expert: int | None) -> float:
    facts = loaded.plan.facts
    own = priors.own(facts.class_counts, loaded.plan.prior_power())
    val = of_val(loaded, expert)
    if val is None:
        raise DataError(
            f"--temperature=val: {facts.name} has no val split. Pass a number, or train with "
            "--config.data.val_share=0.1, which holds a part of the training images out"
        )
    counts = np.bincount(val.labels, minlength=facts.num_classes)
    return fit_temperature(val.logits, val.labels, priors.log_ratio(counts / counts.sum(), own))
