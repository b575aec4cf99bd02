"""From images to scores: the one way that evaluation and loaded models use."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np


class Predictor:
    """Scores of images under given weights: a pure function, for use under `jit`.

    Args:
      apply: the experts, see `experts.make_apply`.
      normalize: uint8 [B, H, W, 3] to the network's float32 input.
      adjust: [C], added to the logits; see `priors.adjustment`.
      temperature: by which they are divided first; see `temperature.fit_temperature`.
    """

    def __init__(
        self,
        apply: Callable,
        normalize: Callable[[jax.Array], jax.Array],
        adjust: np.ndarray | None = None,
        temperature: float = 1.0,
    ):
        self._apply, self._normalize, self._adjust, self._temperature = apply, normalize, adjust, temperature

    def logits(self, variables: Any, images: jax.Array) -> jax.Array:
        """Every expert's scores, float32 `[E, B, C]`, of images uint8 `[B, H, W, 3]`.

        Args:
          variables: `{"params", "batch_stats"}` of stacked experts; the running statistics are used.
          images: RGB, of the size that the model was trained on.
        """
        return self.outputs(variables, images)["logits"]

    def outputs(self, variables: Any, images: jax.Array) -> dict[str, jax.Array]:
        """Every expert's `logits [E, B, C]` and `features [E, B, D]`; arguments as for `logits`."""
        outputs = self._apply(variables, self._normalize(images), False)[0]
        logits = outputs["logits"] if self._temperature == 1 else outputs["logits"] / self._temperature
        return outputs | {"logits": logits if self._adjust is None else logits + self._adjust}

    def scores(self, variables: Any, images: jax.Array, expert: int | None = None) -> jax.Array:
        """The scores `[B, C]` of the ensemble or of one expert."""
        return combine(self.logits(variables, images), expert)


Scores = TypeVar("Scores", jax.Array, np.ndarray)


def combine(logits: Scores, expert: int | None = None) -> Scores:
    """`[E, B, C]` to `[B, C]`: one expert's scores, or the ensemble's, the mean of the experts' raw scores (NCL)."""
    return logits.mean(0) if expert is None else logits[expert]


def embedding(features: Scores) -> Scores:
    """One vector of length 1 for each image, `[B, E * D]`, of its features `[E, B, D]`: each expert's of length 1, one
    after the other, over sqrt(E). The dot product of two images' is the mean of the experts' cosines."""
    number, images, _ = features.shape
    lengths = ((features**2).sum(-1, keepdims=True) + 1e-24) ** 0.5
    return (features / lengths / number**0.5).swapaxes(0, 1).reshape(images, -1)


def disagreement(winners: Any) -> Any:
    """The share `[B]` of the ordered pairs of experts that name different classes: `winners [E, B]`, the top class of
    each; 0 for one expert. For arrays of NumPy and JAX."""
    number = len(winners)
    return (winners[:, None] != winners[None]).sum((0, 1)) / max(number * (number - 1), 1)


def predictors(logits: jax.Array) -> jax.Array:
    """The ensemble's scores, then each expert's: `[E, B, C]` to float32 `[1 + E, B, C]`."""
    return jnp.concatenate([combine(logits)[None], logits]).astype(jnp.float32)
