"""The shares of classes among images without labels, against a plain loop and on shifts that are known."""

import numpy as np
import pytest

from ncl_jax.trust import mix

PRIOR = np.array([0.6, 0.3, 0.1])
MEANS = 2.5 * np.eye(3)


def images(shares, number, seed, prior=PRIOR):
    """Exact probabilities under the prior of points of three classes that are drawn by other shares; their labels."""
    random = np.random.default_rng(seed)
    labels = random.choice(3, number, p=shares)
    x = MEANS[labels] + random.normal(size=(number, 3))
    p = np.exp(-((x[:, None] - MEANS) ** 2).sum(2) / 2) * prior
    return p / p.sum(1, keepdims=True), labels


def test_em_equals_a_loop():
    p, _ = images(np.array([0.2, 0.3, 0.5]), 50, 0)
    weights = np.random.default_rng(1).integers(0, 3, (50, 2)).astype(float)
    found = mix.shares(p, PRIOR, weights, pseudo=4.0)
    for column in range(2):
        q = PRIOR.copy()
        for _ in range(2000):
            new = 4.0 * PRIOR
            for row, w in zip(p, weights[:, column], strict=True):
                r = q / PRIOR * row
                new = new + w * r / r.sum()
            q = new / (weights[:, column].sum() + 4.0)
        np.testing.assert_allclose(found[:, column], q, atol=2e-5)


def test_a_known_shift_is_recovered():
    wanted = np.array([0.2, 0.3, 0.5])
    p, labels = images(wanted, 1500, 0)
    found = mix.estimate(p, PRIOR)
    assert not found.refused and found.gain_low > 0.1 and found.images == 1500
    np.testing.assert_allclose(found.shares, wanted, atol=0.04)
    assert set(mix.movers(found, PRIOR, 2).tolist()) == {0, 2}
    before, after = p.argmax(1), (p * found.shares / PRIOR).argmax(1)
    assert (after == labels).mean() > (before == labels).mean() + 0.01


def test_intervals_hold_the_true_shares_nearly_always():
    wanted, inside = np.array([0.2, 0.3, 0.5]), []
    for seed in range(15):
        found = mix.estimate(images(wanted, 400, seed)[0], PRIOR)
        inside.append((found.low < wanted) & (wanted < found.high))
    assert 0.85 < np.mean(inside) < 1


def test_without_a_shift_the_training_shares_stay():
    """In nearly all of twenty draws: the gain is that of images whose shares are estimated from others."""
    refused = [mix.estimate(images(PRIOR, 300, seed)[0], PRIOR).refused for seed in range(20)]
    assert sum(bool(reason) for reason in refused) >= 18 and "gain in log-likelihood" in refused[0]


def test_pseudo_images_hold_a_class_without_evidence():
    p, _ = images(np.array([1.0, 0, 0]), 200, 0)
    few, many = (mix.shares(p, PRIOR, np.ones((200, 1)), pseudo)[:, 0] for pseudo in (1.0, 100.0))
    assert 0 < few[2] < many[2] < PRIOR[2]
    nothing = mix.shares(np.tile(PRIOR, (40, 1)), PRIOR, np.ones((40, 1)))[:, 0]
    np.testing.assert_allclose(nothing, PRIOR, atol=1e-9)


def test_images_unlike_training_are_refused():
    p, _ = images(np.array([0.1, 0.1, 0.8]), 200, 0)
    assert "30 % of the images are unlike" in mix.estimate(p, PRIOR, np.arange(200) < 60).refused
    assert not mix.estimate(p, PRIOR, np.arange(200) < 10).refused


@pytest.mark.parametrize("number", [0, 1, 29])
def test_too_few_images_are_refused(number):
    found = mix.estimate(images(np.array([0.1, 0.1, 0.8]), number, 0)[0], PRIOR)
    assert f"{number} images are too few" in found.refused and found.shares.sum() == pytest.approx(1)


def test_the_same_seed_gives_the_same_intervals():
    p, _ = images(np.array([0.3, 0.3, 0.4]), 60, 0)
    one, two = mix.estimate(p, PRIOR), mix.estimate(p, PRIOR)
    np.testing.assert_array_equal(one.low, two.low)
