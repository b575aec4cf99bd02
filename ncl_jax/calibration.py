"""Temperature scaling (Guo et al. 2017): one number by which scores are divided, so that confidence means frequency."""

import contextlib
import json
import math
from typing import Any

import jax
import ml_collections
import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from ncl_jax import build, inputs, priors
from ncl_jax.data import feeds, pipeline
from ncl_jax.data.pipeline import Facts
from ncl_jax.errors import ConfigError, DataError
from ncl_jax.predict import combine
from ncl_jax.rundir import RunDir, write_text
from ncl_jax.sharding import make_mesh

TEMPERATURE_HELP = "divides the scores: a number, or val to fit it on the run's val split; 1 if not given"
BOUNDS = (0.02, 50.0)


def fit(logits: np.ndarray, labels: np.ndarray, adjust: np.ndarray) -> float:
    """The temperature of lowest negative log-likelihood.

    Args:
      logits: `[N, C]` scores.
      labels: `[N]`.
      adjust: `[C]`, added to the divided scores: the log of these images' own class prior (`priors.log_ratio`). A
        temperature that is fitted on long-tailed images is then good for any other prior.
    """

    def nll(log_temperature: float) -> float:
        scores = logits / math.exp(log_temperature) + adjust
        return float((logsumexp(scores, axis=-1) - scores[np.arange(len(labels)), labels]).mean())

    return math.exp(minimize_scalar(nll, bounds=tuple(map(math.log, BOUNDS)), method="bounded").x)


def resolve(
    directory: RunDir,
    config: ml_collections.ConfigDict,
    facts: Facts,
    variables: Any,
    step: int,
    expert: int | None,
    wanted: str | float | None,
) -> float:
    """The temperature of a run's ensemble or of one expert.

    Args:
      directory, config, facts, variables, step: of the run and its checkpoint.
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
    name = f"{step}/{'ensemble' if expert is None else expert}"
    known = _read(directory)
    if name not in known:
        known[name] = _fit_on_val(directory, config, facts, variables, expert)
        with contextlib.suppress(OSError):  # a directory that cannot be written is none the worse for it
            write_text(directory.temperature, json.dumps(known, indent=1) + "\n")
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
    try:
        return {name: _number(value) for name, value in json.loads(directory.temperature.read_text()).items()}
    except (OSError, ValueError, AttributeError, TypeError, ConfigError):
        return {}


def _fit_on_val(directory, config, facts, variables, expert) -> float:
    val = inputs.same_data(config, directory).splits().get("val")
    if val is None:
        raise DataError(
            f"--temperature=val: {facts.name} has no val split. Give a number, or train with "
            "--config.data.val_share=0.1, which holds a part of the training images out"
        )
    if config.data.skip_unreadable:
        val, _ = pipeline.readable(val, facts.class_names, "val")
    mesh = make_mesh(1)
    predictor = build.predictor(config, facts.num_classes, mesh)
    feed = inputs.test_feed(config, val, "val", facts, mesh)

    def scores(batch, variables):
        return combine(predictor.logits(variables, batch.images[:, 0]), expert), batch.valid

    batches = jax.device_get(feeds.over(feed, mesh, scores)(variables))
    logits = np.concatenate([rows if valid is None else rows[valid] for rows, valid in batches])
    counts = np.bincount(val.labels, minlength=facts.num_classes)
    own = priors.own(facts.class_counts, build.prior_power(config, facts))
    return fit(logits.astype(np.float64), val.labels, priors.log_ratio(counts / counts.sum(), own))
