"""A trained model for use: `ncl_jax.load(workdir)`."""

import pathlib

import jax
import numpy as np


class Model:
    """A trained classifier: call it on images.

    Attributes:
      class_names: C names.
      config: the run's configuration.
      step: the checkpoint's step.
    """

    def __init__(self, predict, facts, config, step):
        self._predict, self._image_shape = predict, facts.image_shape
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
        return np.asarray(self._predict(images))


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
    from ncl_jax import build, evaluate, steps
    from ncl_jax.data import augment

    config = evaluate.read_config(pathlib.Path(workdir))
    num_experts = config.model.num_experts
    if expert is not None and not 0 <= expert < num_experts:
        raise ValueError(f"expert={expert}: the run has experts 0 to {num_experts - 1}")
    facts, restored = evaluate.restore(pathlib.Path(workdir), config, step)
    state = restored.state
    apply = steps.make_predict(build.network(config, facts.num_classes), build.strategy(config))

    @jax.jit
    def predict(images):
        images = augment.normalize(images, mean=config.data.mean, std=config.data.std)
        logits = apply(state.params, state.batch_stats, images)
        return logits.mean(0) if expert is None else logits[expert]

    return Model(predict, facts, config, restored.step)
