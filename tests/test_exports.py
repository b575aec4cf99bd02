"""A run's model as a file: the same probabilities as the loaded model, for any batch and every platform."""

import pathlib
import zipfile

import jax
import numpy as np
import pytest
import tiny

import ncl_jax
from ncl_jax.errors import ConfigError, WriteError
from ncl_jax.exports import export


@pytest.fixture
def run(tmp_path):
    with zipfile.ZipFile(pathlib.Path(__file__).parent / "data" / "run_v0.zip") as file:
        file.extractall(tmp_path)
    return tmp_path / "run_v0"


def test_stablehlo_gives_the_models_probabilities_for_any_batch(run, tmp_path):
    export(run, tmp_path / "model")
    exported = jax.export.deserialize(bytearray((tmp_path / "model").read_bytes()))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    images, model = tiny.load_source("fashion_mnist_lt", "").splits["test"].images, ncl_jax.load(run)
    for count in (1, 5):
        expected = jax.nn.softmax(model(images[:count]))
        np.testing.assert_allclose(exported.call(images[:count]), expected, atol=1e-5)


def test_bad_arguments_are_named(run, tmp_path):
    with pytest.raises(ConfigError, match="--format=caffe must be one of: stablehlo, safetensors"):
        export(run, tmp_path / "model", "caffe")
    (tmp_path / "model").write_text("")
    with pytest.raises(ConfigError, match="model exists already: give another name"):
        export(run, tmp_path / "model")
    with pytest.raises(ConfigError, match="is not the configuration of a run"):
        export(tmp_path, tmp_path / "other")
    with pytest.raises(WriteError, match="other cannot be written"):
        export(run, tmp_path / "missing" / "other")
