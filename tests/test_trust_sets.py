"""Prediction sets, against plain loops and by simulation."""

import math

import numpy as np
import pytest

from ncl_jax.errors import ConfigError, DataError
from ncl_jax.trust import sets


def true(probabilities, labels):
    """What rules are calibrated on."""
    return probabilities[np.arange(len(labels)), labels], labels


def example(number=60, num_classes=4, seed=0):
    """Probabilities, labels, and a prior."""
    random = np.random.default_rng(seed)
    prior = np.array([0.5, 0.3, 0.15, 0.05])[:num_classes]
    return random.dirichlet(np.ones(num_classes), number), random.choice(num_classes, number, p=prior), prior


@pytest.mark.parametrize(("number", "coverage"), [(9, 0.9), (8, 0.9), (19, 0.95), (99, 0.99), (60, 0.8), (7, 0.3)])
def test_the_rank_is_that_of_split_conformal(number, coverage):
    """The smallest k with k / (n + 1) >= coverage, in whole numbers."""
    per_mille = round(1000 * coverage)
    assert sets.rank(number, coverage) == next(k for k in range(1, 1000) if 1000 * k >= per_mille * (number + 1))


@pytest.mark.parametrize("weights", [None, np.array([1.0, 1, 1, 5])])
def test_marginal_thresholds_equal_a_loop(weights, monkeypatch):
    monkeypatch.setattr(sets, "CHUNK", 4 * 7)  # several chunks
    probabilities, labels, prior = example()
    rule = sets.calibrate(*true(probabilities, labels), prior, 0.8, weights=weights)
    w = np.ones(4) if weights is None else weights
    ordered = sorted(-w[y] * p[y] / prior[y] for p, y in zip(probabilities, labels, strict=True))
    limit = ordered[math.ceil(0.8 * 61) - 1]
    np.testing.assert_allclose(rule.thresholds, limit)
    others = example(30, seed=1)[0]
    wanted = [[-w[y] * p[y] / prior[y] <= limit for y in range(4)] for p in others]
    np.testing.assert_array_equal(sets.predict_sets(rule, others), wanted)
    assert rule.number == 60 and not len(rule.without)


def test_macro_thresholds_equal_a_loop():
    probabilities, labels, prior = example()
    keep = labels != 2  # a class without calibration images
    probabilities, labels = probabilities[keep], labels[keep]
    rule = sets.calibrate(*true(probabilities, labels), prior, 0.8, "macro")
    pairs = sorted((-p[y] / prior[y], y) for p, y in zip(probabilities, labels, strict=True))
    for c in range(4):
        own = 1 / max((labels == c).sum(), 1)
        total = 3 + own
        reached, limit = 0.0, math.inf
        for score, y in pairs:
            reached += 1 / (labels == y).sum() / total
            if reached >= 0.8 - 1e-12:
                limit = score
                break
        assert rule.thresholds[c] == pytest.approx(limit)
    assert rule.without.tolist() == [2]


def test_too_few_images_put_every_class_in_every_set():
    probabilities, labels, prior = example(8)
    rule = sets.calibrate(*true(probabilities, labels), prior, 0.9)
    assert np.isinf(rule.thresholds).all() and sets.predict_sets(rule, probabilities).all()
    assert sets.coverage_range(8, 0.9) == (1.0, 1.0)


def test_the_marginal_coverage_is_exact():
    """With n = 19 the k-th of the scores covers k / (n + 1) on average, and Beta(k, n + 1 - k) for one calibration."""
    random, found = np.random.default_rng(0), []
    for _ in range(3000):
        p = random.random(19)
        rule = sets.calibrate(p, np.zeros(19, int), np.array([0.5, 0.5]), 0.9)
        found.append(1 + rule.thresholds[0] / 2)  # the share of p in [0, 1] that is in the set
    assert np.mean(found) == pytest.approx(18 / 20, abs=0.004)
    low, high = sets.coverage_range(19, 0.9)
    np.testing.assert_allclose(np.quantile(found, (0.05, 0.95)), (low, high), atol=0.01)
    np.testing.assert_allclose(sets.coverage_range(1000, 0.9), (0.884, 0.915), atol=2e-3)


def test_the_macro_coverage_is_at_least_what_is_promised():
    """Classes whose scores differ, 80 % of the calibration images of one of them."""
    random, found = np.random.default_rng(0), []
    prior, hard = np.array([0.8, 0.15, 0.05]), np.array([1.0, 2.0, 4.0])
    for _ in range(1500):
        labels = random.choice(3, 100, p=prior)
        p = random.random(100) ** hard[labels]
        thresholds = -sets.calibrate(p, labels, prior, 0.8, "macro").thresholds * prior
        found.append(np.mean(1 - np.clip(thresholds, 0, 1) ** (1 / hard)))
    assert 0.8 <= np.mean(found) < 0.84


def toy(random, number, prior, uniform=False):
    """Images of Zipf's classes as points in eight dimensions, and the exact probabilities of their classes."""
    means = np.random.default_rng(1).normal(size=(len(prior), 8)) * 1.3
    labels = random.integers(0, len(prior), number) if uniform else random.choice(len(prior), number, p=prior)
    x = means[labels] + random.normal(size=(number, 8))
    scores = -((x[:, None] - means) ** 2).sum(2) / 2 + np.log(prior)
    p = np.exp(scores - scores.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True), labels


def test_the_tail_is_covered_as_the_paper_says():
    """In spirit the toy of Ding et al.: 100 classes by Zipf's law, 5,000 calibration images. Prevalence-adjusted scores
    against standard ones, which are those of equal priors."""
    random, prior = np.random.default_rng(0), 1 / np.arange(1, 101)
    prior /= prior.sum()
    known, test, even = (
        toy(random, 5000, prior), toy(random, 5000, prior), toy(random, 5000, prior, uniform=True)
    )  # fmt: skip
    equal = np.full(100, 0.01)
    figures = {}
    for name, by in (("standard", equal), ("adjusted", prior)):
        rule = sets.calibrate(*true(*known), by, 0.9)
        marginal = sets.describe(sets.predict_sets(rule, test[0]), test[1])
        figures[name] = sets.describe(sets.predict_sets(rule, even[0]), even[1]) | {
            "coverage": marginal["coverage"], "size": marginal["size"]
        }  # fmt: skip
    standard, adjusted = figures["standard"], figures["adjusted"]
    assert standard["coverage"] == pytest.approx(0.9, abs=0.02) and adjusted["coverage"] == pytest.approx(0.9, abs=0.02)
    assert adjusted["macro"] > standard["macro"] + 0.05
    assert adjusted["below_half"] < standard["below_half"] and adjusted["size"] > standard["size"]
    macro = sets.calibrate(*true(*known), prior, 0.9, "macro")
    assert sets.describe(sets.predict_sets(macro, even[0]), even[1])["macro"] == pytest.approx(0.9, abs=0.03)


def test_figures_of_sets_equal_a_loop():
    found = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 1], [0, 0, 1]], bool)
    labels = np.array([0, 0, 1, 1, 0])
    figures = sets.describe(
        found, labels, {"few": np.array([False, True, False]), "none": np.array([False, False, True])}
    )
    assert figures["coverage"] == pytest.approx(3 / 5) and figures["macro"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert figures["below_half"] == 0 and figures["size"] == pytest.approx(6 / 5)
    assert figures["empty"] == pytest.approx(1 / 5) and figures["single"] == pytest.approx(2 / 5)
    assert figures["few"]["coverage"] == 0.5 and figures["few"]["size"] == 1 and figures["none"]["macro"] is None


def test_sets_grow_with_the_promise():
    known, test = example(300), example(200, seed=1)
    found = sets.curve(true(*known[:2]), test[:2], known[2], coverages=(0.5, 0.8, 0.95))
    assert [line["promised"] for line in found] == [0.5, 0.8, 0.95]
    assert found[0]["size"] < found[1]["size"] < found[2]["size"]


def test_eight_thousand_classes_take_chunks():
    random = np.random.default_rng(0)
    probabilities = random.random((60, 8000), np.float32)
    rule = sets.calibrate(*true(probabilities, np.arange(60)), np.full(8000, 1 / 8000), 0.9)
    assert sets.predict_sets(rule, probabilities).sum(1).min() > 0
    macro = sets.calibrate(*true(probabilities, np.arange(60)), np.full(8000, 1 / 8000), 0.9, "macro")
    assert len(macro.without) == 7940


@pytest.mark.parametrize("coverage", [1e-3, 1e-12, 1e-300])
def test_the_least_coverage_has_the_smallest_sets(coverage):
    probabilities, labels, prior = example()
    rule = sets.calibrate(*true(probabilities, labels), prior, coverage)
    known = sets.scores(probabilities, prior, np.ones(len(prior)))[range(len(labels)), labels]
    assert rule.thresholds[0] == known.min()
    assert 0 < sets.coverage_range(len(labels), coverage)[0] < 0.1


@pytest.mark.parametrize("coverage", [0, 1, 1.5, -0.1, math.nan, math.inf])
def test_coverages_that_there_cannot_be(coverage):
    probabilities, labels, prior = example()
    with pytest.raises(ConfigError, match=f"coverage={coverage}"):
        sets.calibrate(*true(probabilities, labels), prior, coverage)


@pytest.mark.parametrize(
    "weights", [np.ones(3), np.array([1, 1, 1, 0.0]), np.array([1, 1, 1, -2.0]), np.full(4, np.nan)]
)
def test_weights_that_there_cannot_be(weights):
    probabilities, labels, prior = example()
    with pytest.raises(ConfigError, match="weights"):
        sets.calibrate(*true(probabilities, labels), prior, weights=weights)


def test_other_promises_and_no_images_are_refused():
    probabilities, labels, prior = example()
    with pytest.raises(ConfigError, match="promise=each"):
        sets.calibrate(*true(probabilities, labels), prior, promise="each")
    with pytest.raises(DataError):
        sets.calibrate(np.zeros(0), labels[:0], prior)
