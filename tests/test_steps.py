"""The training step as a whole, on a tiny network: order, copies, several steps in one call, the key encoder."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from quick import quick_jit
from tiny import FACTS, IMAGES, LABELS, one_layer, order, same, tiny

from ncl_jax import build, steps

__all__ = ["one_layer"]  # a fixture that pytest finds here


@functools.cache
def program(arguments, **fields):
    """The compiled step and the first state of a configuration."""
    config = tiny(arguments, **dict(fields))
    state = quick_jit(lambda: build.initial_state(config, FACTS))()
    step = build.train_step(config, FACTS)
    return config, state, step, quick_jit(step)


def test_several_steps_in_one_call_equal_single_ones():
    _, state, step, single = program("method=ncl")
    key = build.keys(0).step
    expected = state
    for _ in range(3):
        expected, row = single(expected, key, IMAGES, LABELS, order())
    together, last = quick_jit(steps.make_multi_step(step))(state, key, IMAGES, LABELS, order(), 3)
    assert int(together.step) == 3
    for ours, theirs in zip(jax.tree.leaves(together), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(last, row, rtol=1e-4, atol=1e-5)
    assert not together.history[3:].any() and together.history[:3, 0].all()


def test_a_step_reads_the_rows_of_its_place_in_the_order():
    """The fifth of an epoch's five steps uses the order's last rows; changing any other row changes nothing."""
    _, state, _, single = program("method=ncl")
    key, rows = build.keys(0).step, order()
    at_four = state._replace(step=jnp.asarray(4, jnp.int32))
    shuffled = jnp.concatenate([rows[:16][::-1], rows[16:]])
    result = single(at_four, key, IMAGES, LABELS, rows)[0]
    assert same(result, single(at_four, key, IMAGES, LABELS, shuffled)[0])
    other = jnp.concatenate([rows[:16], rows[:4]])
    assert not same(result.params, single(at_four, key, IMAGES, LABELS, other)[0].params)


def test_randomness_depends_on_key_and_step_alone():
    _, state, _, single = program("method=ncl")
    arguments = (IMAGES, LABELS, order())
    first = single(state, build.keys(0).step, *arguments)[1]
    assert same(first, single(state, build.keys(0).step, *arguments)[1])
    assert not same(first, single(state, build.keys(1).step, *arguments)[1])
    # Step 5 is the first of the second epoch: the same rows, other augmentation.
    assert not same(first, single(state._replace(step=jnp.asarray(5)), build.keys(0).step, *arguments)[1])


def test_every_epoch_visits_every_image_once_in_its_own_order():
    assert sorted(order(0).tolist()) == list(range(20))
    assert order(0).tolist() != order(1).tolist()
    assert order(1).tolist() == order(1).tolist()


def test_self_supervision_fills_the_queue_and_moves_the_encoder():
    config, state, _, single = program("method=ncl")
    after, _ = single(state, build.keys(0).step, IMAGES, LABELS, order())
    assert int(after.queue.position) == 4
    changed = (np.asarray(after.queue.keys) != np.asarray(state.queue.keys)).any(axis=(0, 2))
    assert changed.tolist() == [True] * 4 + [False] * 2
    np.testing.assert_allclose(np.linalg.norm(after.queue.keys, axis=-1), 1, rtol=1e-5)
    encoder = optax.tree.get(after.opt_state, "encoder")
    before, now = ({name: tree[name] for name in encoder} for tree in (state.params, after.params))
    expected = jax.tree.map(lambda old, new: 0.999 * old + 0.001 * new, before, now)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), encoder, expected)
    assert config.contrast.momentum == 0.999


def test_authors_behaviour_of_the_key_encoder():
    """Its own start, a frozen projection, m ** E of the weights before the step: every row by the one setting."""
    _, state, _, single = program("method=ncl", contrast__behaviour="authors")
    start = optax.tree.get(state.opt_state, "encoder")
    kernels = [tree["backbone"]["conv1"]["kernel"] for tree in (start, state.params)]
    assert not same(*kernels)
    after, _ = single(state, build.keys(0).step, IMAGES, LABELS, order())
    encoder = optax.tree.get(after.opt_state, "encoder")
    assert same(encoder["projection"], start["projection"])
    expected = 0.999**2 * kernels[0] + (1 - 0.999**2) * kernels[1]
    np.testing.assert_allclose(encoder["backbone"]["conv1"]["kernel"], expected, rtol=1e-5, atol=1e-7)


def test_intended_behaviour_starts_as_a_copy():
    _, state, _, _ = program("method=ncl")
    encoder = optax.tree.get(state.opt_state, "encoder")
    assert same(encoder, {name: state.params[name] for name in encoder})


def test_copies_are_augmented_independently_and_laid_out_copy_major():
    """The loss sees N B rows: all of copy 0, then all of copy 1; their labels repeat with them."""
    seen = {}

    def augment(key, images):
        seen["images"] = images
        return images.astype(jnp.float32) + jax.random.uniform(key, (len(images), 1, 1, 1))

    def loss_fn(logits, labels, step):
        seen["labels"], seen["rows"] = labels, logits.shape[1]
        return logits.sum(), {"nil": logits.sum()}

    config, state, _, _ = program("method=ce")
    step = steps.make_train_step(
        build.network(config, 4),
        build.optimizer(config, 5),
        loss_fn,
        augment,
        batch_size=4,
        strategy="unroll",
        copies=3,
    )
    with jax.disable_jit():
        step(state._replace(history=jnp.zeros((5, 6))), build.keys(0).step, IMAGES, LABELS, order())
    assert seen["rows"] == 12
    expected = np.asarray(IMAGES)[np.asarray(order())[:4]]
    np.testing.assert_array_equal(seen["images"], np.concatenate([expected] * 3))
    np.testing.assert_array_equal(seen["labels"], np.tile(np.asarray(LABELS)[np.asarray(order())[:4]], 3))


@pytest.mark.parametrize("method", ["ncl_supervised", "nclpp"])
def test_an_accumulated_step_is_the_mean_of_its_parts_steps(method):
    """The first step is linear in the gradient, and part a of two holds the images a, a + 2, ... of the batch."""
    fields = {"data__augment": "none"}
    _, state, _, whole = program(f"method={method}", **fields, optim__accumulate=2)
    result, row = whole(state, build.keys(0).step, IMAGES, LABELS, order())
    _, start, _, single = program(f"method={method}", **fields, optim__batch_size=2)
    parts = [
        single(start, build.keys(0).step, IMAGES, LABELS, jnp.concatenate([order()[a:4:2], order()])) for a in (0, 1)
    ]
    assert same(start.params, state.params)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, parts[0][0].params, parts[1][0].params)
    for ours, theirs in zip(jax.tree.leaves(result.params), jax.tree.leaves(mean), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(row[0], (parts[0][1][0] + parts[1][1][0]) / 2, rtol=1e-5)


def test_an_accumulated_step_pushes_the_keys_of_the_whole_batch():
    _, state, _, whole = program("method=ncl")
    _, _, _, parts = program("method=ncl", optim__accumulate=2)
    arguments = (build.keys(0).step, IMAGES, LABELS, order())
    (expected, expected_row), (result, row) = whole(state, *arguments), parts(state, *arguments)
    np.testing.assert_allclose(result.queue.keys, expected.queue.keys, rtol=1e-5, atol=1e-6)
    assert np.isfinite(row).all() and not np.allclose(row[0], expected_row[0], rtol=1e-6)  # other batch statistics


@pytest.mark.parametrize("method", ["ce", "ncl", "nclpp"])
def test_metric_names_fit_the_row(method):
    config = tiny(f"method={method}")
    state = jax.eval_shape(lambda: build.initial_state(config, FACTS))
    step = build.train_step(config, FACTS)
    _, row = jax.eval_shape(step, state, build.keys(0).step, IMAGES, LABELS, order())
    names = build.metric_names(config, FACTS)
    assert row.shape == (len(names),) == state.history.shape[1:]
    assert (
        names[0] == "loss" and ("contrast" in names) == (method == "ncl") and ("intra" in names) == (method == "nclpp")
    )
