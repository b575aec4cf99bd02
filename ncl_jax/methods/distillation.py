"""One network learns from a finished ensemble: NBOD with a teacher that stays as it is."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ncl_jax import losses
from ncl_jax.methods.ncl import TERMS, ramped
from ncl_jax.methods.objective import Memory, Objective, Outputs, Parts


def distilled(
    class_counts: Sequence[int],
    *,
    balanced: bool,
    num_hard: int,
    ramp_steps: int,
    non_hard: losses.NonHard,
    **fields: Any,
) -> Objective:
    """Nested individual learning, and the KL divergence from the teacher over all classes and over the hard ones.

    The teacher's balanced distribution is the target; the hard categories of the distillation are those of its scores,
    those of the cross-entropy the student's own. The outputs must hold `teacher [1, B, C]`, its raw scores. The
    arguments are the fields of the configuration's section `loss`.
    """
    counts = jnp.asarray(class_counts if balanced else np.ones(len(class_counts)), jnp.float32)

    def divergence(teacher: jax.Array, student: jax.Array) -> jax.Array:
        log_p, log_q = jax.nn.log_softmax(teacher), jax.nn.log_softmax(student)
        return losses.kl_divergence(jnp.broadcast_to(log_p, log_q.shape), log_q).mean(-1).sum()

    def compute(outputs: Outputs, labels: jax.Array, step: jax.Array, memory: Memory) -> tuple[Parts, Memory]:
        student, teacher = (losses.balanced_logits(outputs[name], counts) for name in ("logits", "teacher"))
        own = losses.hard_categories(outputs["logits"], labels, num_hard)
        full, partial = losses.individual_loss(student, labels, own, non_hard)
        hard = losses.hard_categories(outputs["teacher"], labels, num_hard)
        of_hard = [losses.mask_non_hard(balanced, hard, non_hard) for balanced in (teacher, student)]
        weights = ramped(fields, ramp_steps, step)
        parts = {"nil": full, "nil_hard": weights["hard_weight"] * partial}
        parts["nbod"] = weights["distill_weight"] * divergence(teacher, student)
        parts["nbod_hard"] = weights["hard_distill_weight"] * divergence(*of_hard)
        return parts, memory

    return Objective(compute, prior_power=float(not balanced), fields=TERMS)
