"""SIGTERM in the middle of an epoch, at a step that the test chooses; tests/test_run.py stops whole programs."""

import itertools
import os
import signal

import pytest
from programs import SHRINK, content
from test_train import load_config
from tiny import one_layer  # noqa: F401

from ncl_jax.train import Interrupted, compile_step, train


@pytest.mark.slow
def test_a_run_stopped_within_an_epoch_saves_that_step_and_continues(tmp_path, monkeypatch):
    fields = {name.replace(".", "__"): value for name, value in SHRINK.items()} | {"optim__milestones": (4, 5)}
    train(load_config("quickstart", "method=ncl", **fields), tmp_path / "whole")

    def compile_and_stop(*arguments):
        advance, calls = compile_step(*arguments), itertools.count(1)

        def stop(*arguments):
            if next(calls) == 50:  # an epoch has 19 steps
                os.kill(os.getpid(), signal.SIGTERM)
            return advance(*arguments)

        return stop

    with monkeypatch.context() as patch:
        patch.setattr("ncl_jax.train.compile_step", compile_and_stop)
        with pytest.raises(Interrupted, match="stopped at step 50, saved"):
            train(load_config("quickstart", "method=ncl", **fields), tmp_path / "stopped")
    train(load_config("quickstart", "method=ncl", **fields), tmp_path / "stopped")
    assert content(tmp_path / "stopped") == content(tmp_path / "whole")
