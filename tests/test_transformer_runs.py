"""A transformer's weights from a file to a run on its features, its predictions and exports."""

import sys
import types

import jax
import numpy as np
import pytest
import tiny
from programs import ROOT
from safetensors.numpy import save_file
from test_onnx import make_artifact, same, unbiased
from test_own_images import make_folder
from test_timm import state_dict

import ncl_jax
from ncl_jax import cli
from ncl_jax.config import build, checks, files
from ncl_jax.config import plan as plans
from ncl_jax.errors import ConfigError, ExportError
from ncl_jax.export import onnx, safetensors
from ncl_jax.models import FROZEN
from ncl_jax.models.named import NAMED
from ncl_jax.runs import pretrained
from ncl_jax.runs.evaluate import evaluate_run
from ncl_jax.runs.export import export
from ncl_jax.runtime import startup
from ncl_jax.storage.directory import RunDir
from ncl_jax.weights import names, vit_names

FACTS = tiny.FACTS._replace(image_shape=(32, 32, 3))
CONVNEXT = {"model__backbone": "convnext", "model__depth": 18, "model__width": 8}
VIT = {"model__backbone": "vit", "model__depth": 4, "model__width": 128}


@pytest.fixture(scope="module")
def figures():
    with np.load(ROOT / "tests" / "golden" / "timm.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def tensors(figures):
    return state_dict(figures, "vit")


@pytest.fixture(scope="module")
def finished(tensors, tmp_path_factory):
    """A run of a named transformer on 24 photographs; their folder; the file of weights, for images of 64 pixels."""
    root = tmp_path_factory.mktemp("transformer")
    make_folder(root / "data", ("train", "test"), {"a": 12, "b": 8, "c": 4})
    save_file(tensors, root / "w.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        row = NAMED["vit_small"]._replace(depth=4, width=128, image_size=32, resize=36)
        patch.setitem(NAMED, "tiny_vit", row)
        what = f"dir={root}/data,backbone=tiny_vit,pretrained={root}/w.safetensors,method=ncl_supervised,epochs=2"
        fields = {"optim.batch_size": 8, "model.num_experts": 2, "data.cached_views": 1, "loss.num_hard": 2,
                  "run.data_devices": 1, "run.conv": "xla", "data.cache": f"{root}/cache"}  # fmt: skip
        values = [f"--config.{name}={value}" for name, value in fields.items()]
        result = cli.attempt("train", [f"--config=folder:{what}", f"--workdir={root}/run", *values])
    assert result == ("", 0)
    return root


def test_a_run_on_a_transformers_features(finished, tensors, tmp_path):
    results = RunDir(finished / "run").read_results()
    assert len(results["baselines"]) == 6 and results["pretrained"]["file"] == "w.safetensors"
    assert "linear, balanced softmax" in RunDir(finished / "run").report.read_text()
    model = ncl_jax.load(finished / "run")
    expected = vit_names.at_grid(names.from_torch(tensors), 2)["params"]["backbone"]
    assert tiny.same(expected, model.variables["trunk"]["params"]) and expected["position"].shape == (4, 128)
    files = sorted((finished / "data" / "test").rglob("*.jpg"))
    scores, labels = model(files), np.array(["abc".index(file.parent.name) for file in files])
    assert np.mean(scores.argmax(-1) == labels) == pytest.approx(results["ensemble"]["accuracy"])
    assert model.features(files[:2]).shape == (2, 2, 128)
    export(finished / "run", tmp_path / "model.stablehlo")
    exported = ncl_jax.load_exported(tmp_path / "model.stablehlo")(files)
    np.testing.assert_allclose(exported, jax.nn.softmax(scores), atol=1e-5)


def test_the_scores_of_five_crops_are_averaged(finished, tmp_path):
    """A patch of 16 pixels and a half more than the 32 that the network sees."""
    files = sorted((finished / "data" / "test").rglob("*.jpg"))
    model, plain = ncl_jax.load(finished / "run", crops=5), ncl_jax.load(finished / "run")
    whole = model.prepare(files)
    assert whole.shape == (len(files), 56, 56, 3)
    parts = [whole[:, y : y + 32, x : x + 32] for y, x in ((0, 0), (0, 24), (24, 0), (24, 24), (12, 12))]
    expected = np.mean([plain(part) for part in parts], 0)
    np.testing.assert_allclose(model(files), expected, atol=1e-5)
    assert np.abs(plain(files) - expected).max() > 1e-3
    labels = np.array(["abc".index(file.parent.name) for file in files])
    found = evaluate_run(finished / "run", crops=5)["ensemble"]["accuracy"]
    assert found == pytest.approx(np.mean(expected.argmax(-1) == labels))
    export(finished / "run", tmp_path / "model.stablehlo", crops=5)
    exported = ncl_jax.load_exported(tmp_path / "model.stablehlo")(files)
    np.testing.assert_allclose(exported, jax.nn.softmax(expected), atol=1e-5)
    with pytest.raises(ConfigError, match="--crops=3 must be 5"):
        evaluate_run(finished / "run", crops=3)


def test_a_run_without_patches_has_a_margin_of_three_28ths(old_run, tmp_path):
    model, plain = ncl_jax.load(old_run, crops=5), ncl_jax.load(old_run)
    whole = np.random.default_rng(0).integers(0, 256, (2, 31, 31, 3), np.uint8)
    parts = [whole[:, y : y + 28, x : x + 28] for y, x in ((0, 0), (0, 3), (3, 0), (3, 3), (2, 2))]
    np.testing.assert_allclose(model(whole), np.mean([plain(part) for part in parts], 0), atol=1e-5)
    with pytest.raises(ConfigError, match="--crops=5 is for formats that hold a program"):
        export(old_run, tmp_path / "model.safetensors", crops=5)


def test_a_file_of_another_network_is_named(finished, tmp_path):
    config = f"--config=folder:dir={finished}/data,backbone=dinov2_small,pretrained={finished}/w.safetensors"
    message, code = cli.attempt("train", [config, f"--workdir={tmp_path}/run", "--config.optim.batch_size=8"])
    assert code == 1 and "of model.backbone=vit model.depth=4 model.width=128, does not fit" in message
    assert "model.backbone=dinov2 model.depth=12 model.width=384: " in message
    message, code = cli.attempt("train", [config, f"--workdir={tmp_path}/run", "--config.data.image_size=225"])
    assert code == 1 and "data.image_size=225 must be a multiple of 14, the side of a patch, such as 224" in message


def test_names_of_the_table_come_from_the_hub(finished, monkeypatch):
    asked = []
    download = lambda *what: asked.append(what) or str(finished / "w.safetensors")  # noqa: E731
    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(hf_hub_download=download))
    assert pretrained.find("dinov2_small") == finished / "w.safetensors"
    assert asked == [("timm/vit_small_patch14_dinov2.lvd142m", "model.safetensors")]
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    address = "https://huggingface.co/timm/vit_small_patch16_dinov3.lvd1689m/resolve/main/model.safetensors"
    with pytest.raises(ConfigError, match=rf"pip install 'huggingface_hub.*; or download {address}"):
        pretrained.find("dinov3_small")


def test_every_expert_may_start_from_a_transformer(finished, tensors):
    """Networks without batch normalisation have no running statistics."""
    config = tiny.tiny("method=ncl_supervised", model__pretrained=f"{finished}/w.safetensors", run__conv="xla", **VIT)
    plan = build.make_training_plan(config, FACTS)
    start = pretrained.load(config, plan)
    state = startup.run_once(lambda: plans.initial_state(plan))
    changed = pretrained.apply(state, start)
    expected = vit_names.at_grid(names.from_torch(tensors), 2)["params"]["backbone"]
    for expert in range(config.model.num_experts):
        own = jax.tree.map(lambda leaf, e=expert: leaf[e], changed.params["backbone"])
        assert tiny.same(own, expected)
    assert jax.tree.structure(changed) == jax.tree.structure(state) and changed.batch_stats == {}


def test_a_runs_transformer_is_taken_for_images_of_another_size(finished):
    config = ncl_jax.load(finished / "run").config.copy_and_resolve_references()
    config.model.pretrained = str(finished / "run")
    facts = RunDir(finished / "run").read_facts()._replace(image_shape=(48, 48, 3))
    start = pretrained.load(config, build.make_plan(config, facts))
    assert start.trunk["params"]["position"].shape == (9, 128)


def test_safetensors_have_no_names_for_a_transformer():
    with pytest.raises(ExportError, match="--format=safetensors has names for ResNets alone"):
        safetensors.serialize(make_artifact(side=32, **VIT))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit", "convnext"])
def test_onnx_graphs_give_the_same_features(figures, name):
    """Weights as the files have them: ONNX Runtime's log-probabilities against ours."""
    pytest.importorskip("jax2onnx")
    fields = CONVNEXT if name == "convnext" else VIT | {"model__backbone": name}
    artifact = make_artifact(side=64, draw=unbiased, **fields)
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    same(onnx.serialize(artifact), images, artifact.predict(images))


@pytest.mark.parametrize("recipe", ["cifar100lt", "imagenet_lt", "places_lt", "inaturalist2018"])
def test_every_benchmark_takes_a_named_backbone(recipe):
    config = files.load(f"{recipe}:backbone=clip_large,method=ncl_supervised,image_size=336")
    checks.validate(config)
    model, data = config.model, config.data
    assert (model.backbone, model.depth, model.width, model.freeze) == ("clip_patch14", 24, 1024, FROZEN)
    assert (data.image_size, data.resize, model.pretrained, config.epochs) == (336, 336, "clip_large", 30)
    with pytest.raises(ConfigError, match="freeze and image_size belong to a backbone"):
        files.load(f"{recipe}:image_size=336")
