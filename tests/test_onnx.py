"""A run's model as ONNX: ONNX Runtime gives the model's probabilities, and a graph that gives others is refused."""

import json
import sys

import jax
import numpy as np
import pytest
import tiny

import ncl_jax
from ncl_jax.config import build
from ncl_jax.config import plan as plans
from ncl_jax.errors import ConfigError, ExportError
from ncl_jax.export import onnx
from ncl_jax.export.artifact import Artifact
from ncl_jax.runs.export import export

RNG = np.random.default_rng(0)
RESNET = {"model__backbone": "resnet", "model__depth": 18, "model__width": 8, "model__classifier": "cosine"}
RESNEXT = {"model__backbone": "resnext", "model__depth": 50, "model__width": 16, "model__classifier": "linear"}


def draw(path, leaf):
    """Random weights, or a running statistic."""
    rng = np.random.default_rng(len(str(path)))  # the same whatever was drawn before
    values = rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[1:-1]))
    return np.float32(abs(values) + 0.5 if path[-1].key == "var" else values)


def unbiased(path, leaf):
    """The same without biases, which may drown what an image changes."""
    return np.zeros(leaf.shape, np.float32) if path[-1].key == "bias" else draw(path, leaf)


def make_artifact(side=64, draw=draw, **fields):
    """A model of random weights for images of a size, and four classes."""
    config = tiny.load_config("quickstart", model__num_experts=1, **fields)
    facts = tiny.FACTS._replace(image_shape=(side, side, 3))
    shapes = jax.eval_shape(lambda: plans.initial_model(build.make_plan(config, facts)))
    variables = jax.tree_util.tree_map_with_path(draw, {"params": shapes.params, "batch_stats": shapes.batch_stats})
    predictor = plans.predictor(plans.on_every_platform(build.make_plan(config, facts)))
    about = {"resize": side, "class_names": list(facts.class_names)}
    predict = jax.jit(lambda images: jax.nn.softmax(predictor.scores(variables, images)))
    return Artifact(predict, facts.image_shape, variables, None, about)


def start(content):
    """ONNX Runtime on a graph."""
    import onnxruntime

    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def same(content, images, expected):
    """Compares with a model's probabilities, which depend on the images: one at first, then the others together."""
    logarithms, session = np.log(expected), start(content)
    assert np.ptp(logarithms, 0).max() > 0.02
    found = [session.run(["probabilities"], {"images": part})[0] for part in (images[:1], images[1:])]
    np.testing.assert_allclose(np.log(np.concatenate(found)), logarithms, atol=3e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("expert", "prior"), [(None, None), (1, "train")])
def test_a_run_gives_the_models_probabilities(old_run, tmp_path, expert, prior):
    pytest.importorskip("jax2onnx")
    export(old_run, tmp_path / "model.onnx", "onnx", expert=expert, prior=prior)
    content = (tmp_path / "model.onnx").read_bytes()
    images = tiny.load_source("fashion_mnist_lt", "").splits["test"].images[::111]
    same(content, images, jax.nn.softmax(ncl_jax.load(old_run, expert=expert, prior=prior)(images)))
    metadata = start(content).get_modelmeta().custom_metadata_map
    assert json.loads(metadata["class_names"])[0] == "T-shirt/top" and metadata["format"] == "onnx"
    assert json.loads((tmp_path / "model.onnx.json").read_text())["class_names"][0] == "T-shirt/top"
    with pytest.raises(ExportError, match="holds onnx, no program for JAX"):
        ncl_jax.load_exported(tmp_path / "model.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("fields", [RESNET, RESNEXT])
def test_large_networks(fields):
    pytest.importorskip("jax2onnx")
    artifact = make_artifact(**fields)
    brightness = np.array([1, 2, 4, 16], np.uint8).reshape(4, 1, 1, 1)
    images = RNG.integers(0, 256, (4, *artifact.image_shape), np.uint8) // brightness
    same(onnx.serialize(artifact), images, artifact.predict(images))


def test_a_graph_that_gives_other_probabilities_is_refused(monkeypatch):
    pytest.importorskip("onnxruntime")
    artifact = make_artifact(model__backbone="one_layer", side=28)
    expected = np.asarray(artifact.predict(onnx.sample(artifact)))
    monkeypatch.setattr(onnx, "run", lambda content, images: expected * 1.00001)
    onnx.check(b"", artifact)
    monkeypatch.setattr(onnx, "run", lambda content, images: expected * 1.001)
    with pytest.raises(ExportError, match=r"differ from JAX's by 0\.001, more than 0\.0001"):
        onnx.check(b"", artifact)
    monkeypatch.setattr(onnx, "run", lambda content, images: expected * np.nan)
    with pytest.raises(ExportError, match=r"differ from JAX's by nan"):
        onnx.check(b"", artifact)


def test_what_cannot_be_converted_or_run_is_said():
    pytest.importorskip("jax2onnx")
    artifact = make_artifact(model__backbone="one_layer", side=28)
    shape = jax.ShapeDtypeStruct((), np.float32)
    foreign = artifact._replace(predict=lambda images: jax.pure_callback(lambda: np.float32(0), shape))
    with pytest.raises(ExportError, match="jax2onnx cannot convert this network"):
        onnx.serialize(foreign)
    with pytest.raises(ExportError, match="ONNX Runtime cannot run the graph"):
        onnx.check(b"no graph", artifact)


def test_packages_that_are_missing_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(ConfigError, match=r"pip install 'jax2onnx>=[\d.]+' 'onnxruntime>="):
        onnx.serialize(make_artifact(model__backbone="one_layer", side=28))
