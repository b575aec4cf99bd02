"""A run stopped in the middle of an epoch, at a step that the test chooses, goes on: on its own devices to the same
bits, on another number of devices to the same numbers. tests/test_run.py stops whole programs."""

import itertools
import os
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
from programs import SHRINK, content
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
        patch.setattr("ncl_jax.runs.train.time", SimpleNamespace(perf_counter=lambda: time.perf_counter() + sum(late)))
        train(config(1), workdir)
    assert len(late) == 3
    return workdir


def stop(workdir, devices, monkeypatch):
    """A run that gets SIGTERM in its third epoch."""

    def compile_and_stop(*arguments):
        advance, calls = compile_step(*arguments), itertools.count(1)

        def step(*arguments):
            if next(calls) == 50:  # an epoch has 19 steps
                os.kill(os.getpid(), signal.SIGTERM)
            return advance(*arguments)

        return step

    with monkeypatch.context() as patch:
        patch.setattr("ncl_jax.runs.setup.compile_step", compile_and_stop)
        with pytest.raises(Interrupted, match="stopped at step 50, saved"):
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
