"""Long-tailed test sets by reweighting, against test sets that are really drawn so."""

import numpy as np
import pytest

from ncl_jax.evaluation import shifts

COUNTS = (10, 500, 100, 40)


def test_reweighting_equals_a_test_set_of_that_profile():
    right = np.array([0.2, 0.9, 0.7, 0.5])
    found = shifts.accuracies(right, COUNTS)
    for ratio in (50, 5):
        sizes = [int(10_000 * ratio ** (-i / 3)) for i in range(4)]  # of the largest class first
        for name, order in ((f"forward-{ratio}", (1, 2, 3, 0)), (f"backward-{ratio}", (0, 3, 2, 1))):
            correct = sum(size * right[label] for size, label in zip(sizes, order, strict=True))
            assert found[name] == pytest.approx(correct / sum(sizes), abs=1e-3)
    assert found["uniform"] == pytest.approx(right.mean())
    assert list(found) == ["forward-50", "forward-25", "forward-10", "forward-5", "forward-2", "uniform", "backward-2",
                           "backward-5", "backward-10", "backward-25", "backward-50"]  # fmt: skip


def test_weights_fall_from_the_largest_class_and_rise_backward():
    forward, backward = (shifts.weights(COUNTS, 8, side) for side in (False, True))
    assert forward.sum() == pytest.approx(1) and forward[1] / forward[0] == pytest.approx(8)
    assert backward[0] / backward[1] == pytest.approx(8)
    np.testing.assert_allclose(np.sort(forward), np.sort(backward))


def test_classes_without_test_images_are_left_out():
    found = shifts.accuracies([None, 0.5, 0.5, 0.5], COUNTS)
    np.testing.assert_allclose(list(found.values()), 0.5)


def test_the_table_has_every_set_and_the_mean_expert():
    experts = [{"per_class": [0.0] * 4}, {"per_class": [1.0] * 4}]
    results = {"ensemble": {"per_class": [0.0, 1.0, 1.0, 1.0]}, "experts": experts}
    lines = shifts.table(results, COUNTS).splitlines()
    assert len(lines) == 12 and lines[6].split() == ["uniform", "75.00", "50.00"]
