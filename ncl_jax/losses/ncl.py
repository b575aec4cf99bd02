"""The losses of NCL and NCL++ as pure functions on logits.

Axes: E experts, N copies of an image, B batch, C classes. `logits` are raw scores; the balanced logits are
`logits + log(class_counts)` (balanced softmax, Ren et al. 2020). Sources: Li et al., "Nested Collaborative Learning
for Long-Tailed Visual Recognition" (arXiv 2203.15359), called NCL below, and Tan et al., "NCL++" (arXiv 2306.16709).
Two semantics are available, argument by argument; the defaults are those of the authors' published program:

| argument                | authors' program            | equations                                          |
|-------------------------|-----------------------------|----------------------------------------------------|
| `hard_scores`           | "first": expert 0's scores  | "own": each expert's (in a pair: the KL's target's) |
| `non_hard`              | "zero": balanced logit 0    | "exclude": left out of the softmax                 |
| `distill_normalization` | "per_expert": 1 / (E - 1)   | "mean_pair": 1 / (E (E - 1))                       |

Every KL divergence is computed from `log_softmax` and stays finite, value and gradient, for finite logits of any size;
the authors' `log(softmax + 1e-9)` is deliberately not copied.
"""

import functools
import operator
from typing import Literal, get_args

import jax
import jax.numpy as jnp

HardScores = Literal["first", "own"]
NonHard = Literal["zero", "exclude"]
Normalization = Literal["per_expert", "mean_pair"]


def _check(name, value, choices):
    if value not in get_args(choices):
        raise ValueError(f"{name}={value!r} must be one of: {', '.join(get_args(choices))}")


def balanced_logits(logits: jax.Array, class_counts: jax.Array) -> jax.Array:
    """Adds the log prior: `logits [..., C] + log(class_counts [C])`; balanced softmax, NCL's preliminaries.

    With equal counts the softmax is the plain one. Predictions at test time use the raw logits.
    """
    return logits + jnp.log(class_counts).astype(logits.dtype)


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Softmax cross-entropy per row in nats: logits `[..., C]` and integer labels `[...]` give `[...]`.

    With label smoothing (Szegedy et al., arXiv 1512.00567, section 7) the share `smoothing` of the target is spread
    evenly over all classes.
    """
    picked = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    if smoothing:
        picked = (1 - smoothing) * picked + smoothing * logits.mean(-1)
    return jax.nn.logsumexp(logits, axis=-1) - picked


def hard_categories(scores: jax.Array, labels: jax.Array, num_hard: int) -> jax.Array:
    """Hard category mining: the target and the `num_hard - 1` other classes with the highest raw scores.

    Args:
      scores: `[..., C]` raw scores (before the prior is added).
      labels: `[...]` integer targets; broadcast against the leading axes of `scores`.
      num_hard: number of hard categories, the target included; 1 <= num_hard <= C.

    Returns:
      Boolean mask `[..., C]` with exactly `num_hard` classes set in each row. NCL, hard category mining (HCM).

    Raises:
      ValueError: if `num_hard` is not between 1 and C.
    """
    num_classes = scores.shape[-1]
    if not 1 <= num_hard <= num_classes:
        raise ValueError(f"num_hard={num_hard} must be between 1 and the number of classes, {num_classes}")
    target = jax.nn.one_hot(labels, num_classes, dtype=bool)
    scores = jax.lax.stop_gradient(scores)
    _, chosen = jax.lax.top_k(jnp.where(target, jnp.inf, scores), num_hard)
    return jnp.put_along_axis(jnp.zeros(scores.shape, bool), chosen, True, axis=-1, inplace=False)


def mask_non_hard(balanced: jax.Array, hard: jax.Array, non_hard: NonHard) -> jax.Array:
    """Logits of the partial view, `[..., C]`.

    "zero" (authors) sets the other classes' balanced logit to 0, so that each still adds exp(0) = 1 to the softmax's
    denominator; "exclude" (equations) removes them: -inf, which `softmax`, `cross_entropy` and `pairwise_kl` accept.
    Raises ValueError for any other `non_hard`.
    """
    _check("non_hard", non_hard, NonHard)
    return jnp.where(hard, balanced, 0.0 if non_hard == "zero" else -jnp.inf)


def kl_divergence(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    """`sum over classes of p (log p - log q)` in nats: log-probabilities `[..., C]` give `[...]`.

    Classes whose `log_p` is -inf add nothing, neither to the value nor to the gradient.
    """
    support = log_p > -jnp.inf
    log_p, log_q = jnp.where(support, log_p, 0.0), jnp.where(support, log_q, 0.0)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def pairwise_kl(logits: jax.Array, hard: jax.Array | None = None, non_hard: NonHard = "zero") -> jax.Array:
    """Sum over ordered pairs of members of KL(p_i || p_j), per row.

    Args:
      logits: `[R, ..., C]` balanced logits of R members (experts or copies).
      hard: None for all classes; `[..., C]` one mask for every member; or `[R, ..., C]` each member's own, of which
        a pair uses its target distribution's, p_i's.
      non_hard: how the partial view treats the other classes, where `hard` is given.

    Returns:
      `[...]`, in nats. Gradients flow into both members of a pair.
    """
    if hard is not None and hard.ndim == logits.ndim:
        log_q = jax.nn.log_softmax(mask_non_hard(logits[None], hard[:, None], non_hard))  # [R target, R other, ..., C]
        log_p = jnp.stack([log_q[i, i] for i in range(len(logits))])[:, None]
        return jnp.sum(kl_divergence(jnp.broadcast_to(log_p, log_q.shape), log_q), axis=(0, 1))
    if hard is not None:
        logits = mask_non_hard(logits, hard, non_hard)
    log_p = jax.nn.log_softmax(logits)
    # Sum over j of KL(p_i || p_j) is R times the KL to the geometric mean of the members: R terms, not R squared.
    support = log_p > -jnp.inf
    mean = jnp.mean(jnp.where(support, log_p, 0.0), axis=0, keepdims=True)
    return len(logits) * jnp.sum(kl_divergence(log_p, jnp.broadcast_to(mean, log_p.shape)), axis=0)


def _hard_masks(logits, labels, num_hard, hard_scores):
    """`[B, C]`, expert 0's for all ("first"), or `[E, B, C]`, each expert's ("own")."""
    return hard_categories(logits[0] if hard_scores == "first" else logits, labels, num_hard)


def individual_loss(
    balanced: jax.Array, labels: jax.Array, hard: jax.Array | None, non_hard: NonHard, smoothing: float = 0.0
) -> tuple[jax.Array, jax.Array]:
    """Nested individual learning (NIL) of NCL: cross-entropy over all classes and over the hard categories.

    Args:
      balanced: `[E, B, C]` balanced logits.
      labels: `[B]`.
      hard: mask `[B, C]` or `[E, B, C]`, or None for no partial view.
      non_hard: see `mask_non_hard`.
      smoothing: of the labels of the first part, see `cross_entropy`.

    Returns:
      `(full, partial)`, each a mean over the batch and a sum over experts, in nats.
    """
    labels = jnp.broadcast_to(labels, balanced.shape[:-1])
    full = cross_entropy(balanced, labels, smoothing).mean(-1).sum()
    if hard is None:
        return full, jnp.zeros_like(full)
    return full, cross_entropy(mask_non_hard(balanced, hard, non_hard), labels).mean(-1).sum()


def total(parts: dict[str, jax.Array]) -> jax.Array:
    """The loss: the sum of its weighted parts, in their order."""
    return functools.reduce(operator.add, parts.values())


def _is_off(weight):
    return isinstance(weight, (int, float)) and weight == 0


def ncl_loss(
    logits: jax.Array,
    labels: jax.Array,
    class_counts: jax.Array,
    *,
    num_hard: int,
    distill_weight: float = 0.6,
    hard_distill_weight: float = 0.6,
    hard_weight: float = 1.0,
    hard_scores: HardScores = "first",
    non_hard: NonHard = "zero",
    distill_normalization: Normalization = "per_expert",
    label_smoothing: float = 0.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The supervised loss of NCL: nested individual learning and nested balanced online distillation.

    Args:
      logits: `[E, B, C]` raw scores.
      labels: `[B]` integer targets.
      class_counts: `[C]` training images per class (ones: plain softmax).
      num_hard: hard categories, the target included.
      distill_weight: weight of the distillation over all classes (NBOD); a Python 0 leaves the part out.
      hard_distill_weight: the same over the hard categories.
      hard_weight: weight of the cross-entropy over the hard categories (1 in the paper).
      hard_scores, non_hard, distill_normalization: the semantics, see the module's table.
      label_smoothing: of the cross-entropy over all classes; 0 in the paper.

    Returns:
      The loss (scalar, nats) and its weighted parts, which add up to it: `nil`, `nil_hard`, `nbod`, `nbod_hard`.
      Source: NCL, nested individual learning (NIL) and
      nested balanced online distillation (NBOD). With one expert the distillation is 0.

    Raises:
      ValueError: for `num_hard` outside 1..C or an unknown semantics.
    """
    _check("hard_scores", hard_scores, HardScores)
    _check("non_hard", non_hard, NonHard)
    num_experts = len(logits)
    scale = _pair_scale(num_experts, distill_normalization)
    needs_hard = not (_is_off(hard_weight) and _is_off(hard_distill_weight))
    hard = _hard_masks(logits, labels, num_hard, hard_scores) if needs_hard else None
    balanced = balanced_logits(logits, class_counts)
    partial_view = None if _is_off(hard_weight) else hard
    full, partial = individual_loss(balanced, labels, partial_view, non_hard, label_smoothing)
    zero = jnp.zeros_like(full)
    parts = {"nil": full, "nil_hard": hard_weight * partial, "nbod": zero, "nbod_hard": zero}
    if num_experts > 1 and not _is_off(distill_weight):
        parts["nbod"] = distill_weight * scale * pairwise_kl(balanced).mean()
    if num_experts > 1 and not _is_off(hard_distill_weight):
        parts["nbod_hard"] = hard_distill_weight * scale * pairwise_kl(balanced, hard, non_hard).mean()
    return total(parts), parts


def _pair_scale(num_experts, normalization):
    _check("distill_normalization", normalization, Normalization)
    others = max(num_experts - 1, 1)
    return 1 / others if normalization == "per_expert" else 1 / (num_experts * others)


def nclpp_loss(
    logits: jax.Array,
    labels: jax.Array,
    class_counts: jax.Array,
    *,
    copies: int,
    num_hard: int,
    distill_weight: float = 0.6,
    hard_distill_weight: float = 0.6,
    hard_weight: float = 1.0,
    hard_scores: HardScores = "first",
    non_hard: NonHard = "zero",
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss of NCL++: individual learning over all copies, distillation between experts and between copies.

    Args:
      logits: `[E, N * B, C]` raw scores, copy-major: all of copy 0, then all of copy 1, ...
      labels: `[N * B]` integer targets, in the same order.
      copies: N, at least 2.
      class_counts, num_hard, distill_weight, hard_distill_weight, hard_weight: as in `ncl_loss`.
      hard_scores: "first" (authors): the inter-expert part uses expert 0's hard categories, the intra-expert part those
        of expert 0's first copy for every expert and copy; "own" (equations): those of the pair's target distribution.
      non_hard: "zero" (authors): individual learning sets the other balanced logits to 0, and the partial KL sums
        `p_c (log p_c - log q_c)` of the full softmax over the hard classes, not renormalised; "exclude" (equations):
        both use the softmax over the hard categories alone.

    Returns:
      The loss (scalar, nats) and its weighted parts, which add up to it: `nil`, `nil_hard`, `inter`, `inter_hard`,
      `intra`, `intra_hard`. Source: NCL++, inter- and intra-expert
      collaborative learning. A set of R members is scaled by 2 / (R (R - 1)).

    Raises:
      ValueError: if `copies` < 2 or does not divide the rows, `num_hard` is outside 1..C, or for unknown semantics.
    """
    _check("hard_scores", hard_scores, HardScores)
    _check("non_hard", non_hard, NonHard)
    num_experts, rows, num_classes = logits.shape
    if copies < 2 or rows % copies:
        raise ValueError(f"copies={copies} must be at least 2 and divide the number of rows, {rows}")
    hard = _hard_masks(logits, labels, num_hard, hard_scores)
    balanced = balanced_logits(logits, class_counts)
    full, partial = individual_loss(balanced, labels, None if _is_off(hard_weight) else hard, non_hard)
    parts = {"nil": full, "nil_hard": hard_weight * partial}
    weights = (distill_weight, hard_distill_weight)
    parts["inter"], parts["inter_hard"] = _set_distillation(balanced, hard, non_hard, weights)
    # [E, N, B, C] -> [N, E, B, C]: the copies are the members, the experts are summed over.
    by_copy = balanced.reshape(num_experts, copies, rows // copies, num_classes).swapaxes(0, 1)
    if hard_scores == "first":
        hard_by_copy = jnp.broadcast_to(hard[: rows // copies], by_copy.shape[1:])
    else:
        hard_by_copy = hard.reshape(num_experts, copies, rows // copies, num_classes).swapaxes(0, 1)
    intra, intra_hard = _set_distillation(by_copy, hard_by_copy, non_hard, weights)
    parts["intra"], parts["intra_hard"] = num_experts * intra, num_experts * intra_hard
    return total(parts), parts


def _set_distillation(balanced, hard, non_hard, weights):
    """Distillation within a set: members `[R, ..., C]` give the weighted full and partial part, means over `...`."""
    members = len(balanced)
    scale = 2 / (members * max(members - 1, 1))
    full = partial = jnp.zeros((), balanced.dtype)
    if not _is_off(weights[0]):
        full = weights[0] * scale * pairwise_kl(balanced).mean()
    if not _is_off(weights[1]):
        partial_kl = _unnormalised_partial_kl if non_hard == "zero" else pairwise_kl
        partial = weights[1] * scale * partial_kl(balanced, hard, non_hard).mean()
    return full, partial


def _unnormalised_partial_kl(balanced, hard, _):
    """Sum over ordered pairs of the hard classes' terms of the full KL: `[R, ..., C]` gives `[...]`."""
    log_p = jax.nn.log_softmax(balanced)
    mean = jnp.mean(log_p, axis=0, keepdims=True)
    return len(balanced) * jnp.sum(kl_divergence(mask_non_hard(log_p, hard, "exclude"), mean), axis=0)
