"""A model's figures over all that a data loader holds."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from jax.sharding import Mesh

from ncl_jax.data.feeds.feed import Feed, over
from ncl_jax.evaluation import metrics
from ncl_jax.evaluation.predictor import Predictor


def make_evaluate(
    predictor: Predictor, feed: Feed, mesh: Mesh, move: np.ndarray | None = None
) -> Callable[[Any], metrics.Evaluation]:
    """Makes `evaluate(variables) -> Evaluation` over all that a feed holds; `move`: see `metrics.evaluate_batch`.

    Nothing waits for the results, see `feed.over`.
    """

    def evaluate_batch(batch, variables):
        logits = predictor.logits(variables, batch.images[:, 0])
        return metrics.evaluate_batch(logits, batch.labels, batch.valid, move)

    of_batches = over(feed, mesh, evaluate_batch)

    def evaluate(variables: Any) -> metrics.Evaluation:
        sums, answers = zip(*of_batches(variables), strict=True)
        return metrics.Evaluation(functools.reduce(metrics.add, sums), list(answers))

    return evaluate
