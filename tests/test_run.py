"""The whole program on the embedded data: runs, stops, continues, and what a user does with the result."""

import functools
import json
import re
import shutil
import signal

import numpy as np
import programs
import pytest
import tiny

import ncl_jax
from ncl_jax import cli
from ncl_jax.errors import CheckpointError
from ncl_jax.models.cpu.library import lanes
from ncl_jax.runs.evaluate import evaluate_run

pytestmark = pytest.mark.slow
NO_DATA = ["--config.data.dir=/nowhere/data", "--config.data.download=False"]
METHOD = "configs/quickstart.py:method=ncl"
LENGTH = {"epochs": 4, "optim__milestones": "(3,)"}  # epochs of 19 steps, a checkpoint after every second
# What the CPU's own convolutions take, and augmentation whose draws must come again.
OWN = {"model__width": lanes(), "data__augment": "crop_flip", "contrast__augment": "crop_flip"}
command = functools.partial(programs.command, **LENGTH, **OWN)
small = functools.partial(programs.one_layer, **LENGTH, data__augment="crop_flip")


@pytest.fixture(scope="session")
def reference(cache, tmp_path_factory):
    """A run that nothing stopped, with self-supervision: every part of the state is in use."""
    workdir = tmp_path_factory.mktemp("run") / "reference"
    output = programs.run(command(workdir, METHOD), cache)
    return workdir, output


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The same with a network of one layer, in the tests' process."""
    workdir = tmp_path_factory.mktemp("run") / "finished"
    programs.finish(small(workdir, METHOD))
    return workdir


def test_a_run_leaves_what_it_promises(reference):
    workdir, output = reference
    results = json.loads((workdir / "results.json").read_text())
    assert results["num_train"] == 1236 and results["epoch"] == 4 and len(results["experts"]) == 2
    for figures in (results["ensemble"], *results["experts"]):
        assert {"accuracy", "many", "medium", "few", "ece", "nll"} <= figures.keys()
        assert 0.1 < figures["accuracy"] <= 1
    assert results["disagreement"]["top1"]["all"] > 0 and len(results["disagreement"]["kl"]["per_class"]) == 10
    for name in ("curve.png", "per_class.png", "report.html", "predictions.npz", "config.json", "dataset.json"):
        assert (workdir / name).stat().st_size > 100
    assert list((workdir / "tensorboard").glob("events.*"))
    assert "ensemble" in output and "best on the test set" in output
    accuracy = f"{100 * results['ensemble']['accuracy']:.2f}"
    assert accuracy in output.splitlines()[-10].split() or accuracy in output


def test_the_loss_parts_add_up_in_the_log(reference):
    lines = [json.loads(line) for line in (reference[0] / "metrics.jsonl").read_text().splitlines()]
    training = [line for line in lines if line["kind"] == "train"]
    assert [line["epoch"] for line in training] == [1, 2, 3, 4]
    for line in training:
        assert set(line["parts"]) == {"nil", "nil_hard", "nbod", "nbod_hard", "contrast"}
        np.testing.assert_allclose(sum(line["parts"].values()), line["loss"], rtol=1e-5)
    assert training[-1]["loss"] < training[0]["loss"]


def stop_and_continue(arguments, reference, cache, workdir, epoch, number):
    """A run that a signal ends in the epoch after the given one, and its continuation, which must equal the reference.

    Returns what both printed, and the first one's exit code.
    """
    first, code = programs.stop_after_epoch(arguments, cache, workdir, epoch, number)
    assert not (workdir / "results.json").exists()
    second = programs.run(arguments, cache)
    assert programs.content(workdir) == programs.content(reference)
    return first, second, code


def test_a_killed_run_continues_bit_for_bit(reference, cache, tmp_path):
    """Between checkpoints, with the convolutions that runs have."""
    arguments = command(tmp_path / "run", METHOD)
    _, second, code = stop_and_continue(arguments, reference[0], cache, tmp_path / "run", 3, signal.SIGKILL)
    assert code == -signal.SIGKILL and "continuing at step" in second


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory):
    """A compilation cache for one program alone."""
    return tmp_path_factory.mktemp("cache")


def test_a_run_stopped_by_sigterm_continues_bit_for_bit(finished, own_cache, tmp_path):
    arguments = small(tmp_path / "run", METHOD)
    first, second, code = stop_and_continue(arguments, finished, own_cache, tmp_path / "run", 2, signal.SIGTERM)
    assert code == 143 and "continuing at step" in second
    assert re.search(r"stopped (at step|after epoch) \d+, saved: the same command continues", first)


def test_killed_before_its_first_checkpoint_a_run_repeats_what_was_compiled_once(finished, own_cache, tmp_path):
    """Bit for bit, and the second program adds no compiled training step."""
    arguments = small(tmp_path / "run", METHOD)
    _, code = programs.stop_after_epoch(arguments, own_cache, tmp_path / "run", 1, signal.SIGKILL)
    assert code == -signal.SIGKILL and not (tmp_path / "run" / "results.json").exists()
    compiled = set(own_cache.glob("jit_advance-*-cache"))
    programs.run(arguments, own_cache)
    assert len(compiled) == 1 and compiled == set(own_cache.glob("jit_advance-*-cache"))
    assert programs.content(tmp_path / "run") == programs.content(finished)


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copy")


def test_a_finished_run_repeated_changes_nothing(copy, finished, capsys):
    output = programs.here(small(copy, METHOD), capsys)
    assert "holds this run, finished" in output and "compiled" not in output
    assert programs.content(copy) == programs.content(finished)


def test_a_run_killed_after_its_last_checkpoint_still_reports(copy, finished, capsys):
    (copy / "results.json").unlink()
    programs.here(small(copy, METHOD), capsys)
    assert programs.content(copy) == programs.content(finished)


def largest_state_file(workdir, step):
    files = (workdir / "checkpoints" / str(step) / "state").rglob("*")
    return max((f for f in files if f.is_file()), key=lambda f: f.stat().st_size)


def test_a_damaged_checkpoint_is_reported_and_the_previous_used(copy, finished, capsys):
    file = largest_state_file(copy, 76)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)
    (copy / "results.json").unlink()
    output = programs.here(small(copy, METHOD), capsys)
    assert "checkpoint 76 cannot be used" in output and "continuing at step 38" in output
    assert (copy / "damaged-checkpoints" / "76-0").is_dir()
    assert programs.content(copy) == programs.content(finished)


def test_nothing_readable_is_an_error_not_a_restart(copy, capsys):
    (copy / "results.json").unlink()
    for step in (38, 76):
        largest_state_file(copy, step).unlink()
    output = programs.here(small(copy, METHOD), capsys, code=1)
    assert "none of the 2 checkpoints" in output and "another --workdir" in output
    assert (copy / "checkpoints" / "76").is_dir()


def test_another_configuration_is_refused_with_the_differences(copy, capsys):
    output = programs.here(small(copy, METHOD, optim__momentum=0.8), capsys, code=1)
    assert "optim.momentum: 0.9 saved, 0.8 given" in output


def test_evaluation_of_a_checkpoint_gives_the_same_figures(reference):
    results = json.loads((reference[0] / "results.json").read_text())
    again = evaluate_run(reference[0])
    assert again["step"] == 76
    assert again["ensemble"]["per_class"] == results["ensemble"]["per_class"]
    earlier = evaluate_run(reference[0], step=38)
    assert earlier["epoch"] == 2
    with pytest.raises(CheckpointError, match="no checkpoint of step 5; it has"):
        evaluate_run(reference[0], step=5)


def test_a_model_is_loaded_in_three_lines(reference):
    results = json.loads((reference[0] / "results.json").read_text())
    images, labels = embedded_test_set()
    scores = ncl_jax.load(reference[0])(images)
    assert np.mean(scores.argmax(-1) == labels) == pytest.approx(results["ensemble"]["accuracy"])
    single = ncl_jax.load(reference[0], expert=1)
    assert np.mean(single(images).argmax(-1) == labels) == pytest.approx(results["experts"][1]["accuracy"])
    assert single.class_names[0] == "T-shirt/top"
    with pytest.raises(ValueError, match="uint8"):
        single(images.astype(np.float32))
    with pytest.raises(ValueError, match="expert=7"):
        ncl_jax.load(reference[0], expert=7)


def embedded_test_set():
    data = tiny.load_source("fashion_mnist_lt", "")
    return data.splits["test"].images, data.splits["test"].labels


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=configs/quickstart.py:methode=ncl"], "unknown argument 'methode=ncl' (did you mean method?)"),
        (["--config=configs/quickstart.py:method=nlc"], "method='nlc' must be one of: ce, balanced_softmax"),
        (["--config=configs/quickstart.py", "--config.optim.learning_rat=1"], "there are: optim.accumulate, optim.b"),
        (["--config=configs/quickstart.py", "--config.epochs=ten"], "invalid literal"),
        (["--config=configs/cifar100lt.py", *NO_DATA], "put cifar-100-python.tar.gz"),
        (["--config=configs/quickstart.py", "--coordinator=localhost:1"], "belong together"),
        (["--config=configs/missing.py"], "'configs/missing.py' does not exist"),
    ],
)  # fmt: skip
def test_a_bad_command_says_what_is_wrong(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(programs.ROOT)
    said, code = cli.attempt("train", [f"--workdir={tmp_path}/run", *arguments])
    assert message in said and code == 1
    assert not (tmp_path / "run").exists()
