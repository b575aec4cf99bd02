"""The training images nearest to a run's mistakes, which its report shows."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ncl_jax.config.plan import Plan
from ncl_jax.data.dataset import Data
from ncl_jax.data.types import Split
from ncl_jax.errors import Interrupted, one_line
from ncl_jax.evaluation.predictions import NEAREST, Near, Nearest, sample
from ncl_jax.runs.embeddings import embed
from ncl_jax.runtime import console
from ncl_jax.trust import neighbours

MOST = 50_000  # training images that mistakes are compared with

Vectors = Callable[[np.ndarray], np.ndarray]  # rows [n] -> features [n, D]


def finder(plan: Plan, variables: Any, data: Data, features: Data | None = None) -> Nearest | None:
    """What finds the nearest training images, for `predictions.make`: a run's end does not fail where it cannot. None
    where a run has several processes: the first one alone writes the report, and the devices are everybody's.

    Args:
      plan: of the run.
      variables: as the model takes them; with a frozen backbone's, unless there are `features`.
      data: what the run was trained on and evaluated on, with images as they are in their files.
      features: the same with the features of a frozen backbone for images, where they are there already.
    """
    if jax.process_count() > 1:
        return None

    def nearest(rows: np.ndarray) -> Near | None:
        try:
            return find(rows, *vectors(plan, variables, data, features), data.train.labels)
        except Interrupted:
            raise
        except Exception as error:  # of files that have gone, of devices that are full
            console.say(f"note: the report does not show the training images nearest to mistakes ({one_line(error)})")
            return None

    return nearest


def vectors(plan: Plan, variables: Any, data: Data, features: Data | None) -> tuple[Vectors, Vectors]:
    """What gives the features of training images and of test images by their rows."""
    if features is not None:
        return (lambda rows: features.train.images[rows, 0]), (lambda rows: features.test.images[rows, 0])
    names = {"train": data.train, data.facts.split: data.test}
    if plan.trunk is not None:  # whole splits are in the cache, and with one vector an image not large
        whole = [embed(plan, variables, split, name) for name, split in names.items()]
        return whole[0].__getitem__, whole[1].__getitem__
    of_training, of_test = (_chosen(plan, variables, split, name) for name, split in names.items())
    return of_training, of_test


def _chosen(plan: Plan, variables: Any, split: Split, name: str) -> Vectors:
    return lambda rows: embed(plan, variables, split.take(rows), name)


def find(rows: np.ndarray, of_training: Vectors, of_test: Vectors, labels: np.ndarray) -> Near:
    """The nearest of `MOST` training images to test images; `labels` int [M] of all training images."""
    compared = sample(labels, MOST)
    places, distances = neighbours.nearest(of_test(rows), of_training(compared), NEAREST)
    near = compared[places].astype(np.int32)
    return Near(rows.astype(np.int32), near, np.asarray(labels)[near].astype(np.int32), distances)
