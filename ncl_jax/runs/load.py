"""A trained model for use: `ncl_jax.load(workdir)`."""

import operator
import pathlib
from typing import Any, Literal

import flax.linen as nn
import jax
import ml_collections
import numpy as np
from scipy.special import softmax

from ncl_jax.config import build
from ncl_jax.config.crops import with_crops
from ncl_jax.config.plan import adjustment, embedder, predictor
from ncl_jax.data.dataset import Facts
from ncl_jax.data.images.decode import Images, prepare
from ncl_jax.errors import ConfigError
from ncl_jax.evaluation.predictor import combine
from ncl_jax.runs import trust
from ncl_jax.runs.restore import Loaded, restore
from ncl_jax.runs.temperature import find_temperature
from ncl_jax.runtime import settings
from ncl_jax.runtime.devices import own_mesh
from ncl_jax.storage.directory import RunDir
from ncl_jax.trust.known import Known, p_values
from ncl_jax.trust.sets import Rule, calibrate, check, predict_sets

TINY = np.finfo(np.float32).tiny


class Model:
    """A trained classifier: call it on images. It can be pickled.

    Attributes:
      class_names: C names.
      config: the run's configuration.
      facts: what the run's data is.
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
        workdir: str | pathlib.Path | None = None,
    ):
        plan = with_crops(build.make_plan(config, facts, own_mesh()), crops)
        self._made_of = (config, facts, step, expert, prior, temperature, crops, workdir)
        self._plan, self._workdir, self._adjust, self._temperature = plan, workdir, adjustment(plan, prior), temperature
        self.facts, self._expert, self._pixels, self._crops = plan.facts, expert, plan.preprocessing, crops
        self._calibrated_by: trust.Calibration | None = None  # read or made when it is first asked for
        self.class_names, self.config, self.step, self.variables = facts.class_names, config, step, variables
        self.network: nn.Module = plan.network
        self.apply, embed = predictor(plan, self._adjust, temperature).outputs, embedder(plan)
        self._outputs, self._embed = jax.jit(self.apply), jax.jit(embed)
        self._both = jax.jit(lambda held, pixels: (self.apply(held, pixels)["logits"], embed(held, pixels)))

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

    def probabilities(self, images: Images) -> np.ndarray:
        """Probabilities of the classes, float32 `[B, C]`, under the model's prior and temperature; as for a call."""
        return softmax(self(images), axis=-1)

    def sets(
        self,
        images: Images,
        coverage: float = 0.9,
        promise: str = "marginal",
        weights: np.ndarray | None = None,
    ) -> np.ndarray:
        """The prediction set of every image, bool `[B, C]`: the classes that it may be; docs/trust.md.

        Args:
          images: as for a call, or `[B, C]` numbers that `probabilities` gave.
          coverage, promise, weights: see `sets.calibrate`.

        Raises:
          ConfigError: a coverage, promise or weights that there cannot be.
          DataError: there are no images to calibrate on, see `held_out.held_out`.
        """
        given = isinstance(images, np.ndarray) and images.ndim == 2
        scores = np.log(np.maximum(np.asarray(images), TINY)) if given else self(images)
        return predict_sets(self.set_rule(coverage, promise, weights), self.calibrated(scores))

    def set_rule(self, coverage: float, promise: str = "marginal", weights: np.ndarray | None = None) -> Rule:
        """What makes prediction sets of `calibrated` probabilities; as for `sets`."""
        check(coverage, promise)
        found = self.calibration()
        return calibrate(found.true, found.labels, trust.train_prior(self.facts), coverage, promise, weights)

    def calibrated(self, scores: np.ndarray) -> np.ndarray:
        """The probabilities float64 `[B, C]` under the training prior of scores `[B, C]` that a call gave, by the
        temperature that fits images which were not trained on. Raises DataError, see `sets`."""
        fitted = self.calibration().temperature
        raw = (scores - (0.0 if self._adjust is None else self._adjust)) * self._temperature
        return trust.probabilities(raw, fitted, self.facts, self._plan.prior_power())

    def known(self, images: Images) -> np.ndarray:
        """How like the training images images are: p-values, float32 `[B]`: below 0.05 it is unlike anything
        in training at the 5 % level; docs/trust.md. Images as for a call.

        Raises:
          DataError: the training images have not been measured yet, and are not there any more.
        """
        return p_values(self.knownness(), self.embed(images))

    def knownness(self) -> Known:
        """What `known` measures with. Raises DataError, see there."""
        return trust.known(self._loaded())

    def calibration(self) -> trust.Calibration:
        """What images that were not trained on say of the model's probabilities. Raises DataError, see `sets`."""
        if self._calibrated_by is None:
            self._calibrated_by = trust.calibration(self._loaded(), self._expert)
        return self._calibrated_by

    def _loaded(self) -> Loaded:
        """The checkpoint that the model is of. Raises ConfigError for one that came from no run, and for five crops."""
        if self._crops != 1:
            raise ConfigError(
                f"crops={self._crops}: sets, known-ness and the mix are calibrated on whole images, crops=1"
            )
        if self._workdir is None:
            raise ConfigError("the model has no run's directory to be calibrated by: load it by ncl_jax.load(workdir)")
        return Loaded(RunDir(self._workdir), self.config, self._plan, self.variables, self.step, {}, [])

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

    @settings.holding
    def experts_and_embeddings(self, images: Images) -> tuple[np.ndarray, np.ndarray]:
        """What `experts` and `embed` give, in one pass."""
        logits, vectors = self._both(self.variables, self.prepare(images))
        return np.asarray(logits), np.asarray(vectors)

    def prepare(self, images: Images) -> np.ndarray:
        """Images as the network takes them, uint8 `[B, H, W, 3]`, by the run's test transform; see `decode.prepare`."""
        pixels = self._pixels
        return prepare(images, self.facts.image_shape, pixels.resize, pixels.size, pixels.interpolation)


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
      crops: 5 for the mean of the scores of an image's corners and centre, see `crops.with_crops`.

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
    return Model(loaded.config, facts, loaded.variables, loaded.step, expert, prior, divide, crops, workdir)
