"""The losses against plain loops written from the method's description, and against the authors' program's figures."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_jit

from ncl_jax import losses

NCL_CASES = ("ncl_c100_k3", "ncl_c10_k3", "ncl_c100_k1", "ncl_c365_k2")
NCLPP_CASES = ("nclpp_c100_k2_n4", "nclpp_c10_k3_n2")
SEMANTICS = tuple(itertools.product(("first", "own"), ("zero", "exclude")))
NUM_HARD = 3
COUNTS = np.array([90, 40, 17, 8, 3, 2])


# The oracles: one image, one expert, one class at a time, in float64.


def log_softmax(row):
    top = max(row)
    norm = top + np.log(sum(np.exp(value - top) for value in row))
    return [value - norm for value in row]


def hard_set(scores, label, num_hard):
    others = sorted((c for c in range(len(scores)) if c != label), key=lambda c: -scores[c])
    return sorted([label, *others[: num_hard - 1]])


def partial_view(balanced, hard, non_hard):
    """The logits of the softmax over the hard categories."""
    if non_hard == "exclude":
        return [balanced[c] for c in hard]
    return [balanced[c] if c in hard else 0.0 for c in range(len(balanced))]


def kl(log_p, log_q):
    return sum(np.exp(p) * (p - q) for p, q in zip(log_p, log_q, strict=True))


def partial_cross_entropy(balanced, label, hard, non_hard):
    position = hard.index(label) if non_hard == "exclude" else label
    return -log_softmax(partial_view(balanced, hard, non_hard))[position]


def oracle_individual(logits, labels, counts, num_hard, hard_scores, non_hard):
    full = partial = 0.0
    num_experts, rows, _ = logits.shape
    for e, b in itertools.product(range(num_experts), range(rows)):
        balanced = logits[e, b] + np.log(counts)
        hard = hard_set(logits[0 if hard_scores == "first" else e, b], labels[b], num_hard)
        full += -log_softmax(balanced)[labels[b]] / rows
        partial += partial_cross_entropy(balanced, labels[b], hard, non_hard) / rows
    return full, partial


def oracle_ncl(logits, labels, counts, *, num_hard, weights, hard_scores, non_hard, normalization):
    num_experts, rows, _ = logits.shape
    nil, nil_hard = oracle_individual(logits, labels, counts, num_hard, hard_scores, non_hard)
    nbod = nbod_hard = 0.0
    for b, (i, j) in itertools.product(range(rows), itertools.permutations(range(num_experts), 2)):
        target, other = (logits[e, b] + np.log(counts) for e in (i, j))
        hard = hard_set(logits[0 if hard_scores == "first" else i, b], labels[b], num_hard)
        nbod += kl(log_softmax(target), log_softmax(other)) / rows
        views = (log_softmax(partial_view(balanced, hard, non_hard)) for balanced in (target, other))
        nbod_hard += kl(*views) / rows
    scale = 1 / (num_experts - 1)
    if normalization == "mean_pair":
        scale /= num_experts
    parts = {"nil": nil, "nil_hard": nil_hard}
    return parts | {"nbod": weights[0] * scale * nbod, "nbod_hard": weights[1] * scale * nbod_hard}


def nclpp_partial_kl(target, other, hard, non_hard):
    if non_hard == "exclude":
        return kl(log_softmax(target[hard]), log_softmax(other[hard]))
    log_p, log_q = log_softmax(target), log_softmax(other)
    return sum(np.exp(log_p[c]) * (log_p[c] - log_q[c]) for c in hard)


def oracle_nclpp(logits, labels, counts, *, copies, num_hard, weights, hard_scores, non_hard):
    num_experts, rows, _ = logits.shape
    images = rows // copies
    parts = dict.fromkeys(("inter", "inter_hard", "intra", "intra_hard"), 0.0)
    balanced = logits + np.log(counts)

    def add(name, scale, target, other, hard):
        parts[name] += weights[0] * scale * kl(log_softmax(target), log_softmax(other))
        parts[f"{name}_hard"] += weights[1] * scale * nclpp_partial_kl(target, other, hard, non_hard)

    for row, (i, j) in itertools.product(range(rows), itertools.permutations(range(num_experts), 2)):
        hard = hard_set(logits[0 if hard_scores == "first" else i, row], labels[row], num_hard)
        scale = 2 / (num_experts * (num_experts - 1)) / rows
        add("inter", scale, balanced[i, row], balanced[j, row], hard)
    for e, image in itertools.product(range(num_experts), range(images)):
        for m, n in itertools.permutations(range(copies), 2):
            target, other = m * images + image, n * images + image
            chooser = logits[0, image] if hard_scores == "first" else logits[e, target]
            scale = 2 / (copies * (copies - 1)) / images
            add("intra", scale, balanced[e, target], balanced[e, other], hard_set(chooser, labels[image], num_hard))
    parts["nil"], parts["nil_hard"] = oracle_individual(logits, labels, counts, num_hard, hard_scores, non_hard)
    return parts


def central_differences(function, x, step=1e-5):
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        shift = np.zeros_like(x)
        shift[index] = step
        gradient[index] = (function(x + shift) - function(x - shift)) / (2 * step)
    return gradient


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def sample(seed, num_experts=3, rows=4, scale=2.0):
    rng = np.random.default_rng(seed)
    return scale * rng.normal(size=(num_experts, rows, len(COUNTS)))


def with_gradient(loss_fn):
    """`logits -> ((loss, parts), gradient)`, compiled."""
    return quick_jit(jax.value_and_grad(loss_fn, has_aux=True))


def run(loss_fn, logits):
    return quick_jit(loss_fn)(logits)


def ncl(labels, **arguments):
    return lambda logits: losses.ncl_loss(logits, jnp.asarray(labels), COUNTS, num_hard=NUM_HARD, **arguments)


def nclpp(labels, copies=2, **arguments):
    arguments = {"num_hard": NUM_HARD, "copies": copies} | arguments
    return lambda logits: losses.nclpp_loss(logits, jnp.asarray(labels), COUNTS, **arguments)


# The authors' figures


def golden_loss(data, case):
    labels, counts = (jnp.asarray(data[f"{case}/{name}"]) for name in ("labels", "class_counts"))
    weights = {"distill_weight": float(data[f"{case}/lam"]), "hard_distill_weight": float(data[f"{case}/lam_hard"])}
    arguments = weights | {"num_hard": int(data[f"{case}/num_hard"])}
    if case.startswith("nclpp"):
        arguments["copies"] = int(data[f"{case}/intra_n"])
        return lambda logits: losses.nclpp_loss(logits, labels, counts, **arguments)
    return lambda logits: losses.ncl_loss(logits, labels, counts, **arguments)


@pytest.mark.parametrize("case", NCL_CASES + NCLPP_CASES)
@pytest.mark.parametrize("dtype,tolerance", [("float64", 1e-12), ("float32", 1e-5)])
def test_loss_and_gradient_equal_the_authors_figures(golden, case, dtype, tolerance):
    data = golden("official_losses")
    with jax.enable_x64(dtype == "float64"):
        logits = jnp.asarray(data[f"{case}/logits"], dtype)
        (loss, _), gradient = with_gradient(golden_loss(data, case))(logits)
    assert loss.dtype == gradient.dtype == dtype
    np.testing.assert_allclose(loss, data[f"{case}/loss"], rtol=tolerance)
    expected = data[f"{case}/grad"]
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=tolerance * np.abs(expected).max())


# Both semantics against the oracles


@pytest.mark.parametrize("normalization", ["per_expert", "mean_pair"])
@pytest.mark.parametrize("hard_scores,non_hard", SEMANTICS)
def test_ncl_loss_equals_plain_loops(x64, hard_scores, non_hard, normalization):
    logits, labels = sample(0), np.array([0, 5, 2, 2])
    semantics = {"hard_scores": hard_scores, "non_hard": non_hard}
    loss_fn = ncl(labels, distill_weight=0.7, hard_distill_weight=0.4, distill_normalization=normalization, **semantics)
    (loss, parts), gradient = with_gradient(loss_fn)(logits)

    def oracle(x):
        arguments = {"num_hard": NUM_HARD, "weights": (0.7, 0.4), "normalization": normalization}
        return oracle_ncl(x, labels, COUNTS, **arguments, **semantics)

    expected = oracle(logits)
    assert parts.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(parts[name], value, rtol=1e-12, err_msg=name)
    np.testing.assert_allclose(loss, sum(expected.values()), rtol=1e-12)
    np.testing.assert_allclose(gradient, central_differences(lambda x: sum(oracle(x).values()), logits), atol=1e-8)


@pytest.mark.parametrize("hard_scores,non_hard", SEMANTICS)
def test_nclpp_loss_equals_plain_loops(x64, hard_scores, non_hard):
    # Three copies: the pair's scale, 2 / (R (R - 1)), differs from 1 / (R - 1) and from 1 / R.
    logits, labels = sample(1, num_experts=2, rows=6), np.array([0, 5, 0, 5, 0, 5])
    semantics = {"hard_scores": hard_scores, "non_hard": non_hard}
    loss_fn = nclpp(labels, copies=3, distill_weight=0.7, hard_distill_weight=0.4, **semantics)
    (loss, parts), gradient = with_gradient(loss_fn)(logits)

    def oracle(x):
        return oracle_nclpp(x, labels, COUNTS, copies=3, num_hard=NUM_HARD, weights=(0.7, 0.4), **semantics)

    expected = oracle(logits)
    assert parts.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(parts[name], value, rtol=1e-12, err_msg=name)
    np.testing.assert_allclose(loss, sum(expected.values()), rtol=1e-12)
    np.testing.assert_allclose(gradient, central_differences(lambda x: sum(oracle(x).values()), logits), atol=1e-8)


def test_defaults_are_the_authors_semantics():
    logits, labels = jnp.asarray(sample(2), jnp.float32), np.array([1, 2, 3, 4])
    named = {"hard_scores": "first", "non_hard": "zero", "distill_weight": 0.6, "hard_distill_weight": 0.6}
    assert run(ncl(labels), logits)[0] == run(ncl(labels, distill_normalization="per_expert", **named), logits)[0]
    labels = np.array([1, 2, 1, 2])
    assert run(nclpp(labels), logits)[0] == run(nclpp(labels, **named), logits)[0]


# Extreme logits


def extreme(seed, gap, num_experts, rows):
    """Rows of -gap, 0 and gap, a little apart so that the hard categories are the same in every precision."""
    rng = np.random.default_rng(seed)
    levels = rng.choice([-gap, 0.0, gap], size=(num_experts, rows, len(COUNTS)))
    return (levels * (1 + rng.uniform(0, 0.01, levels.shape)) + rng.normal(size=levels.shape)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("hard_scores,non_hard", SEMANTICS)
@pytest.mark.parametrize("make", [ncl, nclpp])
def test_extreme_logits_have_finite_and_right_values_and_gradients(make, hard_scores, non_hard):
    """With log(softmax), a clipped KL or a 0/0 in the target's gradient this is NaN or wrong."""
    labels, semantics = np.array([0, 5, 0, 5]), {"hard_scores": hard_scores, "non_hard": non_hard}
    loss_fn = with_gradient(make(labels, **semantics))

    def oracle(x):
        arguments = {"num_hard": NUM_HARD, "weights": (0.6, 0.6)} | semantics
        if make is ncl:
            return sum(oracle_ncl(x, labels, COUNTS, normalization="per_expert", **arguments).values())
        return sum(oracle_nclpp(x, labels, COUNTS, copies=2, **arguments).values())

    for gap, seed in itertools.product((200.0, 1e4, 1e8, 1e30), range(3)):
        logits = extreme(seed, gap, 3, 4)
        (loss, parts), gradient = loss_fn(logits)
        assert all(np.isfinite(value) for value in (loss, *parts.values())), gap
        assert np.isfinite(gradient).all(), gap
        with jax.enable_x64(True):
            (exact, _), exact_gradient = loss_fn(jnp.asarray(logits, jnp.float64))
        np.testing.assert_allclose(loss, exact, rtol=1e-5)
        np.testing.assert_allclose(loss, oracle(logits.astype(np.float64)), rtol=1e-5)
        # float32 rounds the balanced logits themselves: by 1e-3 at 1e4.
        tolerance = 1e-4 if gap == 200 else 2e-3
        np.testing.assert_allclose(gradient, exact_gradient, rtol=0, atol=tolerance * np.abs(exact_gradient).max())


@pytest.mark.parametrize("non_hard", ["zero", "exclude"])
def test_equal_logits_and_a_class_without_images_stay_finite(non_hard):
    """A class without training images has a balanced logit of -inf: no KL may turn it into 0 times infinity."""
    counts, labels = jnp.array([5, 4, 0, 2]), jnp.array([0, 1, 0, 1])
    named = {"num_hard": 4, "non_hard": non_hard}
    for loss_fn in (losses.ncl_loss, functools.partial(losses.nclpp_loss, copies=2)):
        compiled = with_gradient(functools.partial(loss_fn, labels=labels, class_counts=counts, **named))
        for logits in (jnp.zeros((2, 4, 4)), jnp.asarray(sample(3)[:2, :, :4], jnp.float32)):
            (loss, _), gradient = compiled(logits)
            assert np.isfinite(loss) and np.isfinite(gradient).all()


# Weights, hard categories, arguments


def test_one_expert_has_no_distillation():
    logits, labels = jnp.asarray(sample(4, num_experts=1), jnp.float32), np.array([0, 1, 0, 1])
    (loss, parts), gradient = with_gradient(ncl(labels))(logits)
    assert parts["nbod"] == parts["nbod_hard"] == 0
    alone = with_gradient(ncl(labels, distill_weight=0, hard_distill_weight=0))(logits)
    assert loss == alone[0][0]
    np.testing.assert_array_equal(gradient, alone[1])
    parts = run(nclpp(labels), logits)[1]
    np.testing.assert_allclose([parts["inter"], parts["inter_hard"]], 0, atol=1e-6)
    assert parts["intra"] > 0.01 and parts["intra_hard"] > 0.01


def test_distillation_pulls_on_both_members_of_a_pair():
    logits = jnp.asarray(sample(5, num_experts=2), jnp.float32)
    gradient = quick_jit(jax.grad(lambda x: ncl(np.array([0, 1, 2, 3]))(x)[1]["nbod"]))(logits)
    assert np.abs(gradient).max(axis=(1, 2)).min() > 0.01


@pytest.mark.parametrize("make,distillation", [(ncl, ["nbod"]), (nclpp, ["inter", "intra"])])
def test_weights_scale_their_parts_and_zero_leaves_them_out(make, distillation):
    logits, labels = jnp.asarray(sample(6, num_experts=2), jnp.float32), np.array([0, 5, 0, 5])
    ones = run(make(labels, distill_weight=1.0, hard_distill_weight=1.0), logits)[1]
    weights = {"hard_weight": 0.5, "distill_weight": 2.0, "hard_distill_weight": 3.0}
    parts = run(make(labels, **weights), logits)[1]
    factors = {"nil": 1.0, "nil_hard": 0.5} | dict.fromkeys(distillation, 2.0)
    factors |= {f"{name}_hard": 3.0 for name in distillation}
    assert factors.keys() == parts.keys()
    for name, factor in factors.items():
        np.testing.assert_allclose(parts[name], factor * ones[name], rtol=1e-6, err_msg=name)
    # A traced weight gives the same as a Python number; a Python 0 leaves the part out of the program.
    with_weights = quick_jit(lambda logits, weights: make(labels, **weights)(logits))
    traced = with_weights(logits, weights)[1]
    np.testing.assert_allclose(list(traced.values()), list(parts.values()), rtol=1e-6)
    off = make(labels, **dict.fromkeys(weights, 0))
    assert {name for name, value in run(off, logits)[1].items() if value != 0} == {"nil"}
    assert "top_k" not in str(jax.make_jaxpr(ncl(labels, **dict.fromkeys(weights, 0)))(logits))
    traced_off = with_weights(logits, dict.fromkeys(weights, 0.0))
    np.testing.assert_allclose(traced_off[0], ones["nil"], rtol=1e-6)


@pytest.mark.parametrize("hard_scores,non_hard", SEMANTICS)
def test_all_classes_hard_makes_partial_and_full_equal(hard_scores, non_hard):
    logits, labels = jnp.asarray(sample(7, num_experts=2), jnp.float32), jnp.array([0, 5, 0, 5])
    semantics = {"num_hard": len(COUNTS), "hard_scores": hard_scores, "non_hard": non_hard}
    both = (losses.ncl_loss, functools.partial(losses.nclpp_loss, copies=2))
    parts = quick_jit(
        lambda x: both[0](x, labels, COUNTS, **semantics)[1] | both[1](x, labels, COUNTS, **semantics)[1]
    )(logits)
    for name in ("nil", "nbod", "inter", "intra"):
        np.testing.assert_allclose(parts[f"{name}_hard"], parts[name], rtol=1e-5, err_msg=name)


def test_equal_class_counts_give_the_plain_softmax():
    logits = jnp.asarray(sample(8, num_experts=1), jnp.float32)
    labels = jnp.array([1, 2, 3, 4])
    nil = run(lambda x: losses.ncl_loss(x, labels, jnp.full(6, 7), num_hard=2)[1]["nil"], logits)
    rows = [-log_softmax(row)[label] for row, label in zip(np.asarray(logits[0], np.float64), labels, strict=True)]
    np.testing.assert_allclose(nil, np.mean(rows), rtol=1e-6)


def test_hard_categories_are_the_target_and_the_highest_others():
    scores = jnp.array([[3.0, 9.0, -2.0, 5.0, 4.0], [-1.0, -5.0, -3.0, -9.0, -2.0]])
    labels = jnp.array([2, 0])  # the lowest of its row, and the highest
    expected = [[False, True, True, True, False], [True, False, True, False, True]]
    np.testing.assert_array_equal(losses.hard_categories(scores, labels, 3), expected)
    both = losses.hard_categories(jnp.stack([scores, -scores]), labels, 3)
    np.testing.assert_array_equal(both[0], expected)
    np.testing.assert_array_equal(both[1], [[True, False, True, False, True], [True, True, False, True, False]])


@pytest.mark.parametrize("num_hard", [1, 2, 4, 5])
def test_ties_still_give_exactly_num_hard_classes_with_the_target(num_hard):
    """A mask by comparison with the H-th score would take every tied class."""
    scores = jnp.array([[1.0] * 5, [2.0, 1.0, 1.0, 1.0, 0.0], [-3e38] * 5, [0.0, 0.0, 7.0, 7.0, 7.0]])
    labels = jnp.array([4, 4, 3, 1])
    hard = np.asarray(losses.hard_categories(scores, labels, num_hard))
    assert hard.sum(-1).tolist() == [num_hard] * 4
    assert hard[np.arange(4), labels].all()
    if num_hard == 2:
        assert hard[1, 0] and hard[3, 2:].sum() == 1


def test_hard_categories_pass_no_gradient():
    scores = jnp.asarray(sample(9, 1, 1)[0], jnp.float32)
    pick = lambda x: jnp.where(losses.hard_categories(x, jnp.array([0]), 2), 1.0, 0.0).sum()  # noqa: E731
    assert np.all(jax.grad(pick)(scores) == 0)


@pytest.mark.parametrize(
    "arguments,message",
    [
        ({"num_hard": 0}, "num_hard=0 .* 6"),
        ({"num_hard": 7}, "num_hard=7 .* 6"),
        ({"hard_scores": "all"}, "hard_scores='all' .*first, own"),
        ({"non_hard": "drop"}, "non_hard='drop' .*zero, exclude"),
    ],
)
def test_invalid_arguments_name_the_value(arguments, message):
    logits, labels = jnp.zeros((2, 4, 6)), jnp.zeros(4, jnp.int32)
    arguments = {"num_hard": 3} | arguments
    with pytest.raises(ValueError, match=message):
        losses.ncl_loss(logits, labels, COUNTS, **arguments)
    with pytest.raises(ValueError, match=message):
        losses.nclpp_loss(logits, labels, COUNTS, copies=2, **arguments)


def test_unknown_semantics_are_refused_even_where_their_part_is_off():
    arguments = {"num_hard": 3, "hard_weight": 0, "distill_weight": 0, "hard_distill_weight": 0}
    for name in ("hard_scores", "non_hard"):
        with pytest.raises(ValueError, match=f"{name}='x'"):
            losses.ncl_loss(jnp.zeros((2, 4, 6)), jnp.zeros(4, int), COUNTS, **arguments, **{name: "x"})
        with pytest.raises(ValueError, match=f"{name}='x'"):
            losses.nclpp_loss(jnp.zeros((2, 4, 6)), jnp.zeros(4, int), COUNTS, copies=2, **arguments, **{name: "x"})


def test_invalid_normalization_and_copies_name_the_value():
    logits, labels = jnp.zeros((2, 4, 6)), jnp.zeros(4, jnp.int32)
    with pytest.raises(ValueError, match=r"distill_normalization='mean' .*per_expert, mean_pair"):
        losses.ncl_loss(logits, labels, COUNTS, num_hard=3, distill_normalization="mean")
    for copies in (0, 1, 3):
        with pytest.raises(ValueError, match=f"copies={copies} .* 4"):
            losses.nclpp_loss(logits, labels, COUNTS, copies=copies, num_hard=3)


# InfoNCE


def contrast_sample():
    rng = np.random.default_rng(10)
    queue = rng.normal(size=(2, 5, 3))
    queue /= np.linalg.norm(queue, axis=-1, keepdims=True)
    return 4 * rng.normal(size=(2, 4, 3)), 0.3 * rng.normal(size=(2, 4, 3)), queue


def oracle_info_nce(queries, keys, queue, temperature):
    loss = np.zeros(queries.shape[:2])
    for e, b in np.ndindex(*loss.shape):
        query, key = (v / np.linalg.norm(v) for v in (queries[e, b], keys[e, b]))
        scores = [query @ key / temperature] + [query @ old / temperature for old in queue[e]]
        loss[e, b] = -log_softmax(scores)[0]
    return loss


def test_info_nce_equals_plain_loops(x64):
    queries, keys, queue = contrast_sample()
    total = lambda q: ((rows := losses.info_nce(q, keys, queue, 0.2)).sum(), rows)  # noqa: E731
    (_, rows), gradient = with_gradient(total)(queries)
    np.testing.assert_allclose(rows, oracle_info_nce(queries, keys, queue, 0.2), rtol=1e-12)
    expected = central_differences(lambda q: oracle_info_nce(q, keys, queue, 0.2).sum(), queries)
    np.testing.assert_allclose(gradient, expected, atol=1e-8)


def test_no_gradient_reaches_keys_and_queue():
    arguments = [jnp.asarray(value, jnp.float32) for value in contrast_sample()]
    gradients = quick_jit(jax.grad(lambda *args: losses.info_nce(*args, 0.2).sum(), argnums=(0, 1, 2)))(*arguments)
    assert np.abs(gradients[0]).max() > 0
    assert np.all(gradients[1] == 0) and np.all(gradients[2] == 0)


def test_normalisation_at_zero_and_at_small_norms():
    features = jnp.array([[0.0, 0.0], [3.0, -4.0], [3e-10, 4e-10], [3e-14, 0.0]])
    expected = [[0.0, 0.0], [0.6, -0.8], [0.6, 0.8], [0.03, 0.0]]
    np.testing.assert_allclose(losses.l2_normalize(features), expected, rtol=1e-5)
    assert np.isfinite(jax.grad(lambda x: losses.l2_normalize(x)[:, 0].sum())(features)).all()
