"""Losses as pure functions on logits: NCL, NCL++, momentum contrast, and the margins and weights of other methods."""

from ncl_jax.losses.contrast import info_nce, l2_normalize
from ncl_jax.losses.margins import (
    class_margins,
    class_temperatures,
    effective_weights,
    weighted_cross_entropy,
    with_angular_margin,
    with_margin,
)
from ncl_jax.losses.ncl import (
    HardScores,
    NonHard,
    Normalization,
    balanced_logits,
    cross_entropy,
    hard_categories,
    individual_loss,
    kl_divergence,
    mask_non_hard,
    ncl_loss,
    nclpp_loss,
    pairwise_kl,
    total,
)

__all__ = [
    "HardScores", "NonHard", "Normalization", "balanced_logits", "class_margins", "class_temperatures",
    "cross_entropy", "effective_weights", "hard_categories", "individual_loss", "info_nce", "kl_divergence",
    "l2_normalize", "mask_non_hard", "ncl_loss", "nclpp_loss", "pairwise_kl", "total", "weighted_cross_entropy",
    "with_angular_margin", "with_margin",
]  # fmt: skip
