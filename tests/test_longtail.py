"""The community's long-tailed subsets, their checksums, and the groups of classes."""

import numpy as np
import pytest

from ncl_jax.data import longtail


def balanced(num_classes, per_class):
    """Labels of a balanced data set in mixed order."""
    return np.random.default_rng(0).permutation(np.repeat(np.arange(num_classes, dtype=np.int32), per_class))


@pytest.mark.parametrize(
    ("num_classes", "imbalance", "total"),
    [(10, 100, 12_406), (10, 50, 13_996), (10, 10, 20_431), (100, 100, 10_847), (100, 50, 12_608), (100, 10, 19_573)],
)
def test_totals_of_published_profiles(num_classes, imbalance, total):
    counts = longtail.class_counts(50_000 // num_classes, imbalance, num_classes)
    assert counts.sum() == total
    assert counts[0] == 50_000 // num_classes and counts[-1] == counts[0] // imbalance
    assert (np.diff(counts) <= 0).all()


@pytest.mark.parametrize("imbalance", [10, 50, 100])
@pytest.mark.parametrize("num_classes", [10, 100])
def test_profile_equals_the_formula_with_the_inverse_factor(num_classes, imbalance):
    # Other programs raise 1 / IF to +c / (C - 1); rounding down must not tell the two apart.
    inverse = [int(500 * (1 / imbalance) ** (c / (num_classes - 1.0))) for c in range(num_classes)]
    np.testing.assert_array_equal(longtail.class_counts(500, imbalance, num_classes), inverse)


def test_select_is_the_protocol_written_out():
    labels = balanced(10, 60)
    np.random.seed(0)
    expected = []
    for label in range(10):
        rows = np.where(labels == label)[0]
        np.random.shuffle(rows)
        expected += rows[: int(60 * 0.1 ** (label / 9))].tolist()
    rows = longtail.select(labels, 10, 10)
    np.testing.assert_array_equal(rows, expected)
    assert rows.dtype == np.int64 and len(set(rows)) == len(rows)


def test_select_keeps_the_global_generator_and_the_labels():
    labels = balanced(4, 10)
    before, kept = np.random.get_state()[1].copy(), labels.copy()
    longtail.select(labels, 2, 4)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    np.testing.assert_array_equal(labels, kept)


def test_select_checksum_does_not_change():
    # If this fails, subsets differ from those of earlier versions, and results are not comparable.
    labels = np.arange(50_000) % 100
    assert longtail.checksum(longtail.select(labels, 100, 100)) == "7ebcb6242d814b39"
    assert longtail.checksum(longtail.select(labels, 100, 100, seed=1)) != "7ebcb6242d814b39"


def test_select_imbalance_one_keeps_every_row():
    rows = longtail.select(balanced(4, 10), 1, 4)
    np.testing.assert_array_equal(np.sort(rows), np.arange(40))


def test_select_meets_the_profile_where_classes_differ_in_size():
    labels = np.repeat(np.arange(3), [30, 20, 25])
    rows = longtail.select(labels, 4, 3)
    np.testing.assert_array_equal(np.bincount(labels[rows]), longtail.class_counts(20, 4, 3))


def test_checksum_depends_on_values_and_order_alone():
    rows = np.arange(5)
    assert (
        longtail.checksum(rows) == longtail.checksum(rows.astype(">i4")) == longtail.checksum(np.arange(10)[::2] // 2)
    )
    assert longtail.checksum(rows) != longtail.checksum(rows[::-1])
    assert len(longtail.checksum(rows)) == 16


@pytest.mark.parametrize(
    ("labels", "imbalance", "num_classes", "message"),
    [
        ([0, 1, 2], 0.5, 3, "imbalance is 0.5"),
        ([0, 1, 2], float("nan"), 3, "imbalance is nan"),
        ([0, 1, 2], 2, 3, "imbalance 2 leaves class 1 without an image"),
        ([0, 0, 0], 1, 1, "num_classes is 1"),
        ([0, 1, 2], 1, 2, "label 2 in row 2"),
        ([0, -1, 2], 1, 3, "label -1 in row 1"),
        ([0, 2, 2], 1, 3, "class 1 of 3 has no image"),
        ([], 1, 3, "labels are float64"),
        ([0.0, 1.0], 1, 2, "labels are float64"),
        ([[0], [1]], 1, 2, r"shape \(2, 1\)"),
    ],
)
def test_errors_name_the_value(labels, imbalance, num_classes, message):
    with pytest.raises(ValueError, match=message):
        longtail.select(np.array(labels), imbalance, num_classes)


def test_groups_of_both_conventions():
    counts = np.array([500, 101, 100, 99, 21, 20, 19, 5])
    papers, authors = longtail.groups(counts, "papers"), longtail.groups(counts, "authors")
    assert papers["many"].tolist() == [True] * 2 + [False] * 6
    assert papers["few"].tolist() == [False] * 6 + [True] * 2
    assert authors["many"].tolist() == [True] * 3 + [False] * 5
    assert authors["few"].tolist() == [False] * 5 + [True] * 3
    for groups in (papers, authors):
        np.testing.assert_array_equal(sum(mask.astype(int) for mask in groups.values()), 1)


def test_groups_of_cifar100():
    counts = longtail.class_counts(500, 100, 100)
    sizes = {name: int(mask.sum()) for name, mask in longtail.groups(counts, "papers").items()}
    assert sizes == {"many": 35, "medium": 35, "few": 30}


def test_groups_unknown_convention():
    with pytest.raises(ValueError, match="'paper'.*papers, authors"):
        longtail.groups(np.array([1]), "paper")
