"""Evaluation as masked sums that add up over batches and devices; divided once, at the end, on the host.

Axes: P predictors (the ensemble, whose logits are the experts' mean, first; then each expert), B batch, C classes.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ncl_jax.evaluation.predictor import disagreement, predictors
from ncl_jax.losses import cross_entropy, kl_divergence

CALIBRATION_BINS = 15


class Sums(NamedTuple):
    """Sums over test images; every field adds up elementwise."""

    count: jax.Array  # type: ignore[assignment]  # [C] images by their class
    correct: jax.Array  # [P, C] right predictions by the image's class
    named: jax.Array  # [P, C] images by the class that they are taken for
    nll: jax.Array  # [P] negative log-likelihood, nats
    bins: jax.Array  # [P, CALIBRATION_BINS, 3]: images, summed confidence, right predictions
    disagree: jax.Array  # [C] share of the ordered pairs of experts with different top-1, by the image's class
    divergence: jax.Array  # [C] mean KL divergence over the ordered pairs of experts, nats, by the image's class
    moved: jax.Array | None = None  # [C] right predictions of the ensemble under another prior, by the image's class


class Answers(NamedTuple):
    """What the predictors say of single images."""

    labels: Any  # int32 [B]
    valid: Any  # bool [B]: false for padding rows
    top: Any  # int32 [P, B]: the class that each predictor names
    confidence: Any  # float32 [P, B]: its softmax probability
    true: Any  # float32 [B]: the ensemble's probability of the image's class
    margin: Any  # float32 [B]: by how much its largest probability exceeds the second


class Evaluation(NamedTuple):
    """Of a whole set of images, in batches."""

    sums: Sums
    answers: list[Answers]


def evaluate_batch(
    logits: jax.Array, labels: jax.Array, valid: jax.Array | None, move: np.ndarray | None = None
) -> tuple[Sums, Answers]:
    """The sums of one batch, and the answers for its images.

    Args:
      logits: `[E, B, C]`.
      labels: `[B]`.
      valid: `[B]`, false for padding rows; None: all are.
      move: `[C]`, what moves the logits to the prior of `Sums.moved` (`priors.adjustment`); None: it is not counted.

    Confidence is the largest softmax probability, in bins of equal width (Guo et al. 2017). The divergence is between
    the plain softmaxes: what the experts predict at test time.
    """
    num_experts, _, num_classes = logits.shape
    weight = jnp.ones(labels.shape, jnp.float32) if valid is None else valid.astype(jnp.float32)
    of_class = jax.nn.one_hot(labels, num_classes) * weight[:, None]  # [B, C]
    scores = predictors(logits)  # [P, B, C]
    top = scores.argmax(-1)
    correct = (top == labels).astype(jnp.float32)
    nll = cross_entropy(scores, jnp.broadcast_to(labels, top.shape))
    probabilities = jax.nn.softmax(scores)
    confidence = probabilities.max(-1)
    index = jnp.minimum((confidence * CALIBRATION_BINS).astype(jnp.int32), CALIBRATION_BINS - 1)
    in_bin = jax.nn.one_hot(index, CALIBRATION_BINS) * weight[:, None]  # [P, B, bins]
    per_image = jnp.stack([jnp.ones_like(confidence), confidence, correct], -1)
    pairs = max(num_experts * (num_experts - 1), 1)
    log_p = jax.nn.log_softmax(scores[1:])
    divergence = kl_divergence(log_p[:, None], log_p[None]).sum((0, 1)) / pairs
    # Sums written as products: accelerators would round the addends to fewer bits unless told otherwise.
    total = functools.partial(jnp.einsum, precision="highest")
    sums = Sums(
        count=of_class.sum(0),
        correct=total("pb,bc->pc", correct, of_class),
        named=total("pbc,b->pc", jax.nn.one_hot(top, num_classes), weight),
        nll=total("pb,b->p", nll, weight),
        bins=total("pbk,pbm->pkm", in_bin, per_image),
        disagree=total("b,bc->c", disagreement(top[1:]), of_class),
        divergence=total("b,bc->c", divergence, of_class),
        moved=None if move is None else total("b,bc->c", (scores[0] + move).argmax(-1) == labels, of_class),
    )
    return sums, Answers(labels, weight > 0, top.astype(jnp.int32), confidence, *_of_ensemble(probabilities[0], labels))


def _of_ensemble(probabilities: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The probability of each image's class, and the margin, `[B]` each, of probabilities `[B, C]`."""
    classes = jnp.arange(probabilities.shape[-1])
    true = jnp.where(classes == labels[:, None], probabilities, 0).sum(-1)
    others = jnp.where(classes == probabilities.argmax(-1)[:, None], 0, probabilities)
    return true, probabilities.max(-1) - others.max(-1)


def add(left: Sums, right: Sums) -> Sums:
    """The sums of two disjoint sets of images."""
    return jax.tree.map(jnp.add, left, right)


def join(answers: list[Answers]) -> Answers:
    """The answers of all batches on the host, without padding."""
    valid = np.concatenate([np.asarray(batch.valid) for batch in answers])
    together = [np.concatenate([np.asarray(leaf) for leaf in leaves], axis=-1) for leaves in zip(*answers, strict=True)]
    return Answers(*(array[..., valid] for array in together))


def _share(total, count):
    """`total / count`, None where nothing was counted: JSON has no NaN."""
    return float(total.sum() / count.sum()) if count.sum() else None


def summarize(sums: Sums, groups: dict[str, dict[str, np.ndarray]]) -> dict:
    """Turns sums into the figures of `results.json`, fractions of 1.

    Args:
      sums: of the whole test set.
      groups: masks `[C]` by convention and name, see `longtail.groups`: the first convention's many, medium and few
        are beside the accuracy; further conventions under their own name.

    Returns:
      `ensemble` and `experts` (a list): each with `accuracy`, `many`, `medium`, `few`, a dictionary for every further
      convention, `nll` (nats), `ece` and `per_class`; `class_means`, with an `ensemble` and `experts` of its own: the
      accuracies again, overall (macro recall, balanced accuracy) and by group, as means over classes rather than over
      images (`shot_acc` of classifier balancing; the same where all classes have as many test images), and `f1`, the
      mean of the classes' F1; both over classes with test images; `test_counts`: test images of each class;
      `disagreement`: `kl` (nats) and `top1`, overall, by group and per class, None for a single expert; `moved`, where
      it was counted: the ensemble's `accuracy` and `class_mean` under the other prior.
    """
    sums = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), sums)
    predictors = [_summarize_predictor(sums, index, groups) for index in range(len(sums.nll))]
    return {
        "ensemble": predictors[0],
        "experts": predictors[1:],
        "class_means": _class_means(sums, groups),
        "test_counts": sums.count.astype(int).tolist(),
        "disagreement": _summarize_disagreement(sums, groups) if len(predictors) > 2 else None,
        **({} if sums.moved is None else {"moved": _summarize_moved(sums)}),
    }


def _by_group(total, count, groups):
    """The first convention's groups, flat, then the others under their names."""
    first, *others = groups
    flat = {name: _share(total[mask], count[mask]) for name, mask in groups[first].items()}
    return flat | {other: {n: _share(total[m], count[m]) for n, m in groups[other].items()} for other in others}


def _summarize_predictor(sums, index, groups):
    correct, (images, confidence, right) = sums.correct[index], sums.bins[index].T
    return {
        "accuracy": _share(correct, sums.count),
        **_by_group(correct, sums.count, groups),
        "nll": float(sums.nll[index] / sums.count.sum()),
        "ece": float(np.abs(confidence - right).sum() / images.sum()),
        "per_class": [_share(c, n) for c, n in zip(correct, sums.count, strict=True)],
    }


def _class_means(sums, groups):
    """Every predictor's accuracy as the mean of its classes', of those that have test images."""
    tested = (sums.count > 0).astype(np.float64)
    shares = sums.correct / np.maximum(sums.count, 1)
    f1 = 2 * sums.correct / np.maximum(sums.count + sums.named, 1) * tested
    ensemble, *experts = [
        {"accuracy": _share(of, tested), **_by_group(of, tested, groups), "f1": _share(harmonic, tested)}
        for of, harmonic in zip(shares, f1, strict=True)
    ]
    return {"ensemble": ensemble, "experts": experts}


def _summarize_moved(sums):
    shares = sums.moved / np.maximum(sums.count, 1)
    return {"accuracy": _share(sums.moved, sums.count), "class_mean": _share(shares, np.minimum(sums.count, 1))}


def _summarize_disagreement(sums, groups):
    def figures(total):
        per_class = [_share(t, n) for t, n in zip(total, sums.count, strict=True)]
        return {"all": _share(total, sums.count), **_by_group(total, sums.count, groups), "per_class": per_class}

    return {"kl": figures(sums.divergence), "top1": figures(sums.disagree)}
