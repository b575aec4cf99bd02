"""A vector for every class from its name: zero-shot scores of image features, and a classifier that starts from it."""

from typing import NamedTuple

import numpy as np

from ncl_jax.trust.neighbours import unit


class ClassVectors(NamedTuple):
    """What classes are compared with by cosine.

    Attributes:
      vectors: float32 `[C, d]`, of length 1.
      projection: float32 `[D, d]`, from image features to the vectors' space (CLIP's); None: they are in it, d = D.
      scale: by which cosines are multiplied, for probabilities.
    """

    vectors: np.ndarray
    projection: np.ndarray | None = None
    scale: float = 100.0

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Zero-shot scores float32 `[N, C]` of image features `[N, D]`; softmax gives probabilities."""
        projected = features if self.projection is None else features @ self.projection
        return (self.scale * unit(projected) @ self.vectors.T).astype(np.float32)

    def kernel(self) -> np.ndarray:
        """The weights float32 `[D, C]` of a cosine classifier on image features: `w_c = normalise(v_c P^T)`, LIFT (Shi
        et al. 2024)."""
        rows = self.vectors if self.projection is None else self.vectors @ self.projection.T
        return unit(rows).T.astype(np.float32)

    @property
    def width(self) -> int:
        """D, the numbers of an image's features."""
        return self.vectors.shape[1] if self.projection is None else len(self.projection)
