"""Methods on a normalised classifier, with larger margins for smaller classes: LDAM-DRW, RIDE's loss, DBM-NCL."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ncl_jax import losses
from ncl_jax.errors import ConfigError
from ncl_jax.field import Field
from ncl_jax.losses import margins
from ncl_jax.methods.ncl import ncl
from ncl_jax.methods.objective import Memory, Objective, Outputs, Parts

LDAM_POWER = 0.25
LDAM_TERMS = {  # see `Objective.fields`
    "ldam": ("loss.margin", "loss.reweight_beta", "model.cosine_scale"),
    "diversity": ("loss.diversity", "loss.diversity_temperature", "loss.diversity_spread", "model.cosine_scale"),
}
DBM_FIELDS = ("loss.margin", "loss.margin_power", "loss.image_margin")
FIELDS = {
    "margin": Field(0.1, "margin of the smallest class: an angle in radians for dbm, a cosine for ldam",
                    "authors of DBM-NCL; of LDAM: 0.5", at_least=0),
    "margin_power": Field(1.0, "how fast margins shrink as classes grow; dbm only", "authors of DBM-NCL", at_least=0),
    "image_margin": Field(1.0, "factor of the image's part of the margin; dbm only", "authors of DBM-NCL", at_least=0),
    "reweight_from": Field(0.8, "share of the epochs after which classes are weighted; ldam only", "authors of LDAM",
                           at_least=0, at_most=1),
    "reweight_beta": Field(0.9999, "beta of the effective number of images; ldam only", "arXiv 1901.05555",
                           at_least=0, below=1),
    "diversity": Field(0.2, "weight of the divergence between experts; ldam only", "RIDE's program", at_least=0),
    "diversity_temperature": Field(1.0, "temperature of the softmaxes that it compares; ldam only", "RIDE's program",
                                   above=0),
    "diversity_spread": Field(0.05, "how much lower the temperature of small classes is; ldam only", "RIDE's program",
                              at_least=0),
}  # fmt: skip


def ldam(
    class_counts: Sequence[int],
    *,
    margin: float,
    reweight_from: float,
    reweight_beta: float,
    diversity: float,
    diversity_temperature: float,
    diversity_spread: float,
    cosine_scale: float,
    epochs: int,
    steps_per_epoch: int,
    **_: Any,
) -> Objective:
    """LDAM with deferred re-weighting (arXiv 1906.07413), each expert on its own; with `diversity`, RIDE's loss.

    Every expert's cross-entropy of `s (cos - m_y)`, m by `margins.class_margins`; after `reweight_from` of the epochs
    its mean over the batch is weighted by `margins.effective_weights`, as the authors' program has it.

    RIDE's diversity (arXiv 2010.01809) is taken off, as its program has it: the KL divergence from the softmax of the
    experts' mean logits, which gets no gradient, to each expert's, of `z / T`, times the square of the mean T, summed
    over experts; T is by `margins.class_temperatures` as soon as classes are weighted, and the same for all before. The
    paper's equation compares all pairs; with gradients of any size through both, experts on this classifier part until
    each knows a few classes only. Of RIDE this is the loss alone: its experts share layers, and a router chooses among
    them. Its program divides by the largest temperature where the paper, and this, subtract.

    Raises:
      ConfigError: a temperature would not be above 0 on this data.
    """
    counts = jnp.asarray(class_counts, jnp.float32)
    gaps = cosine_scale * margins.class_margins(counts, margin, LDAM_POWER)
    weights = margins.effective_weights(class_counts, reweight_beta)
    temperatures = margins.class_temperatures(counts, diversity_temperature, diversity_spread)
    most, largest = sum(class_counts) / len(class_counts), max(class_counts) - min(class_counts)
    if diversity and diversity_spread * largest >= most:
        limit = f"{most / largest:.4g}"
        raise ConfigError(f"loss.diversity_spread={diversity_spread} must be below {limit} for these class counts")
    start = round(reweight_from * epochs) * steps_per_epoch

    def compute(outputs: Outputs, labels: jax.Array, step: jax.Array, memory: Memory) -> tuple[Parts, Memory]:
        logits = outputs["logits"]
        by_class = step >= start
        moved = margins.with_margin(logits, labels, gaps)
        of_classes = jnp.where(by_class, weights, 1.0)
        parts = {"ldam": margins.weighted_cross_entropy(moved, labels, of_classes).sum()}
        if diversity and len(logits) > 1:
            parts["diversity"] = -diversity * _difference(
                logits, jnp.where(by_class, temperatures, diversity_temperature)
            )
        return parts, memory

    return Objective(compute, prior_power=1.0, fields=LDAM_TERMS)


def _difference(logits, temperatures):
    """RIDE's divergence of the experts from their mean, see `ldam`."""
    mean = jax.lax.stop_gradient(jax.nn.log_softmax(logits.mean(0) / temperatures))
    each = jax.nn.log_softmax(logits / temperatures)
    divergence = losses.kl_divergence(jnp.broadcast_to(mean, each.shape), each)
    return jnp.square(temperatures.mean()) * divergence.mean(-1).sum()


def dbm(
    class_counts: Sequence[int],
    *,
    margin: float,
    margin_power: float,
    image_margin: float,
    cosine_scale: float,
    **fields: Any,
) -> Objective:
    """DBM-NCL (arXiv 2412.15477): NCL on `s cos(angle + margin)`, see `margins.with_angular_margin`.

    The hard categories are those of the raw cosines: a margin moves the target alone, which is always among them.
    """
    nested = ncl(class_counts, **fields)
    of_classes = margins.class_margins(jnp.asarray(class_counts, jnp.float32), margin, margin_power)

    def compute(outputs: Outputs, labels: jax.Array, step: jax.Array, memory: Memory) -> tuple[Parts, Memory]:
        cosines = outputs["logits"] / cosine_scale
        logits = cosine_scale * margins.with_angular_margin(cosines, labels, of_classes, image_margin)
        return nested.compute({**outputs, "logits": logits}, labels, step, memory)

    fed = {term: (*names, *DBM_FIELDS) for term, names in nested.fields.items()}
    return nested._replace(compute=compute, fields=fed)
