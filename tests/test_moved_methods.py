"""A run of a method in the user's own file: what it is, where the file may go, and what needs it no more."""

import json
import shutil

import jax
import numpy as np
import programs
import pytest
import tiny

import ncl_jax
from ncl_jax import cli
from ncl_jax.config import build
from ncl_jax.errors import ConfigError
from ncl_jax.models import cpu
from ncl_jax.runs.evaluate import evaluate_run
from ncl_jax.runs.train import train
from ncl_jax.storage.directory import RunDir

METHOD = """
import jax, jax.numpy as jnp
from ncl_jax.methods import Objective

def plain(class_counts, **_):
    def compute(outputs, labels, step, memory):
        logits = outputs["logits"]
        picked = jnp.take_along_axis(logits, jnp.tile(labels, (len(logits), 1))[..., None], -1)[..., 0]
        return {"entropy": (jax.nn.logsumexp(logits, -1) - picked).mean(-1).sum()}, memory
    return Objective(compute, prior_power=1.0)
"""


def config(file, epochs=2):
    """A short run of the method in a file."""
    return tiny.tiny(
        "", loss__name=f"{file}:plain", epochs=epochs, optim__batch_size=256, optim__milestones=(2,), loss__num_hard=2,
        run__data_devices=1, data__val_share=0.2, eval_every=1, checkpoint_every=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The run, and the method's file."""
    place = tmp_path_factory.mktemp("mine")
    (place / "mine.py").write_text(METHOD)
    train(config(place / "mine.py"), place / "run")
    return place


@pytest.fixture
def mine(trained, tmp_path):
    """A copy of it."""
    return shutil.copytree(trained, tmp_path / "mine")


@pytest.mark.slow
def test_priors_and_temperatures_do_not_need_the_file(mine, trained):
    (mine / "mine.py").unlink()
    config_file = mine / "run" / "config.json"
    config_file.write_text(config_file.read_text().replace(str(trained), "/moved"))
    images = tiny.load_source("fashion_mnist_lt", "").splits["test"].images[:4]
    plain, uniform = ncl_jax.load(mine / "run")(images), ncl_jax.load(mine / "run", prior="uniform")(images)
    counts = json.loads((mine / "run" / "dataset.json").read_text())["class_counts"]
    expected = plain - np.log(np.array(counts) / sum(counts))
    np.testing.assert_allclose(np.ptp(uniform - expected, axis=1), 0, atol=1e-4)
    assert evaluate_run(mine / "run", temperature="val", prior="train")["ensemble"]["accuracy"] > 0


def test_runs_that_noted_no_prior_have_none_and_the_file_is_not_asked(mine):
    stored = json.loads((mine / "run" / "config.json").read_text())
    assert stored.pop("prior_power") == 1.0
    (mine / "run" / "config.json").write_text(json.dumps(stored))
    images = tiny.load_source("fashion_mnist_lt", "").splits["test"].images[:2]
    scores = ncl_jax.load(mine / "run")(images)
    with pytest.raises(ConfigError, match=r"loss\.name='.*/mine\.py:plain'.*prior_power"):
        ncl_jax.load(mine / "run", prior="train")
    (mine / "run" / "config.json").write_text(json.dumps(stored | {"prior_power": 1}))
    np.testing.assert_allclose(ncl_jax.load(mine / "run", prior="train")(images), scores)


@pytest.mark.slow
def test_a_run_from_anothers_configuration_notes_its_own(mine, tmp_path):
    config = ncl_jax.load(mine / "run").config
    config.loss.name, config.loss.balanced = "ncl", True
    train(config, tmp_path / "other")
    stored = json.loads((tmp_path / "other" / "config.json").read_text())
    assert stored["prior_power"] == 0.0 and "method_sha256" not in stored


def test_the_files_content_is_what_the_run_is_and_its_path_is_not(mine, capsys):
    (mine / "mine.py").rename(mine / "renamed.py")
    train(config(mine / "renamed.py"), mine / "run")
    assert "finished" in capsys.readouterr().out
    (mine / "renamed.py").write_text(METHOD.replace(".sum()}", ".mean()}"))
    with pytest.raises(ConfigError, match="method_sha256"):
        train(config(mine / "renamed.py"), mine / "run")


def test_runs_before_that_was_noted_have_the_path(mine, trained, capsys):
    stored = json.loads((mine / "run" / "config.json").read_text())
    del stored["method_sha256"]
    (mine / "run" / "config.json").write_text(json.dumps(stored))
    train(config(trained / "mine.py"), mine / "run")
    assert "finished" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="loss.name"):
        train(config(mine / "mine.py"), mine / "run")


def test_inference_needs_no_kernel_and_compiles_none(mine, monkeypatch, capfd):
    stored = json.loads((mine / "run" / "config.json").read_text())
    stored["run"]["conv"] = "native"
    (mine / "run" / "config.json").write_text(json.dumps(stored))
    monkeypatch.setattr(cpu, "load", lambda: pytest.fail("a kernel was asked for"))
    assert ncl_jax.load(mine / "run", step="best").network is not None
    assert evaluate_run(mine / "run", step="best")["step"] in (3, 6)
    for command in (["evaluate", "--run", mine / "run"], ["export", "--run", mine / "run", "--out", mine / "m"]):
        assert cli.attempt(command[0], [*map(str, command[1:])]) == ("", 0)


def test_a_model_gives_its_parts(mine):
    model = ncl_jax.load(mine / "run")
    images = tiny.load_source("fashion_mnist_lt", "").splits["test"].images[:3]
    outputs = model.apply(model.variables, images)
    np.testing.assert_allclose(outputs["logits"].mean(0), model(images), atol=1e-5)
    first = jax.tree.map(lambda leaf: leaf[0], model.variables)
    plan = build.make_plan(model.config, RunDir(mine / "run").read_facts())
    normal = (images / np.float32(255) - np.float32(plan.preprocessing.mean)) / np.float32(plan.preprocessing.std)
    np.testing.assert_allclose(model.network.apply(first, normal, False)["logits"], outputs["logits"][0], atol=1e-4)


def test_what_exists_is_not_overwritten(mine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "answers.csv").write_text("precious")
    (tmp_path / "class_sizes.png").write_text("precious")
    picture = str(programs.ROOT / "tests" / "data" / "cifar100_test_images.png")
    for name, command in {
        "answers.csv": ["predict", "--run", str(mine / "run"), "--out", "answers.csv", picture],
        "class_sizes.png": ["inspect", "--config", "quickstart"],
    }.items():
        message, code = cli.attempt(command[0], command[1:])
        assert code == 1 and "exists" in message and "--force" in message
        assert (tmp_path / name).read_text() == "precious"
        assert cli.attempt(command[0], [*command[1:], "--force"]) == ("", 0)
    assert (tmp_path / "answers.csv").read_text().startswith("file,") and not list(tmp_path.glob("*.partial"))


def test_distill_takes_its_run_after_a_space(mine):
    message, code = cli.attempt("distill", ["--run", str(mine / "none"), "--workdir", str(mine / "student")])
    assert code == 1 and "none is not a directory" in message
