"""A run stopped in the middle of an epoch, at a step that the test chooses, goes on: on its own devices to the same
bits, on another number of devices to the same numbers. tests/test_run.py stops whole programs."""

import itertools
import shutil
import time
from types import SimpleNamespace

import numpy as np
import pytest
from programs import SHRINK, content, terminated_at
from tiny import load_config

from ncl_jax.errors import Interrupted
from ncl_jax.evaluation.step import make_evaluate
from ncl_jax.runs.setup import compile_step
from ncl_jax.runs.train import train
from ncl_jax.storage.directory import RunDir

HOUR = 3600.0
DRAWS = {"data__augment": "crop_flip"}


def config(devices):
    """The shrunk quickstart with self-supervision."""
    fields = {name.replace(".", "__"): value for name, value in SHRINK.items()} | {"optim__milestones": (4, 5)}
    return load_config(
        "quickstart", "method=ncl", **fields | {"model__backbone": "one_layer", "run__data_devices": devices, **DRAWS}
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run on one device that nothing stopped; by its clock an evaluation takes an hour."""
    workdir, late = tmp_path_factory.mktemp("whole"), []

    def make_slow(*arguments):
        evaluate = make_evaluate(*arguments)
        return lambda variables: late.append(HOUR) or evaluate(variables)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ncl_jax.runs.setup.make_evaluate", make_slow)
        patch.setattr("ncl_jax.runs.epoch.time", SimpleNamespace(perf_counter=lambda: time.perf_counter() + sum(late)))
        train(config(1), workdir)
    assert len(late) == 4
    return workdir


def stop(workdir, devices, monkeypatch):
    """A run that gets SIGTERM in its third epoch."""
    stopped = pytest.raises(Interrupted, match="stopped at step 50, saved")
    with terminated_at(50, monkeypatch), stopped:  # an epoch has 19 steps
        train(config(devices), workdir)


@pytest.mark.slow
def test_the_steps_time_is_without_evaluations(whole):
    assert 0 < RunDir(whole).read_results()["seconds"] < HOUR


@pytest.mark.slow
def test_a_run_stopped_within_an_epoch_saves_that_step_and_continues(whole, tmp_path, monkeypatch):
    stop(tmp_path, 1, monkeypatch)
    train(config(1), tmp_path)
    assert content(tmp_path) == content(whole)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(8, 1), (1, 8)])
def test_a_run_continues_on_another_number_of_devices(whole, tmp_path, monkeypatch, before, after):
    stop(tmp_path, before, monkeypatch)
    train(config(after), tmp_path)
    losses = [[line["loss"] for line in content(w)["lines"] if line["kind"] == "train"] for w in (tmp_path, whole)]
    assert len(losses[0]) == 6
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)


@pytest.mark.slow
def test_checkpoints_and_evaluations_by_the_clock_change_nothing(whole, tmp_path, monkeypatch):
    """A run that saves within its epochs and is evaluated after each is killed in its third."""

    def compile_and_fail(*arguments):
        advance, calls = compile_step(*arguments), itertools.count(1)

        def step(*arguments):
            if next(calls) == 50:
                raise OSError("killed")
            return advance(*arguments)

        return step

    often = config(1)
    often.checkpoint_minutes, often.eval_minutes = 1e-3, 1e-9
    with monkeypatch.context() as patch:
        patch.setattr("ncl_jax.runs.setup.compile_step", compile_and_fail)
        with pytest.raises(OSError, match="killed"):
            train(often, tmp_path)
    assert any(int(path.name) % 19 for path in (tmp_path / "checkpoints").glob("[0-9]*"))
    train(config(1), tmp_path)
    found, expected = content(tmp_path), content(whole)
    evaluated = [line["epoch"] for line in found["lines"] if line["kind"] == "evaluation"]
    assert evaluated == [1, 2, 3, 4, 6] or evaluated == [1, 2, 4, 6]  # the third may have been computed again
    kept = [line for line in found["lines"] if line["kind"] == "train" or line["epoch"] != 3]
    assert kept == expected["lines"]
    assert (found["fingerprint"], found["results"]["best_on_test"]) == (
        expected["fingerprint"], expected["results"]["best_on_test"],
    )  # fmt: skip


@pytest.mark.slow
def test_a_run_with_a_limit_that_all_epochs_fit_in_is_the_same_run(whole, tmp_path):
    train(config(1), tmp_path, limit=1e6)
    assert content(tmp_path) == content(whole)


@pytest.mark.slow
def test_a_run_ends_when_its_time_is_up_and_may_be_continued(whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("ncl_jax.runs.budget.is_spent", lambda run, epoch: epoch == 3)
        results = train(config(1), tmp_path)
    assert (results["epoch"], results["step"]) == (3, 57) and (tmp_path / "report.html").exists()
    train(config(1), tmp_path)
    assert content(tmp_path) == content(whole)


@pytest.mark.slow
def test_a_run_ends_within_an_epoch_when_its_time_is_up(tmp_path, monkeypatch):
    left = iter([1e6] * 60)
    with monkeypatch.context() as patch:
        patch.setattr("ncl_jax.runs.timing.Pace.left", lambda pace: next(left, 0.0))
        results = train(config(1), tmp_path)
    assert results["step"] % 19 and results["epoch"] == results["step"] // 19
    assert RunDir(tmp_path).has_checkpoints() and not RunDir(tmp_path).is_finished(6)


@pytest.mark.slow
def test_the_epochs_that_fit_are_kept_with_the_run(tmp_path, monkeypatch):
    """Where two of six epochs fit, the run is that of two, and stays so wherever it continues."""

    def measure(run, between):
        run.pace.evaluation = 0.0

    with monkeypatch.context() as patch:
        patch.setattr("ncl_jax.runs.budget.measure", measure)
        patch.setattr("ncl_jax.runs.budget.most_epochs", lambda *arguments: 2)
        results = train(config(1), tmp_path, limit=1e6)
    assert results["epoch"] == 2 and RunDir(tmp_path).read_config().scaled.epochs == 6
    assert train(config(1), tmp_path) == RunDir(tmp_path).read_results()  # finished, with the limit or without it
    shutil.rmtree(tmp_path / "checkpoints" / "38")
    (tmp_path / "results.json").unlink()
    continued = train(config(1), tmp_path)
    assert (continued["epoch"], continued["ensemble"]) == (2, results["ensemble"])
