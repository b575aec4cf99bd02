"""Every expert learns with a prior of its own: BalPoE, and logit adjustment, where all have the same."""

import statistics
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ncl_jax import losses
from ncl_jax.field import Field
from ncl_jax.methods.objective import Memory, Objective, Outputs, Parts

FIELDS = {
    "prior_weights": Field((1.0,), "factor of the log class prior: one number for all experts, one for each, or none "
                           "for even steps from 0 to 2; adjusted only"),
}  # fmt: skip


def adjusted(
    class_counts: Sequence[int], *, prior_weights: Sequence[float], label_smoothing: float, **_: Any
) -> Objective:
    """Softmax cross-entropy of `z + a_e log n`, summed over the experts.

    Logit adjustment (Menon et al., arXiv 2007.07314, equation 10) has one a, its tau. BalPoE (Aimar et al., arXiv
    2206.05260) has several around 1, so that the mean of the raw logits, which is the ensemble's, is balanced; its
    program takes the mean over the experts. SADE (arXiv 2107.09249) has the same idea. The prior is n itself rather
    than n over its sum: a constant, which no softmax sees.

    Args:
      class_counts: n.
      prior_weights: a of each expert, or one for all; none: evenly from 0 to 2.
      label_smoothing: see `losses.cross_entropy`.
    """
    counts = jnp.asarray(class_counts, jnp.float32)

    def compute(outputs: Outputs, labels: jax.Array, step: jax.Array, memory: Memory) -> tuple[Parts, Memory]:
        weights = jnp.asarray(prior_weights or even_weights(len(outputs["logits"])), jnp.float32)
        moved = outputs["logits"] + weights[:, None, None] * jnp.log(counts)  # [E, B, C]
        targets = jnp.broadcast_to(labels, moved.shape[:-1])
        return {"nil": losses.cross_entropy(moved, targets, label_smoothing).mean(-1).sum()}, memory

    own = 1 - statistics.fmean(prior_weights or [1.0])
    return Objective(compute, prior_power=own, fields={"nil": ("loss.prior_weights", "model.cosine_scale")})


def even_weights(num_experts: int) -> list[float]:
    """Evenly from 0 to 2; 1 for one expert alone."""
    return [1.0] if num_experts == 1 else [2 * expert / (num_experts - 1) for expert in range(num_experts)]
