"""A trained model for use: `ncl_jax.load(workdir)`."""

import contextlib
import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from ncl_jax import build
from ncl_jax.checkpoint import Checkpoints
from ncl_jax.data.pipeline import Facts
from ncl_jax.errors import CheckpointError
from ncl_jax.rundir import RunDir
from ncl_jax.sharding import make_mesh, replicated
from ncl_jax.steps import ModelState


class Model:
    """A trained classifier: call it on images.

    Attributes:
      class_names: C names.
      config: the run's configuration.
      step: the checkpoint's step.
    """

    def __init__(
        self,
        scores: Callable[[np.ndarray], jax.Array],
        facts: Facts,
        config: ml_collections.ConfigDict,
        step: int,
    ):
        self._scores, self._image_shape = scores, facts.image_shape
        self.class_names, self.config, self.step = facts.class_names, config, step

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Raw class scores of images: uint8 `[B, H, W, 3]` RGB gives float32 `[B, C]`; softmax gives probabilities.

        H and W are the training images'. Every new B is compiled once: use batches of one size.

        Raises:
          ValueError: for images of another type or shape.
        """
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != self._image_shape:
            expected = ", ".join(map(str, self._image_shape))
            raise ValueError(f"images are {images.dtype} {images.shape}: give uint8 [B, {expected}]")
        return np.asarray(self._scores(images))


def load(workdir: str | pathlib.Path, *, expert: int | None = None, step: int | None = None) -> Model:
    """Loads a run's model from its checkpoint.

    Args:
      workdir: the run's directory.
      expert: one expert's number; None for the ensemble, whose scores are the mean of the experts'.
      step: of the checkpoint; None for the latest good one.

    Raises:
      ConfigError, CheckpointError: the directory or its checkpoint cannot be read.
      ValueError: there is no such expert.
    """
    config, facts, restored = restore(RunDir(workdir), step)
    num_experts = config.model.num_experts
    if expert is not None and not 0 <= expert < num_experts:
        raise ValueError(f"expert={expert}: the run has experts 0 to {num_experts - 1}")
    predictor = build.predictor(config, facts.num_classes, make_mesh(1))
    program = jax.jit(functools.partial(predictor.scores, expert=expert))
    return Model(functools.partial(program, restored.variables), facts, config, restored.step)


class Weights(NamedTuple):
    """A checkpoint's weights."""

    variables: Any  # {"params", "batch_stats"}: [E, ...]
    step: int
    skipped: list[str]  # a line for every later checkpoint that could not be used


def restore(directory: RunDir, step: int | None) -> tuple[ml_collections.ConfigDict, Facts, Weights]:
    """A run's configuration, what its data was, and the weights of a checkpoint: the latest good one if `step` is None.

    Raises:
      ConfigError: the directory holds no run.
      CheckpointError: there is no checkpoint, or it is damaged.
    """
    config, facts = directory.read_config(), directory.read_facts()
    place = replicated(make_mesh(1))
    target: ModelState = jax.eval_shape(lambda: build.initial_model(config, facts))
    target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), target)
    with contextlib.closing(Checkpoints(directory.path, read_only=True)) as checkpoints:
        restored = checkpoints.restore(target, step)
    if restored is None:
        raise CheckpointError(f"{directory} holds no checkpoint yet")
    state = restored.state
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    return config, facts, Weights(variables, restored.step, restored.skipped)
