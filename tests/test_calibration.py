"""Temperatures: found again where they are known, fitted on images that were held out, the same in every command."""

import json

import jax
import numpy as np
import one_layer
import programs
import pytest
import tiny
from PIL import Image

import ncl_jax
from ncl_jax.config import build_data
from ncl_jax.errors import ConfigError, DataError
from ncl_jax.evaluation.temperature import fit_temperature
from ncl_jax.runs.evaluate import evaluate_run
from ncl_jax.runs.export import export
from ncl_jax.runs.temperature import find_temperature

assert one_layer.OneLayer  # the run below has it


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("adjust", [np.zeros(4), np.log([0.6, 0.3, 0.08, 0.02])])
def test_the_temperature_that_labels_were_drawn_with_is_found(temperature, adjust):
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=(40_000, 4))
    noise = rng.gumbel(size=logits.shape)
    labels = (logits / temperature + adjust + noise).argmax(-1)  # drawn from the softmax
    np.testing.assert_allclose(fit_temperature(logits, labels, adjust), temperature, rtol=0.03)


@pytest.mark.parametrize("wanted", ["0", "-1", "nan", "inf", "warm"])
def test_what_is_no_temperature(wanted):
    with pytest.raises(ConfigError, match=f"--temperature={wanted} must be a number above 0, or val"):
        find_temperature(None, None, wanted)


@pytest.mark.slow
def test_a_number_divides_the_scores(old_run):
    images = tiny.load_source("fashion_mnist_lt", "").splits["test"].images[:3]
    plain, divided = (ncl_jax.load(old_run, temperature=t)(images) for t in (None, 2))
    np.testing.assert_allclose(divided, plain / 2, rtol=1e-6)
    with pytest.raises(DataError, match=r"fashion_mnist_lt has no val split.*data.val_share=0.1"):
        ncl_jax.load(old_run, temperature="val")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "held-out"
    programs.finish(programs.one_layer(path, epochs=2, optim__milestones="(2,)", data__val_share=0.2))
    return path


@pytest.mark.slow
def test_a_temperature_fitted_on_held_out_images_is_the_same_in_every_command(run, tmp_path):
    before, after = evaluate_run(run), evaluate_run(run, temperature="val")
    temperature = json.loads((run / "temperature.json").read_text())[f"{before['step']}/ensemble"]
    assert temperature != 1 and after["ensemble"]["accuracy"] == before["ensemble"]["accuracy"]
    assert after["ensemble"]["nll"] != before["ensemble"]["nll"]
    assert evaluate_run(run, temperature=temperature) == after
    export(run, tmp_path / "model", temperature="val")
    images = tiny.load_source("fashion_mnist_lt", "").splits["test"].images[:4]
    model = ncl_jax.load(run, temperature="val")
    np.testing.assert_allclose(model(images), ncl_jax.load(run)(images) / temperature, rtol=1e-5)
    exported = ncl_jax.load_exported(tmp_path / "model")
    np.testing.assert_allclose(exported(images), jax.nn.softmax(model(images)), atol=1e-5)
    assert exported.about["temperature"] == temperature


@pytest.mark.slow
def test_the_held_out_images_were_not_trained_on(run):
    config, facts = (json.loads((run / name).read_text()) for name in ("config.json", "dataset.json"))
    assert config["data"]["val_share"] == 0.2 and sum(facts["class_counts"]) < 1236


def test_val_is_a_share_of_every_class():
    whole, part = (build_data.data(tiny.load_config("quickstart", data__val_share=share)) for share in (0.0, 0.2))
    counts = np.bincount(part.others["val"].labels)
    for count, held in zip(whole.facts.class_counts, counts, strict=True):
        assert max(1, round(0.1 * count)) <= held <= max(1, min(round(0.4 * count), count - 1))
    assert (counts + part.facts.class_counts).tolist() == list(whole.facts.class_counts)
    images = np.concatenate([part.train.images, part.others["val"].images])
    assert {image.tobytes() for image in images} == {image.tobytes() for image in whole.train.images}


def test_a_second_val_split_is_refused(tmp_path):
    for split in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(3):
                Image.fromarray(np.full((8, 8, 3), index, np.uint8)).save(tmp_path / split / name / f"{index}.png")
    config = tiny.load_config("quickstart", data__val_share=0.2)
    config.update_from_flattened_dict({"data.name": "folder", "data.dir": str(tmp_path), "data.eval_split": "val"})
    config.data.imbalance, config.data.image_size = 0.0, 8
    with pytest.raises(DataError, match="data.val_share=0.2: the data has a val split already"):
        build_data.data(config)
