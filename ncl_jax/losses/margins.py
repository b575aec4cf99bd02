"""What the methods beside NCL are made of: margins, class weights and class temperatures, as pure functions.

Axes as in `losses`: E experts, B batch, C classes. Sources: Cao et al., "Learning Imbalanced Datasets with
Label-Distribution-Aware Margin Loss" (arXiv 1906.07413), LDAM below; Cui et al., "Class-Balanced Loss Based on
Effective Number of Samples" (arXiv 1901.05555); Wang et al., "Long-Tailed Recognition by Routing Diverse
Distribution-Aware Experts" (arXiv 2010.01809), RIDE; and DBM-NCL (arXiv 2412.15477).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ncl_jax.losses.ncl import cross_entropy

CLOSEST = 1e-6  # 1 - cosine ** 2 below which an angle counts as 0 or half a turn: its slope there is infinite


def class_margins(class_counts: jax.Array, largest: float, power: float) -> jax.Array:
    """`[C]`: `largest * (min n / n) ** power`, so that the smallest class has the largest margin.

    LDAM (equation 13) has the power 1/4, DBM-NCL 1, of the last class, which is the smallest in its authors' data.
    """
    return largest * (jnp.min(class_counts) / class_counts) ** power


def with_margin(logits: jax.Array, labels: jax.Array, margins: jax.Array) -> jax.Array:
    """`[..., B, C]` logits less the margin `[C]` of each row's target, at the target (LDAM, equation 11)."""
    target = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return logits - target * margins.astype(logits.dtype)


def with_angular_margin(cosines: jax.Array, labels: jax.Array, margins: jax.Array, image_weight: float) -> jax.Array:
    """DBM-NCL: the cosine of the target's angle widened by the class's margin and by the image's.

    The image's margin is `m_y (1 - c_y) / 2` where the largest cosine is not the target's, else 0; gradients flow
    through it. `cos(arccos(c) + m)` is computed as `c cos m - sqrt(1 - c ** 2) sin m`, with a root whose slope is 0
    where the angle is 0 or half a turn, so that value and gradient are finite for cosines at 1, and beyond by rounding.

    Args:
      cosines: `[E, B, C]`.
      labels: `[B]`.
      margins: `[C]` in radians.
      image_weight: lambda, of the image's margin.

    Returns:
      `[E, B, C]` cosines.
    """
    target = jax.nn.one_hot(labels, cosines.shape[-1], dtype=bool)
    own = jnp.sum(jnp.where(target, cosines, 0.0), axis=-1)  # [E, B]
    of_class = margins[labels].astype(cosines.dtype)
    wrong = jnp.argmax(cosines, axis=-1) != labels
    margin = of_class * (1 + image_weight * jnp.where(wrong, (1 - own) / 2, 0.0))
    rest = 1 - jnp.square(own)
    sine = jnp.where(rest > CLOSEST, jnp.sqrt(jnp.maximum(rest, CLOSEST)), 0.0)
    widened = own * jnp.cos(margin) - sine * jnp.sin(margin)
    return jnp.where(target, widened[..., None], cosines)


def effective_weights(class_counts: Sequence[int], beta: float) -> jax.Array:
    """`[C]`: `(1 - beta) / (1 - beta ** n)`, the inverse of the effective number of images, with the mean 1."""
    # In float64 and logarithms: 1 - beta ** n of a small n and a beta near 1 has few digits.
    counts = np.asarray(class_counts, np.float64)
    weights = -1 / np.expm1(counts * np.log(beta)) if beta else np.ones(len(counts))
    return jnp.asarray(weights / weights.mean(), jnp.float32)


def weighted_cross_entropy(logits: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
    """`[E]` in nats: the cross-entropy of `[E, B, C]`, averaged over the batch by the weight `[C]` of each target.

    Equivalent to `torch.nn.functional.cross_entropy(logits, labels, weight=weights)` of each expert.
    """
    of_rows = weights[labels]
    losses = cross_entropy(logits, jnp.broadcast_to(labels, logits.shape[:-1]))
    return jnp.sum(of_rows * losses, axis=-1) / jnp.sum(of_rows)


def class_temperatures(class_counts: jax.Array, base: float, spread: float) -> jax.Array:
    """`[C]`: RIDE's `base * (b + 1 - max b)` with `b = spread * n / mean n + 1 - spread`, lower for smaller classes.

    Above 0 if `spread` is below `mean n / (max n - min n)`.
    """
    shares = spread * class_counts / class_counts.mean() + 1 - spread
    return base * (shares + 1 - shares.max())
