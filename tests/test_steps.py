"""The training step as a whole, on a tiny network: order, copies, several steps in one call, the key encoder."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from quick import quick_jit
from tiny import FACTS, IMAGES, LABELS, batch, load_config, order, same, tiny

from ncl_jax.config import build
from ncl_jax.config import plan as plans
from ncl_jax.data.feeds.resident import Resident, ResidentTest
from ncl_jax.methods import Objective
from ncl_jax.runtime.devices import make_mesh
from ncl_jax.training import steps


@functools.cache
def program(arguments, **fields):
    """The compiled step and the first state of a configuration."""
    config = tiny(arguments, **{"data__augment": "crop_flip"} | fields)
    state = quick_jit(lambda: plans.initial_state(build.make_training_plan(config, FACTS)))()
    step = plans.train_step(build.make_training_plan(config, FACTS))
    return config, state, step, quick_jit(step)


def resident(size=4):
    """The tiny data set as a feed."""
    return Resident(np.asarray(IMAGES), np.asarray(LABELS), plans.keys(0).order, size, make_mesh(1))


@pytest.mark.slow
def test_several_steps_in_one_call_equal_single_ones():
    _, state, step, single = program("method=ncl")
    key, feed, expected = plans.keys(0).step, resident(), state
    for index in range(3):
        expected, last = single(expected, key, batch(index))
    history = jax.tree.map(lambda value: jnp.zeros(5), last)
    source, count = next(feed.batches(0))
    assert count == 5
    advance = quick_jit(steps.make_advance(step, feed.take, several=True))
    result = advance(state, history, key, source, 3)
    assert int(result[0].step) == 3
    for ours, theirs in zip(jax.tree.leaves((result[0], result[2])), jax.tree.leaves((expected, last)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    for values in jax.tree.leaves(result[1]):
        assert not values[3:].any()
    assert result[1]["loss"][:3].all()


def test_a_resident_feed_gives_the_rows_of_each_place_in_the_order():
    """Also from within an epoch on: the fifth of its five batches is the order's last rows."""
    feed = resident()
    sources = feed.batches(4)
    for step, served in ((4, 1), (5, 5)):
        source, count = next(sources)
        assert count == served
        given = feed.take(source, jnp.int32(step))
        assert same(given[:2], batch(step)[:2]) and given.valid is None


def test_a_test_feed_gives_every_image_once():
    feed = ResidentTest(np.asarray(IMAGES), np.asarray(LABELS), 8, make_mesh(1))
    ((source, count),) = feed.batches(0)
    batches = [feed.take(source, step) for step in range(count)]
    images, labels, valid = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    assert valid.tolist() == [True] * 20 + [False] * 4
    np.testing.assert_array_equal(images[valid, 0], IMAGES)
    np.testing.assert_array_equal(labels[valid], LABELS)


@pytest.mark.slow
def test_randomness_depends_on_key_and_step_alone():
    _, state, _, single = program("method=ncl")
    first = single(state, plans.keys(0).step, batch())[1]
    assert same(first, single(state, plans.keys(0).step, batch())[1])
    assert not same(first, single(state, plans.keys(1).step, batch())[1])
    assert not same(first, single(state._replace(step=jnp.asarray(5)), plans.keys(0).step, batch())[1])


def test_every_epoch_visits_every_image_once_in_its_own_order():
    assert sorted(order(0).tolist()) == list(range(20))
    assert order(0).tolist() != order(1).tolist()
    assert order(1).tolist() == order(1).tolist()


def queue(state):
    """The method's memory."""
    return state.memory["contrast"]


def test_self_supervision_fills_the_queue_and_moves_the_encoder():
    config, state, _, single = program("method=ncl")
    after, _ = single(state, plans.keys(0).step, batch())
    assert int(queue(after).position) == 4
    changed = (np.asarray(queue(after).keys) != np.asarray(queue(state).keys)).any(axis=(0, 2))
    assert changed.tolist() == [True] * 4 + [False] * 2
    np.testing.assert_allclose(np.linalg.norm(queue(after).keys, axis=-1), 1, rtol=1e-5)
    encoder = optax.tree.get(after.opt_state, "encoder")
    before, now = ({name: tree[name] for name in encoder} for tree in (state.params, after.params))
    expected = jax.tree.map(lambda old, new: 0.999 * old + 0.001 * new, before, now)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), encoder, expected)
    assert config.contrast.momentum == 0.999


@pytest.mark.slow
def test_authors_behaviour_of_the_key_encoder():
    """Its own start, a frozen projection, m ** E of the weights before the step: every row by the one setting."""
    _, state, _, single = program("method=ncl", contrast__behaviour="authors")
    start = optax.tree.get(state.opt_state, "encoder")
    kernels = [tree["backbone"]["conv1"]["kernel"] for tree in (start, state.params)]
    assert not same(*kernels)
    after, _ = single(state, plans.keys(0).step, batch())
    encoder = optax.tree.get(after.opt_state, "encoder")
    assert same(encoder["projection"], start["projection"])
    expected = 0.999**2 * kernels[0] + (1 - 0.999**2) * kernels[1]
    np.testing.assert_allclose(encoder["backbone"]["conv1"]["kernel"], expected, rtol=1e-5, atol=1e-7)


def test_intended_behaviour_starts_as_a_copy():
    _, state, _, _ = program("method=ncl")
    encoder = optax.tree.get(state.opt_state, "encoder")
    assert same(encoder, {name: state.params[name] for name in encoder})


@pytest.mark.slow
def test_copies_are_augmented_independently_and_laid_out_copy_major():
    """The loss sees N B rows: all of copy 0, then all of copy 1; their labels repeat with them."""
    seen = {}

    def augment(key, images):
        jax.debug.callback(functools.partial(seen.__setitem__, "images"), images)
        return images.astype(jnp.float32) + jax.random.uniform(key, (len(images), 1, 1, 1))

    def compute(outputs, labels, step, memory):
        jax.debug.callback(functools.partial(seen.__setitem__, "labels"), labels)
        seen["rows"] = outputs["logits"].shape[1]
        return {"nil": outputs["logits"].sum()}, memory

    config, state, _, _ = program("method=ce")
    plan = build.make_training_plan(config, FACTS)
    step = steps.make_train_step(
        plan.network,
        plan.optimizer,
        Objective(compute),
        augment,
        strategy="unroll",
        copies=3,
    )
    jax.block_until_ready(quick_jit(step)(state, plans.keys(0).step, batch()))
    jax.effects_barrier()
    assert seen["rows"] == 12
    np.testing.assert_array_equal(seen["images"], np.concatenate([batch().images[:, 0]] * 3))
    np.testing.assert_array_equal(seen["labels"], np.tile(batch().labels, 3))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ncl_supervised", "nclpp"])
def test_an_accumulated_step_is_the_mean_of_its_parts_steps(method):
    """The first step is linear in the gradient, and part a of two holds the images a, a + 2, ... of the batch."""
    fields = {"data__augment": "none"}
    _, state, _, whole = program(f"method={method}", **fields, optim__accumulate=2)
    result, metrics = whole(state, plans.keys(0).step, batch())
    _, start, _, single = program(f"method={method}", **fields, optim__batch_size=2)
    halves = [jax.tree.map(lambda array, a=a: array[a::2], batch()) for a in (0, 1)]
    parts = [single(start, plans.keys(0).step, half) for half in halves]
    assert same(start.params, state.params)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, parts[0][0].params, parts[1][0].params)
    for ours, theirs in zip(jax.tree.leaves(result.params), jax.tree.leaves(mean), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(metrics["loss"], (parts[0][1]["loss"] + parts[1][1]["loss"]) / 2, rtol=1e-5)


@pytest.mark.slow
def test_an_accumulated_step_pushes_the_keys_of_the_whole_batch():
    _, state, _, whole = program("method=ncl")
    _, _, _, parts = program("method=ncl", optim__accumulate=2)
    arguments = (plans.keys(0).step, batch())
    (expected, other), (result, metrics) = whole(state, *arguments), parts(state, *arguments)
    np.testing.assert_allclose(queue(result).keys, queue(expected).keys, rtol=1e-5, atol=1e-6)
    assert np.isfinite(metrics["loss"])
    assert not np.allclose(metrics["loss"], other["loss"], rtol=1e-6)  # other batch statistics


@pytest.mark.slow
def test_outputs_of_parts_are_joined_in_the_batchs_order():
    """Whatever the copies and parts: splitting and joining gives back what there was."""
    rows = jnp.arange(24).reshape(1, 24, 1)
    for copies, accumulate in ((1, 2), (2, 3), (3, 4)):
        views, _, keys = steps._split(accumulate, copies, rows[0], rows[0, :, 0], {"keys": rows})
        outputs = {"logits": views[:, None], "keys": keys["keys"]}
        joined = steps._join(outputs, copies)
        np.testing.assert_array_equal(joined["logits"], rows)
        np.testing.assert_array_equal(joined["keys"], rows)


@pytest.mark.parametrize("method", ["ce", "ncl", "nclpp"])
def test_metrics_are_named_by_the_method(method):
    config = tiny(f"method={method}")
    plan = build.make_training_plan(config, FACTS)
    state = jax.eval_shape(lambda: plans.initial_state(plan))
    _, metrics = jax.eval_shape(plans.train_step(plan), state, plans.keys(0).step, batch())
    extra = {"ce": {"nbod", "nbod_hard"}, "ncl": {"nbod", "nbod_hard", "contrast"}}
    extra["nclpp"] = {"inter", "inter_hard", "intra", "intra_hard"}
    assert metrics["parts"].keys() == {"nil", "nil_hard"} | extra[method]
    assert all(value.shape == () for value in jax.tree.leaves(metrics))


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_a_program_for_another_platform_is_lowered_on_a_cpu(platform):
    """Nothing looks at the backend while tracing; our own CPU kernels are chosen by an argument alone."""
    config = load_config("quickstart", "method=ncl", run__conv="xla", contrast__queue=6, model__width=8)
    plan = build.make_training_plan(config, FACTS)
    state = jax.eval_shape(lambda: plans.initial_state(plan))
    traced = jax.jit(plans.train_step(plan)).trace(state, plans.keys(0).step, batch())
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert "stablehlo.convolution" in text and "NclConv" not in text


def test_features_of_either_sign_have_not_collapsed():
    """One of four is 0 for both images; those that are always negative carry something."""
    features = jnp.array([[[1.0, -3.0, 0.0, 0.0], [-1.0, -2.0, 0.0, 1.0]]])
    outputs = {"features": features, "logits": jnp.zeros((1, 2, 3))}
    found = steps._diagnostics(outputs, jnp.array([0, 1]), None)
    assert (float(found["dead_features"]), float(found["feature_mean"])) == (0.25, 1.0)
