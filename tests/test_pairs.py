"""Paired differences and their tests, against scipy's and plain loops."""

import numpy as np
import pytest
import scipy.stats

from ncl_jax.trust import pairs

FIRST, SECOND = [0.58, 0.60, 0.59, 0.61, 0.57], [0.55, 0.58, 0.58, 0.57, 0.56]


def test_over_seeds_is_the_paired_t_test():
    expected = scipy.stats.ttest_rel(FIRST, SECOND)
    found = pairs.over_seeds(FIRST, SECOND)
    assert found.p() == pytest.approx(expected.pvalue)
    assert found.interval() == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.interval(0.5) == pytest.approx(tuple(expected.confidence_interval(0.5)))


@pytest.mark.parametrize("shift, p", [(0.0, 1.0), (0.1, 0.0)])
def test_differences_that_are_all_alike_have_no_error(shift, p):
    found = pairs.over_seeds([value + shift for value in FIRST], FIRST)
    assert found.error == pytest.approx(0, abs=1e-15)
    assert found.p() == pytest.approx(p, abs=1e-9) and found.interval() == pytest.approx((shift, shift))


def test_over_images_of_one_class_is_the_one_sample_t_test():
    random = np.random.RandomState(0)
    first, second = random.randint(0, 6, (2, 40)) / 5
    expected = scipy.stats.ttest_1samp(first - second, 0)
    found = pairs.over_images(first, second, np.zeros(40, int), np.ones(1))
    assert found.p() == pytest.approx(expected.pvalue)
    assert found.interval() == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_over_images_is_what_drawing_images_of_every_class_again_gives():
    random = np.random.RandomState(1)
    labels, weights = np.repeat([0, 1, 2], [30, 60, 5]), np.array([0.5, 0.5, 0.0])
    first, second = (random.rand(2, 95) < np.array([[0.8], [0.5]])).astype(float)
    means = []
    for _ in range(4000):
        rows = [random.choice(np.flatnonzero(labels == label), size) for label, size in enumerate((30, 60, 5))]
        means.append(sum(w * (first[r] - second[r]).mean() for w, r in zip(weights, rows, strict=True)))
    found = pairs.over_images(first, second, labels, weights)
    assert found.mean == pytest.approx(np.mean(means), abs=0.005)
    assert found.error == pytest.approx(np.std(means), rel=0.06)
    assert found.freedom == 29 + 59


def test_both_adds_as_welch_does():
    one, other = [1.0, 2.0, 4.0, 4.5], [0.5, 0.7, 3.0, 0.1, 0.2, 0.9]
    parts = [pairs.Estimate(np.mean(v), np.std(v, ddof=1) / np.sqrt(len(v)), len(v) - 1) for v in (one, other)]
    expected = scipy.stats.ttest_ind(one, other, equal_var=False)
    found = pairs.both(*parts)._replace(mean=np.mean(one) - np.mean(other))
    assert found.freedom == pytest.approx(expected.df) and found.p() == pytest.approx(expected.pvalue)
    same = pairs.Estimate(0.0, 0.0, 4)
    assert pairs.both(same, same) == same


def test_holm_multiplies_by_the_tests_that_are_left():
    # Of 4 tests: 4 x 0.01; 3 x 0.02; then 2 x 0.02 = 0.04, not below the one before; 1 x 0.9.
    assert pairs.holm([0.02, 0.9, 0.01, 0.02]) == pytest.approx([0.06, 0.9, 0.04, 0.06])
    assert pairs.holm([0.6, 0.7]) == [1.0, 1.0] and pairs.holm([]) == []


def test_too_few_to_say_anything_is_refused():
    with pytest.raises(ValueError, match="1 pairs"):
        pairs.over_seeds([1.0], [2.0])
    with pytest.raises(ValueError, match="class 1 has 1 images"):
        pairs.over_images(np.ones(3), np.zeros(3), np.array([0, 0, 1]), np.full(2, 0.5))
