"""The methods beside NCL: against the authors' figures where there are any, else against plain loops in NumPy."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_jit
from tiny import FACTS, batch, same, tiny

from ncl_jax import losses, methods
from ncl_jax.config import build
from ncl_jax.config import plan as plans
from ncl_jax.errors import ConfigError
from ncl_jax.losses import margins
from ncl_jax.models import HEADS, experts
from ncl_jax.storage.checkpoint import Checkpoints
from ncl_jax.training import steps

COUNTS = np.array([500, 120, 33, 7, 5])
LABELS = np.array([0, 4, 2, 3, 3, 1])


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def sample(seed=0, num_experts=3, scale=2.0):
    return scale * np.random.default_rng(seed).normal(size=(num_experts, len(LABELS), len(COUNTS)))


def parts_of(method, logits, counts=COUNTS, labels=LABELS, step=0, **fields):
    """The parts of a method's loss at a step, with fields of `loss` changed; 10 epochs of 4 steps."""
    config = tiny(f"method={method}", model__num_experts=len(logits))
    config.optim.batch_size, config.epochs = int(sum(counts)) // 4, 10
    config.update_from_flattened_dict({"loss.num_hard": 2, "loss.ramp_steps": 0} | {
        name if "." in name else f"loss.{name}": value for name, value in fields.items()
    })  # fmt: skip
    objective = build.objective(config, [int(n) for n in counts])
    return objective.compute({"logits": jnp.asarray(logits)}, jnp.asarray(labels), jnp.int32(step), ())[0]


def softmax(z):
    return np.exp(z - z.max()) / np.exp(z - z.max()).sum()


def cross_entropy(z, target):
    return -np.log(softmax(z)[target])


# DBM-NCL


@pytest.mark.parametrize("case", ["dbm_c100_k3", "dbm_c10_k2"])
def test_dbm_equals_its_authors_figures(x64, golden, case):
    data = {name.partition("/")[2]: values for name, values in golden("dbm_losses").items() if name.startswith(case)}
    config = tiny("method=dbm_ncl", model__cosine_scale=float(data["scale"]), model__num_experts=len(data["cosines"]))
    fields = {"margin": "margin", "margin_power": "tau", "image_margin": "instance", "num_hard": "num_hard"}
    config.update_from_flattened_dict({f"loss.{ours}": data[theirs].item() for ours, theirs in fields.items()})
    config.loss.ramp_steps = 0
    objective = build.objective(config, data["class_counts"].tolist())

    def loss(cosines):
        logits = {"logits": cosines * data["scale"]}
        return losses.total(objective.compute(logits, jnp.asarray(data["labels"]), jnp.int32(0), ())[0])

    value, gradient = quick_jit(jax.value_and_grad(loss))(jnp.asarray(data["cosines"]))
    np.testing.assert_allclose(value, data["loss"], rtol=1e-6)
    np.testing.assert_allclose(gradient, data["grad"], rtol=0, atol=1e-6 * np.abs(data["grad"]).max())


@pytest.mark.slow
@pytest.mark.parametrize("cosine", [1.0, 1.0 + 1e-7, -1.0, -1.0 - 1e-7, 0.0])
def test_an_angular_margin_is_finite_at_and_beyond_one(cosine):
    cosines = jnp.array([[[cosine, 0.3]]], jnp.float32)
    place = lambda c: margins.with_angular_margin(c, jnp.array([0]), jnp.array([0.1, 0.2]), 1.0).sum()  # noqa: E731
    value, gradient = jax.value_and_grad(place)(cosines)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    bounded = np.clip(cosine, -1, 1)
    margin = 0.1 * (1 + (1 - bounded) / 2 * (cosine < 0.3))
    np.testing.assert_allclose(value, np.cos(np.arccos(bounded) + margin) + 0.3, atol=1e-5)


def test_the_smallest_class_has_the_whole_margin():
    np.testing.assert_allclose(margins.class_margins(jnp.asarray(COUNTS), 0.1, 1.0), 0.1 * 5 / COUNTS, rtol=1e-6)
    np.testing.assert_allclose(
        margins.class_margins(jnp.asarray(COUNTS), 0.5, 0.25), 0.5 * COUNTS**-0.25 / 5**-0.25, rtol=1e-6
    )


# Priors


@pytest.mark.parametrize(
    ("method", "given", "weights"),
    [("balpoe", (), (0, 1, 2)), ("balpoe", (1.0, 0.5, 1.5), (1, 0.5, 1.5)), ("logit_adjustment", (1.5,), (1.5,))],
)
def test_each_expert_learns_with_its_own_prior(x64, method, given, weights):
    logits = sample()
    expected = 0.0
    for expert in range(3):
        a = weights[expert % len(weights)]
        rows = zip(logits[expert], LABELS, strict=True)
        expected += np.mean([cross_entropy(z + a * np.log(COUNTS / COUNTS.sum()), y) for z, y in rows])
    found = parts_of(method, logits, prior_weights=given)
    np.testing.assert_allclose(losses.total(found), expected, rtol=1e-6)


@pytest.mark.slow
def test_logit_adjustment_by_one_is_balanced_softmax():
    ours, theirs = (losses.total(parts_of(method, sample())) for method in ("logit_adjustment", "balanced_softmax"))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("method", ["ce", "balanced_softmax", "balpoe"])
def test_label_smoothing_spreads_the_target(x64, method):
    logits, expected, share = sample(), 0.0, 0.1
    for expert in range(3):
        a = {"ce": 0, "balanced_softmax": 1, "balpoe": expert}[method]
        for z, y in zip(logits[expert] + a * np.log(COUNTS), LABELS, strict=True):
            target = np.full(len(COUNTS), share / len(COUNTS)) + (1 - share) * np.eye(len(COUNTS))[y]
            expected -= np.sum(target * np.log(softmax(z))) / len(LABELS)
    found = losses.total(parts_of(method, logits, label_smoothing=share))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


# LDAM and RIDE


def ldam_by_loops(logits, weighted, beta=0.9999, scale=30.0):
    margin = COUNTS**-0.25 * 0.5 / np.max(COUNTS**-0.25)
    weights = np.array([(1 - beta) / (1 - beta**n) for n in COUNTS])
    total = 0.0
    for expert in logits:
        rows = []
        for z, y in zip(expert, LABELS, strict=True):
            z = z.copy()
            z[y] -= scale * margin[y]
            rows.append((weights[y] if weighted else 1.0, cross_entropy(z, y)))
        total += sum(w * value for w, value in rows) / sum(w for w, _ in rows)
    return total


@pytest.mark.parametrize(("step", "weighted"), [(0, False), (31, False), (32, True), (99, True)])
def test_ldam_equals_plain_loops_and_weights_classes_after_four_fifths(x64, step, weighted):
    found = parts_of("ldam_drw", sample(scale=10.0), step=step)
    assert set(found) == {"ldam"}
    np.testing.assert_allclose(found["ldam"], ldam_by_loops(sample(scale=10.0), weighted), rtol=1e-6)


@pytest.mark.slow
def test_ride_rewards_experts_that_differ(x64):
    logits, spread = sample(scale=10.0), 0.05
    shares = spread * COUNTS / COUNTS.mean() + 1 - spread
    by_class = shares + 1 - shares.max()
    for step, temperatures in ((31, np.ones(5)), (32, by_class)):
        differ = 0.0
        for expert in logits:
            for z, mean in zip(expert, logits.mean(0), strict=True):
                p, q = softmax(mean / temperatures), softmax(z / temperatures)
                differ += temperatures.mean() ** 2 * np.sum(p * np.log(p / q)) / len(LABELS)
        found = parts_of("ride", logits, step=step)
        np.testing.assert_allclose(found["ldam"], ldam_by_loops(logits, step == 32), rtol=1e-6)
        np.testing.assert_allclose(found["diversity"], -0.2 * differ, rtol=1e-5)
    assert set(parts_of("ride", logits[:1])) == {"ldam"}


def test_a_temperature_that_is_not_above_zero_is_refused():
    with pytest.raises(ConfigError, match=r"loss.diversity_spread=0.5 must be below 0.2687 "):
        parts_of("ride", sample(), diversity_spread=0.5)


def test_effective_weights_of_small_classes_keep_their_digits():
    counts = [1, 2, 1000, 2_000_000]
    for beta in (Fraction(0), Fraction(9, 10), 1 - Fraction(1, 10**9)):
        exact = np.array([float((1 - beta) / (1 - beta**n)) if n < 5000 else None for n in counts[:3]])
        found = np.asarray(margins.effective_weights(counts, float(beta)))[:3]
        np.testing.assert_allclose(found / found[0], exact / exact[0], rtol=1e-6)


# The classifier, mixup, and all of them in a run


def test_the_normed_classifier_gives_cosines_times_the_scale():
    head, features = HEADS["normed"](5, scale=30.0), jax.random.normal(jax.random.key(0), (3, 8))
    variables = head.init(jax.random.key(1), features)
    assert set(variables["params"]) == {"kernel"}
    kernel = variables["params"]["kernel"]
    cosines = features @ kernel / np.linalg.norm(features, axis=1)[:, None] / np.linalg.norm(kernel, axis=0)
    np.testing.assert_allclose(head.apply(variables, features), 30 * cosines, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_mixup_mixes_images_and_the_losses_of_their_two_targets():
    views, labels = jax.random.normal(jax.random.key(0), (6, 2, 2, 3)), jnp.asarray(LABELS)
    mixed, targets, share = steps._mix(jax.random.key(1), views, labels, 0.4)
    np.testing.assert_array_equal(targets, np.stack([LABELS, LABELS[::-1]], axis=1))
    for row in range(6):
        np.testing.assert_allclose(mixed[row], share * views[row] + (1 - share) * views[5 - row], rtol=1e-5)
    shares = np.array([steps._mix(key, views, labels, 0.4)[2] for key in jax.random.split(jax.random.key(2), 200)])
    np.testing.assert_allclose([shares.mean(), shares.std()], [0.5, np.sqrt(1 / (4 * 1.8))], atol=0.05)


@pytest.fixture
def plain_views(monkeypatch):
    """Views that are the images themselves, which compile in no time."""
    monkeypatch.setattr(plans, "view", lambda *_, **__: lambda key, images: images.astype(jnp.float32) / 255)


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_with_mixup_learns_from_both_targets(plain_views, accumulate):
    """Its loss, of weights that have not moved, is the mean of two losses on the mixed views."""
    config = tiny("method=balanced_softmax", data__mixup=0.4, optim__accumulate=accumulate, optim__batch_size=4)
    state, key = quick_jit(lambda: plans.initial_state(build.make_training_plan(config, FACTS)))(), plans.keys(0).step
    _, metrics = quick_jit(plans.train_step(build.make_training_plan(config, FACTS)))(state, key, batch())
    view_key, _ = jax.random.split(jax.random.fold_in(key, state.step))
    views = batch().images[:, 0].astype(jnp.float32) / 255
    mixed, targets, share = steps._mix(jax.random.fold_in(view_key, 1), views, batch().labels, 0.4)
    apply, objective = (
        experts.make_apply(build.network(config, 4), "unroll"),
        build.objective(config, FACTS.class_counts),
    )
    variables, expected = {"params": state.params, "batch_stats": state.batch_stats}, []
    for part in range(accumulate):
        outputs, _ = quick_jit(lambda x: apply(variables, x, True))(mixed[part::accumulate])
        for labels, weight in zip(targets[part::accumulate].T, (share, 1 - share), strict=True):
            parts, _ = objective.compute(outputs, labels, state.step, ())
            expected.append(weight * losses.total(parts) / accumulate)
    np.testing.assert_allclose(metrics["loss"], sum(expected), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("method", methods.METHODS)
def test_every_method_goes_on_to_the_same_bits(plain_views, method, tmp_path):
    """Two steps, a checkpoint read again, two more: as four at once."""
    fields = {"epochs": 2, "optim__milestones": (), "optim__batch_size": 10}
    if method != "nclpp":
        fields["model__num_experts"] = 3
    if method == "dbm_ncl":
        fields["data__mixup"] = 0.2
    config = tiny(f"method={method}", **fields)
    step, key = quick_jit(plans.train_step(build.make_training_plan(config, FACTS))), plans.keys(0).step
    states = [quick_jit(lambda: plans.initial_state(build.make_training_plan(config, FACTS)))()]
    for index in range(4):
        states.append(step(states[-1], key, batch(index % 2, size=10))[0])
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(states[2], {})
    checkpoints.close()
    again = Checkpoints(tmp_path, read_only=True)
    state = again.restore(states[0]).state
    again.close()
    for index in (2, 3):
        state, metrics = step(state, key, batch(index % 2, size=10))
        assert np.isfinite(metrics["loss"])
    assert same(state, states[4]) and not same(states[4], states[3])
