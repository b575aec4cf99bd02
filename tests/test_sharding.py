"""One device and eight give the same numbers; the compiled step moves gradients and statistics, not activations."""

import re

import jax
import numpy as np
import pytest
from quick import quick_jit
from tiny import FACTS, IMAGES, LABELS, order, tiny

from ncl_jax.config import build
from ncl_jax.config import plan as plans
from ncl_jax.data.feeds.resident import Resident
from ncl_jax.runtime.devices import make_mesh, put_rows, replicated, take_rows

MESHES = [(8, 1), (2, 4), (4, 2)]
DRAWS = {"data__augment": "crop_flip"}


def program(config, facts, mesh, images, labels):
    """The training step on a mesh, as a run compiles it: state shapes and places, and the step."""
    shapes = jax.eval_shape(lambda: plans.initial_state(build.make_training_plan(config, facts)))
    places = plans.state_places(build.make_training_plan(config, facts, mesh), shapes)
    feed = Resident(images, labels, plans.keys(0).order, config.optim.batch_size, mesh)
    train_step = plans.train_step(build.make_training_plan(config, facts, mesh))
    step = quick_jit(lambda state, key, source: train_step(state, key, feed.take(source, state.step)))
    return shapes, places, feed, step


def run(data, expert, strategy="unroll", num_steps=10):
    """The losses and the final state of a run on a mesh."""
    config = tiny("method=ncl", model__num_experts=4, optim__batch_size=8, run__strategy=strategy, **DRAWS)
    mesh = make_mesh(data, expert)
    _, places, feed, step = program(config, FACTS, mesh, np.asarray(IMAGES), np.asarray(LABELS))
    state = jax.device_put(quick_jit(lambda: plans.initial_state(build.make_training_plan(config, FACTS)))(), places)
    key, losses = jax.device_put(plans.keys(0).step, replicated(mesh)), []
    for index in range(num_steps):
        state, metrics = step(state, key, next(feed.batches(index))[0])
        losses.append(metrics["loss"])
    return np.array(losses), state


@pytest.fixture(scope="module")
def single():
    return run(1, 1)


@pytest.mark.slow
@pytest.mark.parametrize(("mesh", "strategy"), [*[(mesh, "unroll") for mesh in MESHES], ((4, 2), "vmap")])
def test_every_mesh_gives_the_numbers_of_one_device(single, mesh, strategy):
    """Losses of ten steps, and afterwards weights, momentum encoder and queue."""
    losses, state = run(*mesh, strategy)
    np.testing.assert_allclose(losses, single[0], rtol=1e-4)
    for ours, theirs in zip(jax.tree.leaves(state), jax.tree.leaves(single[1]), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    kernel = state.params["backbone"]["conv1"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape)[0] == 4 // mesh[1]
    keys = state.memory["contrast"].keys
    assert keys.sharding.shard_shape(keys.shape)[0] == 4 // mesh[1]


@pytest.mark.parametrize("mesh", MESHES)
def test_rows_are_taken_from_wherever_they_lie(mesh):
    mesh = make_mesh(*mesh)
    images = put_rows(mesh, np.asarray(IMAGES))
    assert images.sharding.shard_shape(images.shape)[0] == -(-20 // mesh.shape["data"])
    rows = order()[:8]
    taken = jax.jit(take_rows(mesh))(images, jax.device_put(rows, replicated(mesh)))
    np.testing.assert_array_equal(taken, IMAGES[rows])
    assert taken.sharding.shard_shape(taken.shape)[0] == 8 // mesh.shape["data"]


def collectives(text, name):
    """Elements of each result of a kind of collective in a compiled program."""
    results = re.findall(rf"= (.*?) {name}(?:-start)?\(", text)
    shapes = [shape for result in results for shape in re.findall(r"\w+\[([\d,]*)\]", result)]
    return [int(np.prod([int(d) for d in shape.split(",") if d])) for shape in shapes]


@pytest.mark.slow
@pytest.mark.parametrize(("mesh_shape", "strategy"), [((8, 1), "unroll"), ((8, 1), "vmap"), ((4, 2), "packed")])
def test_gradients_and_statistics_travel_and_activations_do_not(mesh_shape, strategy):
    """A ResNet-8 on eight devices: all-reduces hold every parameter's gradient and the statistics; what is gathered is
    random draws and keys, far smaller than one activation of the batch, let alone the images."""
    facts = FACTS._replace(image_shape=(16, 16, 3))
    fields = {"model__backbone": "cifar_resnet", "run__strategy": strategy, **DRAWS}
    config = tiny("method=ncl", optim__batch_size=16, **fields)
    mesh = make_mesh(*mesh_shape)
    images, labels = np.zeros((20, 16, 16, 3), np.uint8), np.zeros(20, np.int32)
    shapes, places, feed, step = program(config, facts, mesh, images, labels)
    state = jax.tree.map(lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), shapes, places)
    key = jax.device_put(plans.keys(0).step, replicated(mesh))
    text = step.lower(state, key, next(feed.batches(0))[0]).compile().as_text()
    assert max(collectives(text, "all-gather")) < 100  # an activation: 16 * 16 * 16 * 16 = 65,536
    assert not collectives(text, "all-to-all") and max(collectives(text, "collective-permute"), default=0) < 100
    parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes.params)) // mesh_shape[1]
    statistics = sum(leaf.size for leaf in jax.tree.leaves(shapes.batch_stats)) // mesh_shape[1]
    assert parameters + statistics < sum(collectives(text, "all-reduce")) < 1.5 * parameters + 6 * statistics
