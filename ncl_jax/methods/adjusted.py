"""Every expert learns with a prior of its own: BalPoE, and logit adjustment, where all have the same."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ncl_jax import losses
from ncl_jax.methods.objective import Memory, Objective, Outputs, Parts


def adjusted(
    class_counts: Sequence[int], *, prior_weights: Sequence[float], label_smoothing: float, **_: Any
) -> Objective:
    """Softmax cross-entropy of `z + a_e log n`, a number a for each expert or one for all; their sum over the experts.

    Logit adjustment (Menon et al., arXiv 2007.07314, equation 10) has one a, its tau. BalPoE (Aimar et al., arXiv
    2206.05260) has several around 1, so that the mean of the raw logits, which is the ensemble's, is balanced. SADE
    (arXiv 2107.09249) has the same idea. The prior is n itself rather than n over its sum: a constant, which no softmax
    sees.
    """
    counts, weights = jnp.asarray(class_counts, jnp.float32), jnp.asarray(prior_weights, jnp.float32)

    def compute(outputs: Outputs, labels: jax.Array, step: jax.Array, memory: Memory) -> tuple[Parts, Memory]:
        moved = outputs["logits"] + weights[:, None, None] * jnp.log(counts)  # [E, B, C]
        targets = jnp.broadcast_to(labels, moved.shape[:-1])
        return {"nil": losses.cross_entropy(moved, targets, label_smoothing).mean(-1).sum()}, memory

    return Objective(compute)
