"""A trained model for use: `ncl_jax.load(workdir)`."""

import operator
import pathlib
from typing import Any, Literal

import flax.linen as nn
import jax
import ml_collections
import numpy as np

from ncl_jax.config import build
from ncl_jax.config.plan import adjustment, embedder, predictor, with_crops
from ncl_jax.data.dataset import Facts
from ncl_jax.data.images.decode import Images, prepare
from ncl_jax.evaluation.predictor import combine
from ncl_jax.runs.restore import restore
from ncl_jax.runs.temperature import find_temperature
from ncl_jax.runtime import settings
from ncl_jax.runtime.devices import own_mesh
from ncl_jax.storage.directory import RunDir


class Model:
    """A trained classifier: call it on images. It can be pickled.

    Attributes:
      class_names: C names.
      config: the run's configuration.
      step: the checkpoint's step.
      network: one expert's, a Flax module.
      variables: `{"params", "batch_stats"}` of all experts, every leaf `[E, ...]`, and `"trunk"`, those of the frozen
        backbone that the experts share, where there is one.
      apply: `(variables, images uint8 [B, H, W, 3]) -> {"logits" [E, B, C], "features" [E, B, D], ...}`, float32; a
        pure function for use under `jit`, with the prior and the temperature of the model.
    """

    @settings.holding
    def __init__(
        self,
        config: ml_collections.ConfigDict,
        facts: Facts,
        variables: Any,
        step: int,
        expert: int | None = None,
        prior: str | None = None,
        temperature: float = 1.0,
        crops: int = 1,
    ):
        plan = with_crops(build.make_plan(config, facts, own_mesh()), crops)
        self._made_of = (config, facts, step, expert, prior, temperature, crops)
        self._facts, self._expert, self._pixels = plan.facts, expert, plan.preprocessing
        self.class_names, self.config, self.step, self.variables = facts.class_names, config, step, variables
        self.network: nn.Module = plan.network
        self.apply = predictor(plan, adjustment(plan, prior), temperature).outputs
        self._outputs, self._embed = jax.jit(self.apply), jax.jit(embedder(plan))

    def __reduce__(self) -> tuple:
        config, facts, *rest = self._made_of
        return Model, (config, facts, jax.device_get(self.variables), *rest)

    @settings.holding
    def __call__(self, images: Images) -> np.ndarray:
        """Raw class scores of images, float32 `[B, C]`; softmax gives probabilities.

        Every new B is compiled once: use batches of one size.

        Args:
          images: see `decode.prepare`: arrays, paths, PIL images.

        Raises:
          ValueError: for an array of another type or shape.
          DataError: a file cannot be read.
        """
        return np.asarray(combine(self.experts(images), self._expert))

    @settings.holding
    def experts(self, images: Images) -> np.ndarray:
        """Every expert's raw scores, float32 `[E, B, C]`; arguments and errors as for a call."""
        return np.asarray(self._outputs(self.variables, self.prepare(images))["logits"])

    @settings.holding
    def features(self, images: Images) -> np.ndarray:
        """Every expert's features, what its classifier sees, float32 `[E, B, D]`; as for a call."""
        return np.asarray(self._outputs(self.variables, self.prepare(images))["features"])

    @settings.holding
    def embed(self, images: Images) -> np.ndarray:
        """One vector of length 1 for each image, float32 `[B, D]`, to compare images by (`predictor.embedding`): of a
        frozen backbone's features or else of every expert's, whichever expert was chosen; as for a call."""
        return np.asarray(self._embed(self.variables, self.prepare(images)))

    def prepare(self, images: Images) -> np.ndarray:
        """Images as the network takes them, uint8 `[B, H, W, 3]`, by the run's test transform; see `decode.prepare`."""
        pixels = self._pixels
        return prepare(images, self._facts.image_shape, pixels.resize, pixels.size, pixels.interpolation)


Model.__module__ = "ncl_jax"  # a pickle does not name the file that it is in


@settings.holding
def load(
    workdir: str | pathlib.Path,
    *,
    expert: int | None = None,
    step: int | Literal["best"] | None = None,
    prior: str | None = None,
    temperature: str | float | None = None,
    crops: int = 1,
) -> Model:
    """Loads a run's model from its checkpoint.

    Args:
      workdir: the run's directory.
      expert: one expert's number; None for the ensemble, whose scores are the mean of the experts'.
      step: of the checkpoint; "best" for the one that was best on the test set; None for the latest good one.
      prior: the class prior that is expected, "uniform", "train" or a file, see `priors.read`; None: scores as they
        were trained, which for balanced methods is uniform.
      temperature: a number by which scores are divided, or "val" to fit it, see `find_temperature`; None: 1.
      crops: 5 for the mean of the scores of an image's corners and centre, see `plan.with_crops`.

    Raises:
      ConfigError, CheckpointError: the directory, its checkpoint, the prior or the temperature cannot be read.
      DataError: there is nothing to fit a temperature on.
      ValueError: there is no such expert.
    """
    loaded = restore(RunDir(workdir), step, crops)
    plan = loaded.plan
    if expert is not None and (isinstance(expert, str) or not 0 <= operator.index(expert) < plan.num_experts):
        raise ValueError(f"expert={expert!r}: pass a number; the run has experts 0 to {plan.num_experts - 1}")
    divide = find_temperature(loaded, expert, temperature)
    facts = loaded.directory.read_facts()
    return Model(loaded.config, facts, loaded.variables, loaded.step, expert, prior, divide, crops)
