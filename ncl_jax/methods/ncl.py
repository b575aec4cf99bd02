"""NCL, NCL++ and the methods that are parts of them, with weights that may grow over the first steps."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ncl_jax import losses
from ncl_jax.methods.objective import Memory, Objective, Outputs, Parts

WEIGHTS = ("hard_weight", "distill_weight", "hard_distill_weight")
_FULL, _HARD = ("loss.distill_weight", "model.cosine_scale"), ("loss.hard_distill_weight", "model.cosine_scale")
TERMS = {
    "nil": ("model.cosine_scale",), "nil_hard": ("loss.hard_weight", "model.cosine_scale"), "nbod": _FULL,
    "nbod_hard": _HARD, "inter": _FULL, "inter_hard": _HARD, "intra": _FULL, "intra_hard": _HARD,
}  # of all losses here and of the distillation: see `Objective.fields`  # fmt: skip


def ncl(
    class_counts: Sequence[int],
    *,
    distill_normalization: losses.Normalization,
    label_smoothing: float = 0.0,
    **fields: Any,
) -> Objective:
    """`losses.ncl_loss`; the keyword arguments are the fields of the configuration's section `loss`."""
    own: dict[str, Any] = {"distill_normalization": distill_normalization, "label_smoothing": label_smoothing}

    def loss(logits: jax.Array, labels: jax.Array, **arguments: Any) -> tuple[jax.Array, Parts]:
        return losses.ncl_loss(logits, labels, **own, **arguments)

    return _objective(loss, class_counts, **fields)


def nclpp(class_counts: Sequence[int], *, copies: int, **fields: Any) -> Objective:
    """`losses.nclpp_loss`; the keyword arguments are the fields of the configuration's section `loss`."""

    def loss(logits: jax.Array, labels: jax.Array, **arguments: Any) -> tuple[jax.Array, Parts]:
        return losses.nclpp_loss(logits, labels, copies=copies, **arguments)

    return _objective(loss, class_counts, **fields)


def ramped(fields: Mapping[str, Any], ramp_steps: int, step: jax.Array) -> dict[str, Any]:
    """The weights of `WEIGHTS` at a step: they grow from 0 over the first `ramp_steps`."""
    share = ramp(step, ramp_steps) if ramp_steps else 1.0
    # A weight of 0 stays a Python number, which leaves the part out of the program.
    return {name: fields[name] and fields[name] * share for name in WEIGHTS}


def _objective(
    loss: Callable, class_counts: Sequence[int], *, balanced: bool, num_hard: int, ramp_steps: int, **fields: Any
) -> Objective:
    """Balanced (or, with equal counts, plain) softmax; the weights of `WEIGHTS` reach their value at `ramp_steps`."""
    counts = jnp.asarray(class_counts if balanced else np.ones(len(class_counts)), jnp.float32)
    semantics = {"hard_scores": fields["hard_scores"], "non_hard": fields["non_hard"]}

    def compute(outputs: Outputs, labels: jax.Array, step: jax.Array, memory: Memory) -> tuple[Parts, Memory]:
        weights = ramped(fields, ramp_steps, step)
        arguments = {"class_counts": counts, "num_hard": num_hard, **semantics, **weights}
        return loss(outputs["logits"], labels, **arguments)[1], memory

    return Objective(compute, prior_power=float(not balanced), fields=TERMS)


def ramp(step: jax.Array, ramp_steps: int) -> jax.Array:
    """Linear from 0 at step 0 to 1 at `ramp_steps`, then exactly 1."""
    return jnp.minimum(step / ramp_steps, 1.0)
