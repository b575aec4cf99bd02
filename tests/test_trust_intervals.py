"""Intervals of shares and nearest images, against plain loops."""

import math

import numpy as np
import pytest

from ncl_jax.trust.intervals import at_most, wilson
from ncl_jax.trust.neighbours import nearest


@pytest.mark.parametrize(("right", "total"), [(0, 1), (5, 5), (3, 5), (40, 50), (0, 30), (999, 1000)])
def test_wilson_solves_its_equation(right, total):
    """The bounds are the shares p with |right/total - p| = z sqrt(p (1 - p) / total)."""
    low, high = wilson(right, total)
    share, z = right / total, 1.959963984540054

    for bound in (low, high):
        np.testing.assert_allclose((share - bound) ** 2, z**2 * bound * (1 - bound) / total, atol=1e-12)
    assert low <= share <= high and low < high


def test_wilson_of_arrays_and_of_nothing():
    low, high = wilson(np.array([0, 5, 3]), np.array([0, 5, 5]))
    np.testing.assert_allclose(low, [0, 0.5655, 0.2307], atol=1e-4)
    np.testing.assert_allclose(high, [1, 1, 0.8824], atol=1e-4)
    narrow = wilson(3, 5, confidence=0.5)
    assert low[2] < narrow[0] < 0.6 < narrow[1] < high[2]


@pytest.mark.parametrize("same", [False, True])
def test_nearest_equals_a_loop(same, monkeypatch):
    monkeypatch.setattr("ncl_jax.trust.neighbours.CHUNK", 7)  # several chunks
    random = np.random.default_rng(0)
    features = random.normal(size=(20, 5))
    others = features if same else random.normal(size=(11, 5))
    rows, distances = nearest(features, others, 3, same)
    for i, one in enumerate(features):
        away = [1 - one @ other / np.linalg.norm(one) / np.linalg.norm(other) for other in others]
        if same:
            away[i] = np.inf
        wanted = np.argsort(away)[:3]
        assert rows[i].tolist() == wanted.tolist()
        np.testing.assert_allclose(distances[i], np.array(away)[wanted], atol=1e-6)


def test_nearest_of_few_and_of_none():
    assert nearest(np.ones((4, 2)), np.ones((2, 2)), 3)[0].shape == (4, 2)
    assert nearest(np.ones((1, 2)), np.ones((1, 2)), 3, same=True)[0].shape == (1, 0)
    assert nearest(np.zeros((0, 2)), np.ones((3, 2)), 2)[0].shape == (0, 2)


@pytest.mark.parametrize(("right", "total"), [(0, 1), (0, 5), (3, 10), (9, 10), (40, 200)])
def test_the_exact_bound_is_where_so_few_are_as_likely_as_said(right, total):
    bound = float(at_most(right, total, 0.975))
    few = sum(math.comb(total, k) * bound**k * (1 - bound) ** (total - k) for k in range(right + 1))
    np.testing.assert_allclose(few, 0.025, rtol=1e-6)
    assert at_most([0, 4], [0, 4]).tolist() == [1, 1]
