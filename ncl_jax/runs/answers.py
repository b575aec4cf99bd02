"""From the scores of images to answers: the likeliest classes, prediction sets, refusals, and a prior that is estimated
from the images themselves."""

import collections
import heapq
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax

from ncl_jax.errors import ConfigError, DataError
from ncl_jax.evaluation import priors
from ncl_jax.runs import trust
from ncl_jax.runs.load import Model
from ncl_jax.runs.predict import Scored
from ncl_jax.runtime.files import name_text, valid_utf8
from ncl_jax.trust import mix
from ncl_jax.trust.mix import Mix
from ncl_jax.trust.sets import Rule, coverage_range, predict_sets

LEVEL = 0.05  # of known-ness, by which an estimate of the mix counts images that are unlike training
UNSURE = 0.5  # probability below which an answer is unsure, where neither a set nor a refusal says so
MOST_SCORES = 2**27  # that are held at once for an estimate, which takes some 30 bytes for each
MOST_COUNTED = 10  # classes in a line of counts


class How(NamedTuple):
    """What answers hold."""

    top: int  # classes that are named
    rule: Rule | None = None  # of prediction sets
    refuse: float | None = None  # the level below which an image's known-ness refuses it
    shares: np.ndarray | None = None  # [C]: an estimated prior; None: the model's own


def answers(model: Model, found: Iterable[Scored], how: How) -> Iterator[dict[str, Any]]:
    """The answer of each image: `file`, and `error` where it could not be read. Otherwise `top`, the likeliest classes
    with `label` and `probability`; `set`, labels, the likeliest first; `known` and `refused`; the experts'
    `disagreement`; and `unsure`. Names are valid UTF-8 (`name_text`)."""
    for one in found:
        yield {"file": name_text(one.file), "error": one.error} if one.error else _answer(model, one, how)


def _answer(model, one, how):
    probabilities = probabilities_of(model, one.scores[None], how.shares)[0]
    order = np.argsort(-probabilities, kind="stable")
    names = [valid_utf8(model.class_names[c]).decode() for c in order[: how.top]]
    shares = [round(float(probabilities[c]), 6) for c in order[: how.top]]
    named = [{"label": label, "probability": p} for label, p in zip(names, shares, strict=True)]
    answer: dict[str, Any] = {"file": name_text(one.file), "top": named, "disagreement": round(one.disagreement, 4)}
    doubts = []
    if how.rule is not None:
        inside = predict_sets(how.rule, model.calibrated(one.scores[None]))[0]
        answer["set"] = [valid_utf8(model.class_names[c]).decode() for c in order if inside[c]]
        doubts.append(len(answer["set"]) != 1)
    if how.refuse is not None:
        answer |= {"known": round(one.known, 6), "refused": bool(one.known < how.refuse)}
        doubts.append(answer["refused"])
    answer["unsure"] = any(doubts) if doubts else bool(probabilities.max() < UNSURE)
    return answer


def probabilities_of(model: Model, scores: np.ndarray, shares: np.ndarray | None = None) -> np.ndarray:
    """The probabilities `[B, C]` of scores: under the model's own prior and temperature or, with estimated shares of
    the classes `[C]`, calibrated and under those."""
    if shares is None:
        return softmax(scores, axis=-1)
    moved = priors.log_ratio(shares, trust.source_prior(model.calibration(), model.facts)).astype(np.float64)
    table = model.calibrated(scores) * np.exp(moved)
    return table / table.sum(1, keepdims=True)


class Estimated(NamedTuple):
    """An estimate of the shares of classes among images, and what it changes."""

    mix: Mix
    changed: int  # answers that are others under the estimated shares


def estimate(model: Model, found: Sequence[Scored], measured: bool) -> Estimated:
    """The shares of classes among images that could be read; `measured`: whether their known-ness was.

    Raises:
      DataError: there is nothing to calibrate the probabilities on.
    """
    good = [one for one in found if not one.error]
    scores = np.array([one.scores for one in good]).reshape(len(good), len(model.class_names))
    unlike = np.array([one.known < LEVEL for one in good]) if measured else None
    prior = trust.source_prior(model.calibration(), model.facts)
    found_mix = mix.estimate(model.calibrated(scores), prior, unlike)
    after = probabilities_of(model, scores, found_mix.shares).argmax(1)
    return Estimated(found_mix, int((after != scores.argmax(1)).sum()))


def check_size(files: int, num_classes: int) -> None:
    """Raises ConfigError for more images than an estimate of the mix can hold."""
    each = max(num_classes, 4 * mix.AT_ONCE)  # numbers that are held of an image
    if files * each > MOST_SCORES:
        raise ConfigError(
            f"--prior=estimate: {files:,} images of {num_classes:,} classes take more than 4 GiB of memory: pass at "
            f"most {MOST_SCORES // each:,} images that are typical of all"
        )


def mix_lines(model: Model, found: Estimated) -> list[str]:
    """What is printed about an estimate."""
    shares, prior = found.mix, trust.train_prior(model.facts)
    if shares.refused:
        return [f"the mix of classes was not estimated: {shares.refused}. The predictions use the run's own prior"]
    lines = [
        f"mix of classes estimated from {shares.images:,} images: the log-likelihood per image is {shares.gain:.3f} "
        f"({shares.gain_low:.3f} to {shares.gain_high:.3f}) higher than with the training shares; changed "
        f"predictions: {found.changed:,}"
    ]
    for c in mix.movers(shares, prior):
        here = f"{100 * shares.shares[c]:.1f} % here ({100 * shares.low[c]:.1f} to {100 * shares.high[c]:.1f})"
        lines.append(f"  {model.class_names[c]}: {100 * prior[c]:.1f} % in training, {here}")
    return lines


def rule_lines(rule: Rule, class_names: Sequence[str], calibrated: str = "", evaluated: str = "") -> list[str]:
    """What is printed about the promise of prediction sets; `calibrated`: what on, of `trust.SOURCES`, where it is
    known; `evaluated`: the split that the run's figures are of."""
    of = {"marginal": "of all images", "macro": "of a class's images, on average over the classes"}[rule.promise]
    source = f" ({calibrated})" if calibrated else ""
    share = f"{100 * rule.coverage:g} % {of}"
    lines = [f"sets: they hold the true class for {share}; calibrated on {rule.number:,} images{source}"]
    if calibrated == trust.SOURCES[1] and evaluated == "val":
        lines.append("note: those are the images that the run's figures are of; train --folds=5 calibrates on others")
    if np.isinf(rule.thresholds).any():
        always = int(np.isinf(rule.thresholds).sum())
        lines.append(f"note: {always} classes are in every set: too few images to calibrate this coverage on")
    elif rule.promise == "marginal":
        low, high = coverage_range(rule.number, rule.coverage)
        lines[0] += f", with which it is {100 * low:.1f} to {100 * high:.1f} % (in 9 of 10 cases)"
    if len(rule.without):
        named = ", ".join(class_names[c] for c in rule.without[:MOST_COUNTED])
        more = ", ..." if len(rule.without) > MOST_COUNTED else ""
        lines.append(f"note: no promise for {len(rule.without)} classes without a calibration image: {named}{more}")
    return lines


def why_unsure(how: How) -> str:
    """What makes an answer unsure, in words: what `answers` goes by."""
    reasons = [
        (how.rule is not None, "its set does not hold exactly one class"),
        (how.refuse is not None, "it is unlike anything in training"),
        (how.rule is None and how.refuse is None, f"no class has a probability of {100 * UNSURE:g} %"),
    ]
    return " or ".join(text for applies, text in reasons if applies)


def measured_with(model: Model) -> Any:
    """What known-ness is measured with where that is possible, otherwise None."""
    try:
        return model.knownness()
    except DataError:
        return None


class Summary:
    """What is kept of all answers for the lines at the end; `review`: how many images to check first are wanted."""

    def __init__(self, model: Model, review: int = 0):
        self._model, self._review, self._rarity = model, review, 1 / np.maximum(model.facts.class_counts, 1)
        self._counts: collections.Counter[str] = collections.Counter()
        self._best: list[tuple[float, int, str]] = []
        self.unsure = self.failed = self.refused = self.answered = 0

    def add(self, one: Scored, answer: dict[str, Any], shares: np.ndarray | None) -> None:
        """Takes an answer into account."""
        if one.error:
            self.failed += 1
            return
        self.answered += 1
        self._counts[answer["top"][0]["label"]] += 1
        self.unsure += answer["unsure"]
        self.refused += answer.get("refused", False)
        if self._review:
            p = probabilities_of(self._model, one.scores[None], shares)[0]
            value = float((p * (1 - p) * self._rarity).sum())
            number = sum(self._counts.values())
            push = heapq.heappush if len(self._best) < self._review else heapq.heappushpop
            push(self._best, (value, -number, f"{answer['file']}: {answer['top'][0]['label']}"))

    def to_review(self) -> list[str]:
        """The images that should be checked first: file and answer. Their worth is the sum over the classes of
        p (1 - p) over the class's number of training images: doubt about rare classes."""
        return [text for _, _, text in sorted(self._best, reverse=True)]

    def counts(self) -> str:
        """The answers by class, in a line."""
        common = self._counts.most_common()
        shown = ", ".join(f"{label} {number:,}" for label, number in common[:MOST_COUNTED])
        rest = sum(number for _, number in common[MOST_COUNTED:])
        more = f", {len(common) - MOST_COUNTED} other classes {rest:,}" if rest else ""
        return f"predictions by class: {shown or 'none'}{more}"
