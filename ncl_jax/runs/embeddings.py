"""The embeddings of a split's images: what similar images, unknown ones and duplicates are found by."""

from typing import Any

import jax
import numpy as np

from ncl_jax.config.loading import test_feed
from ncl_jax.config.plan import Plan, embedder
from ncl_jax.data.feeds.feed import over
from ncl_jax.data.types import Split
from ncl_jax.evaluation.predictor import embedding
from ncl_jax.models.experts import without_trunk
from ncl_jax.runs import trunk


def embed(plan: Plan, variables: Any, split: Split, name: str) -> np.ndarray:
    """The embedding of every image of a split, float32 `[N, D]`, as `Model.embed` gives it.

    Args:
      plan: of the run.
      variables: of all experts, and of a frozen backbone under "trunk", whose features come from the cache.
      split: images and labels, whole: another choice of rows has other features in the cache.
      name: of the split, as in `Data.splits`.

    Raises:
      DataError: an image cannot be read.
    """
    if plan.trunk is None:
        return _by_experts(plan, without_trunk(variables), split, name)
    found = trunk.test_views(plan, variables["trunk"], split, name)
    return np.asarray(embedding(found[None]))


def _by_experts(plan, variables, split, name):
    assert plan.mesh is not None
    of_images = embedder(plan)

    def of_batch(batch, variables):
        return of_images(variables, batch.images[:, 0]), batch.valid

    batches = jax.device_get(over(test_feed(plan, split, name), plan.mesh, of_batch)(variables))
    return np.concatenate([rows if valid is None else rows[valid] for rows, valid in batches])
