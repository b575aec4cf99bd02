"""Suspected labels, near duplicates, outliers and left-out scores, against plain loops."""

import math

import numpy as np
import pytest

from ncl_jax.trust import duplicates, labels, left_out, outliers
from ncl_jax.trust.neighbours import nearest


def separable(counts=(40, 20, 8), dim=6, seed=0):
    """Features of classes that lie apart, and their labels."""
    rng = np.random.default_rng(seed)
    of = np.repeat(range(len(counts)), counts)
    return 5 * np.eye(len(counts), dim)[of] + rng.normal(size=(len(of), dim)), of


def softmax(scores, temperature=0.1):
    scores = np.exp((scores - scores.max(1, keepdims=True)) / temperature)
    return scores / scores.sum(1, keepdims=True)


def judged(features, given, groups):
    """What is suspected, by left-out scores."""
    number = len(groups)
    near, distances = nearest(features, features, 10, same=True)
    return labels.suspected(softmax(left_out.scores(features, given, number)), near, distances, given, groups)


def test_left_out_scores_are_those_of_fits_without_the_image():
    features, of = separable((6, 4, 1), 3)
    found, penalty = left_out.spectrum(features, of, 3), 0.3
    weights = 1 / np.bincount(of)[of] / 3
    x, targets = np.concatenate([features, np.ones((11, 1))], 1), np.eye(3)[of]
    scores = []
    for row in range(11):
        rest = np.delete(np.arange(11), row)
        scaled = x[rest] * weights[rest, None]
        scores.append(
            x[row] @ np.linalg.solve(scaled.T @ x[rest] + np.diag([0.3] * 3 + [0.0]), scaled.T @ targets[rest])
        )
    np.testing.assert_allclose(left_out.left_out(found, penalty), scores, atol=1e-9)
    error = sum(weights[row] * ((scores[row] - targets[row]) ** 2).sum() for row in range(11))
    assert left_out.left_out_error(found, penalty) == pytest.approx(error)
    errors = {p: left_out.left_out_error(found, p * found.values.mean()) for p in left_out.PENALTIES}
    assert left_out.best_penalty(found) == min(errors, key=errors.get) * found.values.mean()


def test_thresholds_and_votes_equal_loops():
    rng = np.random.default_rng(1)
    of, groups = np.repeat([0, 1, 2, 3], [9, 5, 2, 1]), np.array([0, 0, 1, 1])
    own = rng.random(17)
    for c, found in enumerate(labels.thresholds(own, of, groups)):
        group = [own[i] for i in range(17) if groups[of[i]] == groups[c]]
        mine = [own[i] for i in range(17) if of[i] == c]
        assert found == pytest.approx((sum(mine) + 10 * sum(group) / len(group)) / (len(mine) + 10))
    near, distances = rng.integers(0, 17, (17, 4)), rng.random((17, 4))
    classes = rng.integers(0, 4, 17)
    for i, found in enumerate(labels.votes(near, distances, of, classes)):
        others = sum(of[j] == classes[i] for j in range(17) if j != i)
        vote = sum(math.exp(-d / 0.07) for j, d in zip(near[i], distances[i], strict=True) if of[j] == classes[i])
        assert found == pytest.approx(vote / max(others, 1))


def oracle(probabilities, near, distances, of, groups):
    """Suspected labels by loops: `{row: class}`, before the cap."""
    n, number = probabilities.shape
    least = labels.thresholds(probabilities[range(n), of], of, groups)
    found = {}
    for i in range(n):
        own = probabilities[i, of[i]]
        able = [(probabilities[i, c], -c) for c in range(number) if c != of[i] and probabilities[i, c] >= least[c]]
        if not able or sum(of == of[i]) < 3:
            continue
        probability, c = max(able)
        vote = {k: sum(math.exp(-d / 0.07) for j, d in zip(near[i], distances[i], strict=True) if of[j] == k)
                / max(sum(of == k) - (of[i] == k), 1) for k in (-c, of[i])}  # fmt: skip
        if probability >= 20 * own and vote[-c] > vote[of[i]]:
            found[i] = -c, math.log(own / probability)
    return found


def test_suspects_equal_loops_and_are_capped_and_sorted():
    rng = np.random.default_rng(2)
    of, groups = np.repeat(range(5), [30, 20, 10, 4, 2]), np.array([0, 0, 1, 1, 1])
    scores = rng.normal(size=(66, 5)) * 4
    probabilities = softmax(scores, 1.0)
    near, distances = nearest(rng.normal(size=(66, 4)), rng.normal(size=(66, 4)), 7)
    wanted = oracle(probabilities, near, distances, of, groups)
    found = labels.suspected(probabilities, near, distances, of, groups)
    assert len(wanted) > len(found.rows) > 5
    for row, suggested, margin in zip(found.rows.tolist(), found.suggested, found.margin, strict=True):
        assert wanted[row] == (suggested, pytest.approx(margin))
    for c, most in enumerate([6, 4, 2, 1, 0]):
        of_class = sorted((margin, row) for row, (_, margin) in wanted.items() if of[row] == c)
        assert sorted(found.rows[of[found.rows] == c]) == sorted(row for _, row in of_class[:most])
    order = [(groups[of[row]], margin) for row, margin in zip(found.rows, found.margin, strict=True)]
    assert order == sorted(order)


def test_flipped_labels_are_found():
    features, of = separable()
    given = of.copy()
    wrong = {0: 1, 1: 2, 41: 0, 61: 1}
    for row, label in wrong.items():
        given[row] = label
    found = judged(features, given, np.array([0, 1, 2]))
    assert dict(zip(found.rows.tolist(), found.suggested.tolist(), strict=True)) == {r: int(of[r]) for r in wrong}
    assert (found.vote > 0.9).all() and (found.probability > 0.9).all()


@pytest.mark.parametrize(
    ("features", "given"),
    [
        (np.ones((2, 3)), [0, 1]),
        (np.random.default_rng(0).normal(size=(9, 3)), [0] * 9),
        (np.ones((12, 3)), [0, 1] * 6),
        (np.zeros((12, 3)), [0, 1] * 6),
        (np.random.default_rng(0).normal(size=(4, 3)), [0, 1, 2, 3]),
    ],
)
def test_data_of_which_nothing_can_be_said(features, given):
    given = np.array(given)
    found = judged(features, given, np.zeros(given.max() + 1, int))
    assert all(not len(part) for part in found)


def test_eight_thousand_classes():
    given = np.concatenate([np.arange(8000), [0] * 30])
    features = np.random.default_rng(0).normal(size=(len(given), 4)).astype(np.float32)
    features[given == 0] = [9, 0, 0, 0]
    features[8001] = [-9, 0, 0, 0]
    probabilities = np.full((len(given), 8000), 1e-5, np.float32)
    probabilities[:, 0] = 0.9
    probabilities[8001, [0, 5]] = 1e-4, 0.8
    near, distances = nearest(features, features, 10, same=True)
    near[8001, 0], distances[8001, 0] = 5, 0.0
    found = labels.suspected(probabilities, near, distances, given, np.zeros(8000, int))
    assert found.rows.tolist() == [8001] and found.suggested.tolist() == [5]


# Near duplicates


def pictures(number, seed=0):
    """Small grey pictures, smooth as photographs are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (number, 4, 4))
    return np.repeat(np.repeat(coarse, 4, 1), 4, 2).astype(np.uint8)


def test_near_and_difference_equal_loops():
    distances = np.array([0.0, 0.2, 0.4, 0.9, 1e-8])
    assert duplicates.near(distances) == pytest.approx(0.13 * 0.4)
    assert duplicates.near(np.zeros(4)) == duplicates.near(np.zeros(0)) == duplicates.TINY
    first, second = pictures(5), pictures(5, 1)
    for a, b, found in zip(first, second, duplicates.difference(first, second), strict=True):
        x, y = a - a.mean(), b - b.mean()
        spread = (np.abs(x).mean() + np.abs(y).mean()) / 2
        least = min(np.mean([abs(x[i, j] - z[i, j]) for i in range(16) for j in range(16)]) for z in (y, y[:, ::-1]))
        assert found == pytest.approx(least / spread)


def test_copies_are_found_once_and_others_are_not():
    small = pictures(40)
    brighter, mirrored = np.clip(small[3] * 0.9 + 20, 0, 255).astype(np.uint8), small[7, :, ::-1]
    small = np.concatenate([small, [small[0]], [small[0]], [brighter]])
    features = np.random.default_rng(3).normal(size=(43, 16))
    features[40:42] = features[0]
    features[42] = features[3] + 1e-3
    features[20] = features[21]  # near by their features alone
    found, limit = duplicates.within(*nearest(features, features, 10, same=True), small)
    pairs = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    assert pairs in ({(0, 40), (0, 41), (3, 42)}, {(0, 40), (40, 41), (3, 42)}) and 0 < limit < 0.2
    others = np.concatenate([features[[7, 20, 0]], -features[:1]])
    leaked = duplicates.between(features, others, small, np.stack([mirrored, small[30], small[0], small[5]]), limit)
    assert sorted(leaked.second.tolist()) == [0, 2] and leaked.first[leaked.second == 0] == 7
    assert leaked.first[leaked.second == 2] in (0, 40, 41) and (leaked.differences == 0).all()


@pytest.mark.parametrize("by_pixels", [False, True])
def test_the_rule_for_copies_equals_loops(by_pixels):
    """Pictures that differ a little, more, or wholly, at distances below the limit, above it, or far away."""
    rng, small = np.random.default_rng(5), pictures(12)
    noisy = [
        np.clip(small[i] + rng.normal(0, level, (16, 16)), 0, 255) for i, level in enumerate([2, 5, 14, 14, 20, 60] * 2)
    ]
    others = np.stack(noisy).astype(np.uint8)
    features = rng.normal(size=(12, 30))
    theirs = features + rng.choice([0.02, 0.4, 3], (12, 1)) * rng.normal(size=(12, 30))
    found = duplicates.between(features, theirs, small, others, 0.1, by_pixels)
    wanted = {}
    for j in range(12):
        away = [1 - a @ theirs[j] / np.linalg.norm(a) / np.linalg.norm(theirs[j]) for a in features]
        for i in np.argsort(away)[:10]:
            differs = duplicates.difference(small[i : i + 1], others[j : j + 1])[0]
            most = (0.1 if by_pixels else 0.25) if away[i] < 0.1 else (0 if by_pixels else 0.1)
            if differs < most and j not in wanted:
                wanted[j] = i
    assert dict(zip(found.second.tolist(), found.first.tolist(), strict=True)) == wanted
    assert len(wanted) in range(2, 12) and (np.diff(found.distances) >= 0).all()


def test_pixels_alone_find_copies():
    small = pictures(31)
    small[30] = small[4]
    features = duplicates.pixel_features(small)
    found, _ = duplicates.within(*nearest(features, features, 10, same=True), small, by_pixels=True)
    assert (found.first.tolist(), found.second.tolist()) == ([4], [30])
    correlation = np.corrcoef(small[0].ravel(), small[1].ravel())[0, 1]
    a, b = duplicates.pixel_features(small[:2])
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) == pytest.approx(correlation, abs=1e-6)


@pytest.mark.parametrize("number", [1, 2, 12])
def test_equal_images_are_all_copies_and_one_has_none(number):
    near = nearest(np.ones((number, 3)), np.ones((number, 3)), 10, same=True)
    found, limit = duplicates.within(*near, np.full((number, 16, 16), 7, np.uint8))
    assert len(found.first) == len(set(found.second.tolist())) and limit == duplicates.TINY
    assert (found.first < found.second).all() and (len(found.first) > 0) == (number > 1)


def test_accuracy_without_leaks():
    assert duplicates.leaks(np.array([True, True, False, False]), np.array([0, 1])) == (0.5, 0.0)
    assert duplicates.leaks(np.array([True, False]), np.array([], int)) == (0.5, 0.5)
    whole, rest = duplicates.leaks(np.array([True]), np.array([0]))
    assert whole == 1 and math.isnan(rest)


# Outliers


def test_outliers_equal_a_loop():
    rng = np.random.default_rng(4)
    features = np.concatenate([rng.normal([8, 0, 0], size=(60, 3)), [[-9, 1, 0], [-1, -9, 3]]])
    _, distances = nearest(features, features, 10, same=True)
    means = [sum(row) / 10 for row in distances.tolist()]
    first, third = np.quantile(means, 0.25), np.quantile(means, 0.75)
    wanted = sorted((i for i in range(62) if means[i] > third + 1.7 * (third - first)), key=lambda i: -means[i])
    rows, found = outliers.outliers(distances)
    assert rows.tolist() == wanted and set(wanted) >= {60, 61}
    np.testing.assert_allclose(found, means, rtol=1e-6)


@pytest.mark.parametrize("features", [np.ones((2, 3)), np.ones((1, 3)), np.ones((20, 3)), np.zeros((20, 3))])
def test_nothing_is_an_outlier_among_equals_or_few(features):
    _, distances = nearest(features, features, 10, same=True)
    rows, means = outliers.outliers(distances)
    assert not len(rows) and means.shape == (len(features),)
