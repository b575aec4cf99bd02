"""What docs/architecture.md says of adding parts: a source, a view, a method, a backbone and an export format, each a
function or class and a line in a table, used together; and a method from a configuration file, outside the package."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import programs
import pytest
import tiny
from jax.sharding import PartitionSpec as P
from quick import quick_jit

import ncl_jax
from ncl_jax import methods
from ncl_jax.config import build, checks, choose_method
from ncl_jax.config import files as config_files
from ncl_jax.config import plan as plans
from ncl_jax.data.augment.views import VIEWS
from ncl_jax.data.sources import SOURCES
from ncl_jax.data.types import Source, Split
from ncl_jax.errors import ConfigError
from ncl_jax.export.formats import FORMATS
from ncl_jax.methods import METHODS, Method, Objective
from ncl_jax.runs.export import export
from ncl_jax.runs.train import train
from ncl_jax.runtime.devices import make_mesh


def stripes(request):
    """A source: three classes of bright columns."""
    labels = np.repeat(np.arange(3, dtype=np.int32), (40, 12, 4))
    images = np.random.default_rng(0).integers(0, 100, (56, 8, 8, 3), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, 3 * label : 3 * label + 2] += 150
    split = Split(images, labels)
    return Source(("left", "middle", "right"), {"train": split, "test": split}, imbalance=10.0)


def upside_down(key, images):
    """A stage of a view."""
    return jnp.where(jax.random.bernoulli(key, 0.5, (len(images), 1, 1, 1)), images[:, ::-1], images)


def centres(class_counts, *, num_hard, **_):
    """A method: cross-entropy and the distance to each class's running mean of features, its memory."""

    def compute(outputs, labels, step, memory):
        features = outputs["features"]  # [E, B, D]
        labels = jnp.tile(labels, (len(features), 1))
        picked = jnp.take_along_axis(outputs["logits"], labels[..., None], -1)[..., 0]
        entropy = jax.nn.logsumexp(outputs["logits"], -1) - picked
        near = jnp.square(features - jnp.take_along_axis(memory, labels[..., None], 1)).sum(-1)
        new = jax.vmap(lambda m, f, y: m.at[y].add(0.1 * (f - m[y])))(memory, features, labels)
        return {"entropy": entropy.mean(-1).sum(), "near": 0.01 * near.mean()}, new

    def init_memory(key, outputs):
        num_experts, _, size = outputs["features"].shape
        return jnp.zeros((num_experts, len(class_counts), size))

    return Objective(compute, init_memory, P("expert"))


def likely(artifact):
    """An export format: the most likely class of a black image."""
    file = io.BytesIO()
    np.savez(file, likely=artifact.predict(np.zeros((1, *artifact.image_shape), np.uint8)).argmax())
    return file.getvalue()


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.setitem(SOURCES, "stripes", stripes)
    monkeypatch.setitem(VIEWS, "upside_down", (upside_down,))
    monkeypatch.setitem(FORMATS, "likely", likely)
    monkeypatch.setitem(METHODS, "centres", Method("nearest class means", centres, {}))


def config(**fields):
    """Two epochs on the stripes."""
    config = tiny.tiny("epochs=2", data__name="stripes", data__imbalance=10.0, data__augment="upside_down", **fields)
    config.optim.batch_size, config.run.eval_batch, config.run.data_devices = 8, 56, 1
    return config


@pytest.mark.slow
def test_added_parts_train_and_predict_together(tables, tmp_path):
    mine = config()
    choose_method(mine, "centres")
    mine.model.num_experts = 2
    results = train(mine, tmp_path)
    assert results["dataset"] == "stripes" and len(results["experts"]) == 2
    data, model = stripes(None), ncl_jax.load(tmp_path)
    scores = model(data.splits["test"].images)
    assert scores.shape == (56, 3)
    assert np.mean(scores.argmax(-1) == data.splits["test"].labels) == pytest.approx(results["ensemble"]["accuracy"])
    export(tmp_path, tmp_path / "model.npz", "likely")
    likely = np.load(tmp_path / "model.npz")["likely"]
    assert likely == model(np.zeros((1, 8, 8, 3), np.uint8)).argmax()


@pytest.mark.slow
def test_a_configuration_may_bring_its_own_method(tmp_path):
    """The one that docs/methods.md shows, as a user would save it."""
    page = (programs.ROOT / "docs" / "methods.md").read_text()
    text = page.partition("```python\n")[2].partition("```")[0]
    assert len(text.splitlines()) < 40
    (tmp_path / "mine.py").write_text(text)
    mine = config_files.load(f"{tmp_path}/mine.py:epochs=2")
    mine.update_from_flattened_dict({"model.backbone": "one_layer", "model.num_experts": 2, "optim.batch_size": 4})
    checks.validate(mine)
    plan = build.make_training_plan(mine, tiny.FACTS)
    state, step = quick_jit(lambda: plans.initial_state(plan))(), quick_jit(plans.train_step(plan))
    state, metrics = step(state, plans.keys(0).step, tiny.batch())
    assert metrics["parts"].keys() == {"entropy", "near"}
    seen = np.unique(tiny.batch().labels)
    moved = np.abs(state.memory).max(axis=(0, 2)) > 0
    np.testing.assert_array_equal(np.flatnonzero(moved), seen)
    objective, labels = build.objective(mine, tiny.FACTS.class_counts), jnp.array([0] * 30 + [1])
    outputs = {"features": jnp.ones((2, 31, 3)), "logits": jnp.zeros((2, 31, 4))}
    memory = jnp.zeros((2, 4, 3))
    for _ in range(50):  # of images that are nearly all of one class
        _, memory = objective.compute(outputs, labels, jnp.int32(0), memory)
    np.testing.assert_allclose(memory[:, :2], 1, atol=0.01)
    assert not memory[:, 2:].any()


@pytest.mark.parametrize("name", ["missing.py:smooth", "ncl_jax.losses:smooth", "no_such_module:f", ":f"])
def test_an_own_method_that_is_not_there_is_named(name):
    with pytest.raises(ConfigError, match=rf"loss.name='{name}' names no function FILE.py:FUNCTION"):
        checks.validate(tiny.tiny("", loss__name=name))


def test_a_methods_memory_lives_where_it_says(tables):
    mine = config(loss__name="centres")
    facts = tiny.FACTS._replace(class_counts=(9, 6, 3))
    shapes = jax.eval_shape(lambda: plans.initial_state(build.make_training_plan(mine, facts)))
    places = plans.state_places(build.make_training_plan(mine, facts, make_mesh(2, 2)), shapes)
    assert places.memory.spec == P("expert") and shapes.memory.shape[:2] == (2, 3)
    queue = tiny.tiny("method=ncl")
    shapes = jax.eval_shape(lambda: plans.initial_state(build.make_training_plan(queue, tiny.FACTS)))
    places = plans.state_places(build.make_training_plan(queue, tiny.FACTS, make_mesh(2, 2)), shapes)
    assert places.memory["contrast"].keys.spec == P("expert") and places.memory["contrast"].position.spec == P()
    assert methods.objectives().keys() == {"adjusted", "centres", "dbm", "distilled", "ldam", "ncl", "nclpp"}
