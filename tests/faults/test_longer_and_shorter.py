"""A run's length changes: extended, finished off where it stopped; and its best checkpoint."""

import json
import pickle
import shutil

import harness
import numpy as np
import pytest
import tiny
from PIL import Image

import ncl_jax
from ncl_jax import cli
from ncl_jax.config import build, build_data, checks, loading
from ncl_jax.errors import CheckpointError
from ncl_jax.runs import durations
from ncl_jax.storage.directory import RunDir


def again(run, *arguments):
    """The run's command once more."""
    return cli.attempt("train", [*harness.TRAIN[1:], f"--workdir={run}", *arguments])


def lines(run, kind):
    return [r for r in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if r["kind"] == kind]


@pytest.mark.slow
def test_a_finished_run_is_extended_at_its_last_rate(finished, run, capfd):
    message, code = again(run, "--extend=2")
    output = capfd.readouterr().out
    assert code == 0, message
    assert "extended by 2 epochs, from 2 to 4: they are trained at the schedule's last learning rate, 0.01" in output
    assert "continuing at step 8" in output
    training, before = lines(run, "train"), lines(finished, "train")
    assert [r["loss"] for r in training[:2]] == [r["loss"] for r in before]
    assert [r["epoch"] for r in training] == [1, 2, 3, 4]
    assert training[3]["learning_rate"] == training[1]["learning_rate"]
    assert RunDir(run).read_results()["epoch"] == 4
    for arguments in ((), ("--extend=2",), ("--extend=1",)):  # the same command, with it or without, changes nothing
        before = harness.contents(run)
        assert again(run, *arguments) == ("", 0)
        assert "holds this run, finished" in capfd.readouterr().out and harness.contents(run) == before


@pytest.mark.slow
def test_a_run_extended_at_once_is_the_same_run(run, tmp_path):
    again(run, "--extend=1")
    again(tmp_path / "other", "--extend=1")
    figures = [RunDir(folder).read_results()["ensemble"] for folder in (run, tmp_path / "other")]
    assert figures[0] == figures[1]


@pytest.mark.slow
def test_a_stopped_run_is_finished_off_and_may_still_go_on(finished, run, capfd):
    expected = RunDir(finished).read_results()
    for name in ("results.json", "curve.png", "per_class.png"):
        (run / name).unlink()
    shutil.rmtree(run / "checkpoints" / "8")
    assert cli.attempt("evaluate", [f"--workdir={run}", "--finish"]) == ("", 0)
    results = RunDir(run).read_results()
    assert (results["epoch"], results["step"]) == (1, 4) and results.keys() == expected.keys()
    assert "step 4 (epoch 1)" in capfd.readouterr().out
    assert (run / "curve.png").stat().st_size and (run / "per_class.png").stat().st_size
    assert not RunDir(run).is_finished(2)


def test_answers_of_an_unfinished_run_say_so(run, tmp_path, capfd):
    Image.new("RGB", (28, 28)).save(tmp_path / "a.png")
    command = [f"--run={run}", str(tmp_path / "a.png")]
    assert cli.attempt("predict", command) == ("", 0) and " of 2: " not in capfd.readouterr().err
    shutil.rmtree(run / "checkpoints" / "8")
    assert cli.attempt("predict", command) == ("", 0)
    printed = capfd.readouterr()
    assert "epoch 1 of 2" in printed.err and "epoch 1 of 2" not in printed.out


def test_the_best_checkpoint_loads_and_is_a_test_figure(run):
    best = RunDir(run).read_results()["best_on_test"]
    model = ncl_jax.load(run, step="best")
    assert model.step == best["epoch"] * 4
    data = tiny.load_source("fashion_mnist_lt", "")
    assert np.mean(model(data.splits["test"].images).argmax(-1) == data.splits["test"].labels) == pytest.approx(
        best["accuracy"]
    )


def test_without_evaluations_there_is_no_best(run):
    for step in harness.STEPS:
        path = run / "checkpoints" / str(step) / "progress" / "metadata"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"best": None}))
    with pytest.raises(CheckpointError, match="no checkpoint that was evaluated: leave step='best' out"):
        ncl_jax.load(run, step="best")


def test_a_model_is_pickled(run):
    model = ncl_jax.load(run, expert=1)
    images = np.zeros((2, 28, 28, 3), np.uint8)
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy(images), model(images))
    assert (copy.class_names, copy.step) == (model.class_names, model.step)


def test_durations_in_words():
    assert [durations.duration(s) for s in (0.25, 5, 89, 120, 5400, 11100)] == [
        "0.2 s",
        "5 s",
        "89 s",
        "2 min",
        "1 h 30 min",
        "3 h 05 min",
    ]


def test_eval_batches_are_no_larger_than_the_test_set():
    from ncl_jax.runtime.devices import make_mesh

    config = tiny.tiny("", run__eval_batch=100000)
    checks.validate(config)
    data = build_data.data(config)
    feed = loading.test_feed(build.make_plan(config, data.facts, make_mesh(8)), data.test, "test")
    source, count = next(feed.batches(0))
    assert count == 1 and source.images.shape[1] == 1000
