"""The class prior of a run's scores, and that of its training images."""

import numpy as np

from ncl_jax.config.plan import Plan, adjustment
from ncl_jax.errors import ConfigError
from ncl_jax.evaluation import priors


def to_train_prior(plan: Plan, prior: str | None) -> np.ndarray | None:
    """What moves logits that are meant for a prior, None for the run's own, to that of the training images; None where
    the run does not say what its scores are meant for."""
    try:
        wanted = priors.adjustment("train", plan.facts.class_counts, plan.prior_power())
        moved = adjustment(plan, prior)
    except ConfigError:
        return None
    return wanted if moved is None else wanted - moved
