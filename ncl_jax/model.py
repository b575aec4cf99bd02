"""A trained model for use: `ncl_jax.load(workdir)`."""

import contextlib
import operator
import pathlib
from typing import Any, Literal, NamedTuple

import jax
import ml_collections
import numpy as np

from ncl_jax import build, calibration, inputs
from ncl_jax.checkpoint import Checkpoints
from ncl_jax.data.images import Images, prepare
from ncl_jax.data.pipeline import Facts
from ncl_jax.errors import CheckpointError
from ncl_jax.predict import combine
from ncl_jax.rundir import RunDir
from ncl_jax.sharding import make_mesh, replicated
from ncl_jax.steps import ModelState


class Model:
    """A trained classifier: call it on images. It can be pickled.

    Attributes:
      class_names: C names.
      config: the run's configuration.
      step: the checkpoint's step.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        facts: Facts,
        weights: "Weights",
        expert: int | None,
        prior: str | None = None,
        temperature: float = 1.0,
    ):
        self._parts = (config, facts, weights, expert, prior, temperature)
        self._image_shape, self._sizes = facts.image_shape, inputs.image_sizes(config, facts)
        self.class_names, self.config, self.step = facts.class_names, config, weights.step
        adjust = build.adjustment(config, facts, prior)
        predictor = build.predictor(config, facts.num_classes, make_mesh(1), adjust=adjust, temperature=temperature)
        self._outputs = jax.jit(predictor.outputs)

    def __reduce__(self) -> tuple:
        config, facts, weights, *rest = self._parts
        return Model, (config, facts, weights._replace(variables=jax.device_get(weights.variables)), *rest)

    def __call__(self, images: Images) -> np.ndarray:
        """Raw class scores of images, float32 `[B, C]`; softmax gives probabilities.

        Every new B is compiled once: use batches of one size.

        Args:
          images: see `images.prepare`: arrays, paths, PIL images.

        Raises:
          ValueError: for an array of another type or shape.
          DataError: a file cannot be read.
        """
        return np.asarray(combine(self.experts(images), self._parts[3]))

    def experts(self, images: Images) -> np.ndarray:
        """Every expert's raw scores, float32 `[E, B, C]`; arguments and errors as for a call."""
        return np.asarray(self._outputs(self._parts[2].variables, self.prepare(images))["logits"])

    def features(self, images: Images) -> np.ndarray:
        """Every expert's features, what its classifier sees, float32 `[E, B, D]`; as for a call."""
        return np.asarray(self._outputs(self._parts[2].variables, self.prepare(images))["features"])

    def prepare(self, images: Images) -> np.ndarray:
        """Images as the network takes them, uint8 `[B, H, W, 3]`, by the run's test transform; see `images.prepare`."""
        return prepare(images, self._image_shape, *self._sizes)


def load(
    workdir: str | pathlib.Path,
    *,
    expert: int | None = None,
    step: int | Literal["best"] | None = None,
    prior: str | None = None,
    temperature: str | float | None = None,
) -> Model:
    """Loads a run's model from its checkpoint.

    Args:
      workdir: the run's directory.
      expert: one expert's number; None for the ensemble, whose scores are the mean of the experts'.
      step: of the checkpoint; "best" for the one that was best on the test set; None for the latest good one.
      prior: the class prior that is expected, "uniform", "train" or a file, see `priors.read`; None: scores as they
        were trained, which for balanced methods is uniform.
      temperature: a number by which scores are divided, or "val" to fit it, see `calibration.resolve`; None: 1.

    Raises:
      ConfigError, CheckpointError: the directory, its checkpoint, the prior or the temperature cannot be read.
      DataError: there is nothing to fit a temperature on.
      ValueError: there is no such expert.
    """
    directory = RunDir(workdir)
    config, facts, weights = restore(directory, step)
    num_experts = config.model.num_experts
    if expert is not None and (isinstance(expert, str) or not 0 <= operator.index(expert) < num_experts):
        raise ValueError(f"expert={expert!r}: give a number; the run has experts 0 to {num_experts - 1}")
    divide = calibration.resolve(directory, config, facts, weights.variables, weights.step, expert, temperature)
    return Model(config, facts, weights, expert, prior, divide)


class Weights(NamedTuple):
    """A checkpoint's weights."""

    variables: Any  # {"params", "batch_stats"}: [E, ...]
    step: int
    progress: dict  # the run's host-side record at that step
    skipped: list[str]  # a line for every later checkpoint that could not be used


def restore(directory: RunDir, step: int | Literal["best"] | None) -> tuple[ml_collections.ConfigDict, Facts, Weights]:
    """A run's configuration, what its data was, and the weights of a checkpoint; `step` as for `load`.

    Raises:
      ConfigError: the directory holds no run.
      CheckpointError: there is no checkpoint, or it is damaged.
    """
    config, facts = directory.read_config(), directory.read_facts()
    place = replicated(make_mesh(1))
    target: ModelState = jax.eval_shape(lambda: build.initial_model(config, facts))
    target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), target)
    with contextlib.closing(Checkpoints(directory.path, read_only=True)) as checkpoints:
        restored = checkpoints.restore(target, best_step(checkpoints) if step == "best" else step)
    if restored is None:
        raise CheckpointError(f"{directory} holds no checkpoint yet")
    state = restored.state
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    return config, facts, Weights(variables, restored.step, restored.progress, restored.skipped)


def best_step(checkpoints: Checkpoints) -> int:
    """The step of the checkpoint that was best on the test set. Raises CheckpointError where none was evaluated."""
    best = (checkpoints.peek() or {}).get("best")
    if not best:
        raise CheckpointError(f"{checkpoints.path} holds no checkpoint that was evaluated: leave step='best' out")
    return best["step"]
