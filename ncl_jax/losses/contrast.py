"""The loss of momentum contrast, NCL's self-supervision (He et al. 2020, arXiv 1911.05722)."""

import jax
import jax.numpy as jnp


def info_nce(queries: jax.Array, keys: jax.Array, queue: jax.Array, temperature: float) -> jax.Array:
    """InfoNCE of momentum contrast (He et al. 2020, arXiv 1911.05722, equation 1), per row in nats.

    Args:
      queries: `[..., B, D]` features of the query encoder; normalised here.
      keys: `[..., B, D]` features of the key encoder, row by row the positives; normalised here, no gradient.
      queue: `[..., Q, D]` L2-normalised older keys, the negatives; no gradient.
      temperature: > 0.

    Returns:
      `[..., B]`: cross-entropy of `[positive, negatives] / temperature` with the positive at index 0.
    """
    queries = l2_normalize(queries)
    keys, queue = jax.lax.stop_gradient((l2_normalize(keys), queue))
    positive = jnp.sum(queries * keys, axis=-1, keepdims=True)
    negatives = jnp.einsum("...bd,...qd->...bq", queries, queue, precision="highest")
    scores = jnp.concatenate([positive, negatives], axis=-1) / temperature
    return jax.nn.logsumexp(scores, axis=-1) - scores[..., 0]


def l2_normalize(features: jax.Array, epsilon: float = 1e-12) -> jax.Array:
    """`features / max(norm, epsilon)` over the last axis, as PyTorch's `normalize`; gradient finite at 0."""
    squares = jnp.sum(jnp.square(features), axis=-1, keepdims=True)
    return features * jax.lax.rsqrt(jnp.maximum(squares, epsilon**2))
