"""Self-supervision by momentum contrast: the queue of keys is the method's state."""

from typing import Any

import jax
from jax.sharding import PartitionSpec as P

from ncl_jax import losses
from ncl_jax.methods import momentum
from ncl_jax.methods.objective import Memory, Objective, Outputs, Parts


def contrast(*, weight: float, temperature: float, queue: int) -> Objective:
    """InfoNCE of every expert's projection against its momentum encoder's keys (NCL, self-supervision; MoCo).

    Args:
      weight: of the sum over experts of the mean over the batch.
      temperature: > 0.
      queue: Q, keys per expert.
    """

    def compute(outputs: Outputs, labels: jax.Array, step: jax.Array, memory: Memory) -> tuple[Parts, Memory]:
        rowwise = losses.info_nce(outputs["projection"], outputs["keys"], memory.keys, temperature)
        return {"contrast": weight * rowwise.mean(-1).sum()}, momentum.push(memory, outputs["keys"])

    def init_memory(key: jax.Array, outputs: Outputs) -> Memory:
        num_experts, _, dim = outputs["projection"].shape
        return momentum.init_queue(key, num_experts, queue, dim)

    spec: Any = momentum.KeyQueue
    of_terms = {"contrast": ("contrast.temperature", "contrast.weight")}
    return Objective(compute, init_memory, spec(keys=P("expert"), position=P()), fields=of_terms)
