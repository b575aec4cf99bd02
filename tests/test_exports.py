"""A run's model as a file: the same probabilities as the loaded model, for any batch and every platform."""

import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import programs
import pytest
import tiny
from PIL import Image

import ncl_jax
from ncl_jax import cli
from ncl_jax.errors import ConfigError, ExportError, WriteError
from ncl_jax.runs.export import export


@pytest.mark.slow
def test_stablehlo_gives_the_models_probabilities_for_any_batch(old_run, tmp_path):
    export(old_run, tmp_path / "model")
    exported = jax.export.deserialize(bytearray((tmp_path / "model").read_bytes()))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    images, model = tiny.load_source("fashion_mnist_lt", "").splits["test"].images, ncl_jax.load(old_run)
    for count in (1, 5):
        expected = jax.nn.softmax(model(images[:count]))
        np.testing.assert_allclose(exported.call(images[:count]), expected, atol=1e-5)


@pytest.mark.slow
def test_an_exported_model_needs_neither_the_run_nor_its_libraries(old_run, tmp_path):
    export(old_run, tmp_path / "model")
    images, model = tiny.load_source("fashion_mnist_lt", "").splits["test"].images[:3], ncl_jax.load(old_run)
    np.save(tmp_path / "images.npy", images)
    Image.fromarray(images[0]).save(tmp_path / "image.png")
    program = f"""
import sys
for name in ("flax", "orbax", "optax", "ml_collections", "matplotlib", "grain", "absl", "tqdm", "tensorboardX"):
    sys.modules[name] = None
import numpy as np
import ncl_jax
model = ncl_jax.load_exported("{tmp_path}/model")
np.save("{tmp_path}/array.npy", model(np.load("{tmp_path}/images.npy")))
np.save("{tmp_path}/file.npy", model("{tmp_path}/image.png"))
print(*model.class_names)
"""
    (tmp_path / "program.py").write_text(program)
    shutil.rmtree(old_run)
    done = subprocess.run(
        [sys.executable, tmp_path / "program.py"], env=programs.environment(tmp_path), capture_output=True, text=True
    )
    assert done.returncode == 0 and "Sandal" in done.stdout, done.stderr
    expected = jax.nn.softmax(model(images))
    np.testing.assert_allclose(np.load(tmp_path / "array.npy"), expected, atol=1e-5)
    np.testing.assert_allclose(np.load(tmp_path / "file.npy"), expected[:1], atol=1e-5)


def test_artifacts_that_cannot_be_trusted(old_run, tmp_path):
    export(old_run, tmp_path / "model")
    content, about = (tmp_path / "model").read_bytes(), json.loads((tmp_path / "model.json").read_text())
    assert about["class_names"][0] == "T-shirt/top" and about["image_shape"] == [28, 28, 3]
    assert about["pixels"] == 0  # of a run from before there was a rule
    (tmp_path / "model").write_bytes(content[:500] + bytes([content[500] ^ 1]) + content[501:])
    with pytest.raises(ExportError, match="was changed or cut short since it was exported"):
        ncl_jax.load_exported(tmp_path / "model")
    (tmp_path / "model.json").write_text(json.dumps(about | {"version": 9}))
    with pytest.raises(ExportError, match="is of version 9, this ncl_jax reads version 1"):
        ncl_jax.load_exported(tmp_path / "model")
    (tmp_path / "model.json").unlink()
    with pytest.raises(ExportError, match="cannot be read"):
        ncl_jax.load_exported(tmp_path / "model")
    export(old_run, tmp_path / "model", "safetensors")
    with pytest.raises(ExportError, match="holds safetensors, no program"):
        ncl_jax.load_exported(tmp_path / "model")


def test_a_missing_library_is_named(old_run, tmp_path, monkeypatch):
    def missing(content):
        raise ImportError("no flatbuffers")

    export(old_run, tmp_path / "model")
    monkeypatch.setattr(jax.export, "deserialize", missing)
    with pytest.raises(ExportError, match=r"\(no flatbuffers\): pip install flatbuffers"):
        ncl_jax.load_exported(tmp_path / "model")


def test_the_ending_says_which_format(old_run, tmp_path):
    for name, form in (("a.safetensors", "safetensors"), ("a.stablehlo", "stablehlo"), ("a", "stablehlo")):
        assert cli.attempt("export", [f"--run={old_run}", f"--out={tmp_path}/{name}"]) == ("", 0)
        assert json.loads((tmp_path / f"{name}.json").read_text())["format"] == form


def test_bad_arguments_are_named(old_run, tmp_path):
    arguments = [f"--run={old_run}", f"--out={tmp_path}/model", "--step=last"]
    assert "--step: invalid step value: 'last'" in cli.attempt("export", arguments)[0]
    with pytest.raises(ConfigError, match="--format=caffe must be one of: stablehlo, safetensors"):
        export(old_run, tmp_path / "model", "caffe")
    (tmp_path / "model").write_text("")
    assert "model exists" in cli.attempt("export", arguments[:-1])[0] and not (tmp_path / "model").read_text()
    assert cli.attempt("export", [*arguments[:-1], "--force"]) == ("", 0)
    with pytest.raises(ConfigError, match="is not the configuration of a run"):
        export(tmp_path, tmp_path / "other")
    with pytest.raises(WriteError, match="other cannot be written"):
        export(old_run, tmp_path / "missing" / "other")
