"""Known-ness and selective accuracy, against plain loops and by simulation."""

import numpy as np
import pytest

from ncl_jax.evaluation import baselines
from ncl_jax.trust import known, selective
from ncl_jax.trust.gaussian import class_means, shrunk_covariance
from ncl_jax.trust.neighbours import unit


def example(seed=0, counts=(9, 4, 1), size=6):
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    centres = 3 * np.random.default_rng(9).normal(size=(len(counts), size))
    return unit(centres[labels] + random.normal(size=(len(labels), size))).astype(np.float32), labels


def test_means_and_shrinkage_equal_a_loop():
    x, labels = example()
    means = class_means(x, labels, 3)
    np.testing.assert_allclose(means[1], np.mean([x[i] for i in range(len(x)) if labels[i] == 1], axis=0), rtol=1e-5)
    rest = x - means[labels]
    found = shrunk_covariance(rest)
    plain = sum(np.outer(row, row) for row in rest) / len(rest)
    n, p, trace = len(rest), 6, np.trace(plain)
    rho = ((1 - 2 / p) * np.trace(plain @ plain) + trace**2) / (
        (n + 1 - 2 / p) * (np.trace(plain @ plain) - trace**2 / p)
    )
    assert found.share == pytest.approx(min(rho, 1), rel=1e-4)
    np.testing.assert_allclose(found.matrix, (1 - found.share) * plain + found.share * trace / p * np.eye(p), atol=1e-6)


def test_the_covariance_of_nothing_is_the_identity():
    """Of classes of one image: by it a discriminant is the nearest mean, and finite."""
    found = shrunk_covariance(np.zeros((3, 5)))
    assert found.share == 1 and (found.matrix == np.eye(5)).all()
    means = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    scores = baselines.discriminant(means, np.arange(3), means, 3)
    np.testing.assert_allclose(scores, means @ means.T - 0.5 * (means**2).sum(1), atol=1e-5)


def test_distances_equal_a_loop(monkeypatch):
    monkeypatch.setattr(known, "CHUNK", 9)  # several chunks
    x, labels = example()
    others = example(1)[0]
    found = known.fit(x, labels, 3)
    means = class_means(x, labels, 3).astype(np.float64)
    inverse = np.linalg.inv(shrunk_covariance(x - means[labels]).matrix)
    wanted = [min((o - m) @ inverse @ (o - m) for m in means) for o in others]
    np.testing.assert_allclose(known.distances(found, others), wanted, rtol=1e-3)


def test_training_images_are_measured_without_themselves():
    """The closed form against leaving each one out; the part of the identity stays."""
    x, labels = example()
    x = x.astype(np.float64)
    covariance = shrunk_covariance(x - class_means(x, labels, 3)[labels])
    identity = covariance.matrix - (1 - covariance.share) * _within(x, labels, len(x))
    wanted = []
    for i in range(len(x)):
        rest, of = np.delete(x, i, 0), np.delete(labels, i)
        inverse = np.linalg.inv((1 - covariance.share) * _within(rest, of, len(x)) + identity)
        means = [rest[of == c].mean(0) for c in range(3) if (of == c).any()]
        wanted.append(min((x[i] - m) @ inverse @ (x[i] - m) for m in means))
    np.testing.assert_allclose(known.fit(x, labels, 3).distances, np.sort(wanted), rtol=2e-3)


def _within(x, labels, number):
    rest = np.concatenate([x[labels == c] - x[labels == c].mean(0) for c in np.unique(labels)])
    return rest.T @ rest / number


def test_images_like_training_are_below_a_level_as_often_as_it_says():
    """Few training images for their dimensions, so that distances that are not left out would be too small."""
    random, refused, centres = np.random.default_rng(0), [], np.random.default_rng(1).normal(size=(4, 30))
    for _ in range(40):
        labels, others = (random.choice(4, number, p=[0.5, 0.3, 0.15, 0.05]) for number in (60, 200))
        labels[:4] = range(4)
        x, new = (unit(centres[of] + 0.7 * random.normal(size=(len(of), 30))) for of in (labels, others))
        refused.append((known.p_values(known.fit(x, labels, 4), new) < 0.1).mean())
    assert np.mean(refused) == pytest.approx(0.1, abs=0.03)


def test_p_values_equal_a_loop():
    calibration, found = np.array([1.0, 2, 2, 5]), np.array([0.5, 2, 3, 9])
    wanted = [(1 + sum(c >= s for c in calibration)) / 5 for s in found]
    np.testing.assert_allclose(known.conformal(calibration, found), wanted)


def test_images_far_from_all_are_unlike_training():
    x, labels = example(counts=(60, 30, 10))
    found = known.fit(x, labels, 3)
    assert known.p_values(found, unit(-x)).max() <= 1 / 100 + 1e-6
    assert known.p_values(found, example(2, counts=(60, 30, 10))[0]).mean() > 0.3


def test_two_classes_of_one_image_each_and_one_class():
    two = known.fit(unit(np.array([[1.0, 0, 0], [0, 1, 0]])), np.array([0, 1]), 2)
    assert len(two.distances) == 2 and np.isfinite(two.distances).all()
    alone = known.fit(np.array([[1.0, 0]]), np.array([0]), 1)
    assert not len(alone.distances) and known.p_values(alone, np.array([[0.0, 1]])).tolist() == [1.0]


def test_selective_accuracy_equals_a_loop():
    random = np.random.default_rng(0)
    confidence, right = random.random(20), random.random(20) < 0.6
    tail = np.arange(20) < 5
    order = sorted(range(20), key=lambda i: -confidence[i])
    for line, share in zip(selective.selective(confidence, right, {"few": tail}), selective.SHARES, strict=True):
        kept = order[: round(share * 20)]
        assert line["accuracy"] == pytest.approx(np.mean(right[kept])) and line["answered"] == share
        own = [i for i in kept if tail[i]]
        assert line["few"]["refused"] == pytest.approx(1 - len(own) / 5)
        assert line["few"]["accuracy"] == (pytest.approx(np.mean(right[own])) if own else None)
    errors = [np.mean([not right[i] for i in order[:k]]) for k in range(1, 21)]
    assert selective.aurc(confidence, right) == pytest.approx(np.mean(errors))
    assert selective.selective(confidence[:0], right[:0])[0]["accuracy"] is None
