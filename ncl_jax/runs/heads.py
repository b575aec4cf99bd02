"""How heads on the features of a frozen backbone start: standardised, at the means of the classes."""

from typing import Any

import jax
import numpy as np

from ncl_jax.config.plan import TrainingPlan
from ncl_jax.losses import l2_normalize
from ncl_jax.training.steps import TrainState

LEAST = 1e-6  # deviation of a feature that is divided by


def start(plan: TrainingPlan, state: TrainState, features: np.ndarray, labels: np.ndarray, means: bool) -> TrainState:
    """The state at step 0 with what follows from the training features.

    Args:
      plan: of the run.
      state: with random heads.
      features: float32 `[N, V, D]`.
      labels: int32 `[N]`.
      means: whether the classifier's weights start at the means of the classes.
    """
    mean, deviation = np.zeros(1, np.float32), np.ones(1, np.float32)
    if "backbone" in state.batch_stats:
        mean, deviation = features.mean((0, 1)), np.maximum(features.std((0, 1)), LEAST)
        stats = {"mean": mean, "deviation": deviation}
        state = state._replace(batch_stats={"backbone": _like(state.batch_stats["backbone"], stats)})
    if means:
        of_class = class_means((features.mean(1) - mean) / deviation, labels, plan.facts.num_classes)
        kernel = np.asarray(l2_normalize(of_class)).T
        classifier = state.params["classifier"]
        started = classifier | _like({"kernel": classifier["kernel"]}, {"kernel": kernel})
        state = state._replace(params=state.params | {"classifier": started})
    return state


def class_means(features: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The mean `[C, D]` of the features `[N, D]` of every class; each has one at least."""
    sums = np.zeros((num_classes, features.shape[1]), np.float64)
    np.add.at(sums, labels, features)
    return (sums / np.bincount(labels, minlength=num_classes)[:, None]).astype(np.float32)


def _like(old: Any, new: Any) -> Any:
    """One expert's arrays for all of them, in the types and places of the old ones `[E, ...]`."""
    return jax.tree.map(lambda o, n: jax.device_put(np.broadcast_to(n, o.shape).astype(o.dtype), o.sharding), old, new)
