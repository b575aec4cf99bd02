"""What a format writes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Artifact(NamedTuple):
    """A run's model, ready to be written."""

    predict: Callable[[jax.Array], jax.Array]  # uint8 [B, H, W, 3] RGB -> probabilities float32 [B, C]
    image_shape: tuple[int, int, int]  # H, W, 3
    variables: Any  # {"params", "batch_stats"} of all experts, [E, ...]
    expert: int | None  # None: the ensemble
    about: dict[str, Any]  # what must be known to use it; JSON
