"""Momentum contrast: the key encoder as an optax transformation, and the queue of keys."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ncl_jax.losses import l2_normalize


class MomentumEncoderState(NamedTuple):
    """Found in any optimizer state with `optax.tree.get(state, "encoder")`."""

    encoder: Any  # the same structure as the selected part of the parameters


def momentum_encoder(
    decay: float,
    *,
    parts: Sequence[str] = ("backbone", "projection"),
    frozen: Sequence[str] = (),
    average: Literal["after", "before"] = "after",
) -> optax.GradientTransformationExtraArgs:
    """Keeps an exponential moving average of some of the parameters; passes the updates through unchanged.

    `encoder = decay * encoder + (1 - decay) * parameters`, once a step. It must be the last of a chain, because
    "after" averages `parameters + updates`, the weights after the step (MoCo, He et al. 2020, equation 2); "before"
    averages the weights that the step started from, one step behind (the authors' program). `optax.ema` is
    something else: it averages updates.

    Args:
      decay: in [0, 1). The authors' program applies its momentum once for every expert: m ** E.
      parts: top-level names of the parameters that the encoder holds; it starts as a copy of them.
      frozen: of these, the ones that keep their first value (the authors never update the key projection).
      average: "after" or "before".

    Raises:
      ValueError: for a decay outside [0, 1), an unknown `average`, or a frozen part that is not among `parts`.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"momentum decay={decay} must be in [0, 1)")
    if average not in ("after", "before"):
        raise ValueError(f"average={average!r} must be 'after' or 'before'")
    if not set(frozen) <= set(parts):
        raise ValueError(f"frozen={tuple(frozen)} must be among the parts {tuple(parts)}")

    moving = [name for name in parts if name not in frozen]  # a set's order would change the program from run to run

    def init(params):
        return MomentumEncoderState({name: jax.tree.map(jnp.copy, params.get(name, {})) for name in parts})

    def update(updates, state, params, **_):
        encoder = dict(state.encoder)
        for name in filter(params.__contains__, moving):  # a backbone may have none
            source = optax.apply_updates(params[name], updates[name]) if average == "after" else params[name]
            encoder[name] = optax.incremental_update(source, encoder[name], 1 - decay)
        return updates, MomentumEncoderState(encoder)

    return optax.GradientTransformationExtraArgs(init, update)


class KeyQueue(NamedTuple):
    """A first-in first-out ring buffer of L2-normalised keys, Q per expert."""

    keys: jax.Array  # [E, Q, dim]
    position: jax.Array  # int32 []: where the next key goes, 0 <= position < Q


def init_queue(key: jax.Array, num_experts: int, length: int, dim: int) -> KeyQueue:
    """Random unit vectors, as in MoCo.

    Raises:
      ValueError: for a length below 1.
    """
    if length < 1:
        raise ValueError(f"queue length {length} must be at least 1")
    keys = l2_normalize(jax.random.normal(key, (num_experts, length, dim)))
    return KeyQueue(keys, jnp.zeros((), jnp.int32))


def push(queue: KeyQueue, keys: jax.Array) -> KeyQueue:
    """Adds `keys [E, B, dim]` (normalised here), dropping the oldest. B may be any number; of B > Q the last Q stay."""
    length = queue.keys.shape[1]
    batch = keys.shape[1]
    kept = l2_normalize(keys)[:, -length:]
    first = queue.position + batch - kept.shape[1]
    rows = (first + jnp.arange(kept.shape[1])) % length
    return KeyQueue(queue.keys.at[:, rows].set(kept), (queue.position + batch) % length)
