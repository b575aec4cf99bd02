"""Evaluation's figures against plain loops over images."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncl_jax.evaluation import metrics

NUM_CLASSES = 6
# Many, medium, few differ between the conventions on the classes of exactly 100 and 20 images.
GROUPS = {
    "papers": {
        "many": np.array([1, 0, 0, 0, 0, 0], bool),
        "medium": np.array([0, 1, 1, 1, 0, 0], bool),
        "few": np.array([0, 0, 0, 0, 1, 1], bool),
    },
    "authors": {
        "many": np.array([1, 1, 0, 0, 0, 0], bool),
        "medium": np.array([0, 0, 1, 0, 0, 0], bool),
        "few": np.array([0, 0, 0, 1, 1, 1], bool),
    },
}


def sample(seed=0, num_experts=3, count=40):
    """Logits that are right about half the time, of confidences from chance to certainty."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, NUM_CLASSES, count)
    logits = rng.normal(size=(num_experts, count, NUM_CLASSES))
    logits += 0.7 * np.eye(NUM_CLASSES)[labels]
    return (logits * rng.uniform(0.1, 6, (1, count, 1))).astype(np.float32), labels


def softmax(row):
    p = np.exp(np.asarray(row, np.float64) - np.max(row))
    return p / p.sum()


def share(flags):
    return sum(flags) / len(flags) if len(flags) else None


def expected_predictor(scores, labels, groups):
    """`scores [B, C]` of one predictor: its figures, image by image."""
    probabilities = [softmax(row) for row in scores]
    right = [int(np.argmax(row)) == label for row, label in zip(scores, labels, strict=True)]

    def accuracy(classes):
        return share([r for r, label in zip(right, labels, strict=True) if label in classes])

    confidence = [p.max() for p in probabilities]
    ece = 0.0
    for index in range(15):
        inside = [i for i, c in enumerate(confidence) if index / 15 <= c < (index + 1) / 15 or (index == 14 and c == 1)]
        if inside:
            gap = np.mean([confidence[i] for i in inside]) - np.mean([right[i] for i in inside])
            ece += abs(gap) * len(inside) / len(labels)
    by_convention = {
        name: {group: accuracy(np.flatnonzero(mask)) for group, mask in masks.items()} for name, masks in groups.items()
    }
    return {
        "accuracy": share(right),
        **by_convention["papers"],
        "authors": by_convention["authors"],
        "nll": np.mean([-np.log(p[label]) for p, label in zip(probabilities, labels, strict=True)]),
        "ece": ece,
        "per_class": [accuracy([c]) for c in range(NUM_CLASSES)],
    }


def expected_disagreement(logits, labels, classes):
    kl, top1 = [], []
    for b in np.flatnonzero(np.isin(labels, classes)):
        for i in range(len(logits)):
            for j in range(len(logits)):
                if i != j:
                    p, q = softmax(logits[i, b]), softmax(logits[j, b])
                    kl.append(np.sum(p * (np.log(p) - np.log(q))))
                    top1.append(np.argmax(p) != np.argmax(q))
    return share(kl), share(top1)


def assert_same(ours, expected, path="", rtol=1e-5):
    if isinstance(expected, dict):
        assert ours.keys() == expected.keys(), path
        for name in expected:
            assert_same(ours[name], expected[name], f"{path}.{name}", rtol)
    elif isinstance(expected, list):
        assert len(ours) == len(expected), path
        for index, (left, right) in enumerate(zip(ours, expected, strict=True)):
            assert_same(left, right, f"{path}[{index}]", rtol)
    elif expected is None:
        assert ours is None, path
    else:
        np.testing.assert_allclose(ours, expected, rtol=rtol, atol=1e-7, err_msg=path)


MOVE = np.linspace(2, -2, NUM_CLASSES).astype(np.float32)
evaluate = jax.jit(lambda logits, *rest: metrics.evaluate_batch(logits, *rest, MOVE[: logits.shape[-1]])[0])


@pytest.fixture(scope="module")
def summary():
    logits, labels = sample()
    return metrics.summarize(evaluate(logits, labels, np.ones(40, bool)), GROUPS)


def test_ensemble_and_experts_equal_plain_loops(summary):
    logits, labels = sample()
    expected = expected_predictor(logits.mean(0), labels, GROUPS)
    assert 0.3 < expected["accuracy"] < 0.95 and expected["ece"] > 0.02
    assert_same(summary["ensemble"], expected)
    assert_same(summary["experts"], [expected_predictor(scores, labels, GROUPS) for scores in logits])


def test_means_over_classes_and_another_prior_equal_plain_loops(summary):
    logits, labels = sample()
    top, moved = logits.mean(0).argmax(-1), (logits.mean(0) + MOVE).argmax(-1)
    recalls, harmonic, other = [], [], []
    for c in range(NUM_CLASSES):
        right = sum(t == p == c for t, p in zip(labels, top, strict=True))
        recalls.append(right / sum(labels == c))
        harmonic.append(2 * right / (sum(labels == c) + sum(top == c)))
        other.append(share([m == c for m, label in zip(moved, labels, strict=True) if label == c]))
    means = summary["class_means"]["ensemble"]
    np.testing.assert_allclose([means["accuracy"], means["f1"]], [np.mean(recalls), np.mean(harmonic)], rtol=1e-6)
    assert summary["test_counts"] == np.bincount(labels, minlength=NUM_CLASSES).tolist()
    assert_same(summary["moved"], {"accuracy": float(np.mean(moved == labels)), "class_mean": float(np.mean(other))})
    assert (moved != top).any()


def test_answers_for_single_images_equal_plain_loops():
    logits, labels = sample()
    answers = metrics.evaluate_batch(jnp.asarray(logits), jnp.asarray(labels), None)[1]
    for image, label in enumerate(labels):
        p = np.sort(softmax(logits.mean(0)[image]))
        np.testing.assert_allclose(answers.true[image], softmax(logits.mean(0)[image])[label], rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(answers.margin[image], p[-1] - p[-2], rtol=1e-4, atol=1e-6)


def test_disagreement_equals_plain_loops(summary):
    logits, labels = sample()

    def figures(index):
        def of(classes):
            return expected_disagreement(logits, labels, classes)[index]

        groups = {name: {g: of(np.flatnonzero(m)) for g, m in masks.items()} for name, masks in GROUPS.items()}
        per_class = [of([c]) for c in range(NUM_CLASSES)]
        return {"all": of(range(NUM_CLASSES)), **groups["papers"], "authors": groups["authors"], "per_class": per_class}

    assert_same(summary["disagreement"], {"kl": figures(0), "top1": figures(1)}, rtol=1e-4)


def test_padding_rows_count_nowhere():
    logits, labels = sample(count=10)
    padded = np.concatenate([logits, np.full((3, 5, NUM_CLASSES), 3.0, np.float32)], axis=1)
    padded[:, 10:, 0] = 50.0  # right answers of great confidence
    sums = evaluate(padded, np.concatenate([labels, np.zeros(5, int)]), np.arange(15) < 10)
    whole = evaluate(logits, labels, np.ones(10, bool))
    for name, left, right in zip(sums._fields, sums, whole, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-6, atol=1e-6, err_msg=name)
    assert sums.count.sum() == 10


def test_sums_of_batches_add_up():
    logits, labels = sample(1, count=30)
    whole = evaluate(logits, labels, np.ones(30, bool))
    parts = [evaluate(logits[:, i : i + 10], labels[i : i + 10], np.ones(10, bool)) for i in (0, 10, 20)]
    total = metrics.add(metrics.add(parts[0], parts[1]), parts[2])
    for name, left, right in zip(whole._fields, total, whole, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6, err_msg=name)


def test_certain_and_uniform_predictions():
    """Confidence 1 belongs to the last bin; a prediction as certain as it is right has no calibration error."""
    logits = np.zeros((1, 4, NUM_CLASSES), np.float32)
    logits[0, :, 1] = 1e4
    result = metrics.summarize(evaluate(logits, np.array([1, 1, 1, 1]), np.ones(4, bool)), GROUPS)["ensemble"]
    assert result["accuracy"] == 1 and result["ece"] == 0 and result["nll"] == 0
    wrong = metrics.summarize(evaluate(logits, np.array([1, 0, 0, 0]), np.ones(4, bool)), GROUPS)["ensemble"]
    np.testing.assert_allclose([wrong["accuracy"], wrong["ece"], wrong["nll"]], [0.25, 0.75, 7500])
    uniform = metrics.summarize(evaluate(np.zeros_like(logits), np.arange(4), np.ones(4, bool)), GROUPS)["ensemble"]
    np.testing.assert_allclose(uniform["nll"], np.log(NUM_CLASSES), rtol=1e-6)


def test_extreme_logits_stay_finite():
    logits = np.zeros((2, 3, NUM_CLASSES), np.float32)
    logits[0, :, 0], logits[1, :, 1] = 1e4, 1e4
    sums = evaluate(logits, np.array([0, 1, 2]), np.ones(3, bool))
    assert all(np.isfinite(leaf).all() for leaf in sums)
    np.testing.assert_allclose(metrics.summarize(sums, GROUPS)["disagreement"]["kl"]["all"], 1e4, rtol=1e-5)


def test_empty_groups_and_absent_classes_are_none_and_the_whole_is_json():
    logits, labels = sample(2)
    groups = {"papers": GROUPS["papers"] | {"many": np.zeros(NUM_CLASSES, bool)}, "authors": GROUPS["authors"]}
    keep = labels != 5
    sums = evaluate(logits, labels, keep)
    result = metrics.summarize(sums, groups)
    assert result["ensemble"]["many"] is None and result["experts"][2]["many"] is None
    assert result["disagreement"]["kl"]["many"] is None
    assert result["ensemble"]["per_class"][5] is None and result["ensemble"]["per_class"][4] is not None
    json.dumps(result, allow_nan=False)


def test_a_single_expert_is_its_own_ensemble_and_disagrees_with_nobody():
    logits, labels = sample(3, num_experts=1)
    result = metrics.summarize(evaluate(logits, labels, np.ones(40, bool)), GROUPS)
    assert result["disagreement"] is None
    assert result["ensemble"] == result["experts"][0]


def test_the_ensemble_averages_logits_not_probabilities():
    logits = jnp.array([[[4.0, 0.0, 3.0]], [[0.0, 4.0, 3.0]]])
    sums = evaluate(logits, jnp.array([2]), jnp.array([True]))
    np.testing.assert_array_equal(sums.correct[:, 2], [1, 0, 0])
    assert sums.disagree[2] == 1
