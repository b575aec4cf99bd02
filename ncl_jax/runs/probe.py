"""What simple classifiers reach on the features that a network has before it is trained further: what training it must
be worth."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import ml_collections

from ncl_jax.config import build
from ncl_jax.config.plan import TrainingPlan
from ncl_jax.data import dataset
from ncl_jax.models import FROZEN
from ncl_jax.runs import heads, trunk
from ncl_jax.runs.computing import Computing
from ncl_jax.runs.pretrained import Start


def baselines(
    plan: TrainingPlan,
    config: ml_collections.ConfigDict,
    start: Start,
    data: dataset.Data,
    between: Callable[[], None] = lambda: None,
) -> dict[str, dict[str, Any]]:
    """The figures of `heads.baselines` on the features of the weights that a run starts from; empty where it has a
    frozen backbone, whose features it has in the end as well, or starts from no backbone, or where it would take
    minutes.

    Args:
      plan, config, data: of the run.
      start: the weights; where the experts' differ, the first one's are taken.
      between: called where the work can stop and continue from the cache.

    Raises:
      DataError: an image cannot be read.
    """
    if plan.trunk is not None or start.variables is None or not heads.are_affordable(plan.facts):
        return {}
    frozen = frozen_plan(plan, config)
    one = {kind: jax.tree.map(lambda leaf: leaf[0], tree["backbone"]) for kind, tree in start.variables.items()}
    compute = Computing(frozen, one)
    train = trunk.features(frozen, one, data.train, "training", compute, after_shard=between)
    test = trunk.features(frozen, one, data.test, plan.facts.split, compute, after_shard=between)
    return heads.baselines(data._replace(train=train, test=test))


def frozen_plan(plan: TrainingPlan, config: ml_collections.ConfigDict) -> TrainingPlan:
    """The plan of a run as if its backbone were frozen, for the backbone's features."""
    config = config.copy_and_resolve_references()
    config.model.freeze = FROZEN
    backbone = build.trunk(config, build.operations(config, plan.mesh))
    return dataclasses.replace(plan, trunk=backbone, input_shape=build.input_shape(backbone, plan.facts))
