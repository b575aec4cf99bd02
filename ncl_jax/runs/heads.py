"""Heads on the features of a frozen backbone: how they start, and what simple classifiers reach beside them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ncl_jax.config.plan import TrainingPlan
from ncl_jax.data import dataset
from ncl_jax.data.features.rows import Rows, moments, view_means
from ncl_jax.evaluation import metrics
from ncl_jax.evaluation.baselines import BASELINES
from ncl_jax.evaluation.class_vectors import ClassVectors
from ncl_jax.runtime import console, limits
from ncl_jax.training.steps import TrainState
from ncl_jax.trust.gaussian import class_means
from ncl_jax.trust.neighbours import unit

ZERO_SHOT = "zero-shot"  # the row of the classes' names, which needs no training image
LEAST = 1e-6  # deviation of a feature that is divided by
COPIES = 7  # of the test view of all training images that classifiers make, in float32
MOST_SCORES = 5 * 10**7  # training images times classes: more would take minutes


def start(
    plan: TrainingPlan,
    state: TrainState,
    features: np.ndarray | Rows,
    labels: np.ndarray,
    means: bool,
    vectors: ClassVectors | None = None,
) -> TrainState:
    """The state at step 0 with what follows from the training features.

    Args:
      plan: of the run.
      state: with random heads.
      features: float32 `[N, 1 + V, D]`.
      labels: int32 `[N]`.
      means: whether the classifier's weights start at the means of the classes.
      vectors: of the classes' names, at which they start otherwise; None: at random.
    """
    mean, deviation = np.zeros(1, np.float32), np.ones(1, np.float32)
    if "backbone" in state.batch_stats:
        mean, deviation = moments(features)
        mean, deviation = mean.astype(np.float32), np.maximum(deviation, LEAST)
        stats = {"mean": mean, "deviation": deviation}
        state = state._replace(batch_stats={"backbone": _like(state.batch_stats["backbone"], stats)})
    if means:
        of_class = class_means((view_means(features) - mean) / deviation, labels, plan.facts.num_classes)
        return _with_kernel(state, unit(of_class).T)
    return state if vectors is None else _with_kernel(state, vectors.kernel())


def with_copies(state: TrainState, frozen: Any) -> TrainState:
    """The state at step 0 of experts that train numbers of a frozen backbone's blocks: each begins with a copy.

    Args:
      state: with random ones, beside what is theirs alone.
      frozen: the backbone's variables.
    """
    of_trunk, own = flatten_dict(frozen["params"]), flatten_dict(state.params["backbone"])
    copies = {path: _like(leaf, of_trunk[path]) if path in of_trunk else leaf for path, leaf in own.items()}
    return state._replace(params=state.params | {"backbone": unflatten_dict(copies)})


def are_affordable(facts: dataset.Facts) -> bool:
    """Whether simple classifiers take seconds for data of this size."""
    return facts.num_train * facts.num_classes <= MOST_SCORES


def _with_kernel(state: TrainState, kernel: np.ndarray) -> TrainState:
    """The state with a classifier's weights `[D, C]`, the same for every expert."""
    classifier = state.params["classifier"]
    started = classifier | _like({"kernel": classifier["kernel"]}, {"kernel": kernel})
    return state._replace(params=state.params | {"classifier": started})


def baselines(data: dataset.Data, vectors: ClassVectors | None = None) -> dict[str, dict[str, Any]]:
    """The accuracy, over all and by group, of every classifier of `BASELINES`, without them where they would take
    minutes or more memory than there is; and of `ZERO_SHOT`.

    Args:
      data: with features for images, see `trunk.featurize`.
      vectors: of the classes' names; None: there are none.
    """
    facts = data.facts
    test, size = data.test.images[:, 0], COPIES * 4 * len(data.train) * data.train.images.shape[2]
    found = {} if vectors is None else {ZERO_SHOT: _figures(vectors.scores(test), data.test.labels, facts)}
    if not are_affordable(facts):
        return found
    if size > limits.host_memory():
        console.say(
            f"note: no simple classifiers beside the run: they would take {size / 1e9:,.1f} GB of memory, and this "
            f"machine has {limits.host_memory() / 1e9:,.1f} GB"
        )
        return found
    train = data.train.images[:, 0]
    return found | {
        name: _figures(make(train, data.train.labels, test, facts.num_classes), data.test.labels, facts)
        for name, make in BASELINES.items()
    }


def _figures(scores, labels, facts):
    scores = jnp.asarray(scores, jnp.float32)[None]
    sums, _ = metrics.evaluate_batch(scores, jnp.asarray(labels), jnp.ones(len(labels), bool))
    figures = metrics.summarize(sums, facts.groups())["ensemble"]
    return {name: figures[name] for name in ("accuracy", "many", "medium", "few", "per_class")}


def _like(old: Any, new: Any) -> Any:
    """One expert's arrays for all of them, in the types and places of the old ones `[E, ...]`."""
    return jax.tree.map(lambda o, n: jax.device_put(np.broadcast_to(n, o.shape).astype(o.dtype), o.sharding), old, new)
