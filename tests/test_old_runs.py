"""A run of the code before the training state had a version (tests/data/run_v0.zip: quickstart's method=ncl, tiny)."""

import json

import numpy as np
import pytest
import tiny

import ncl_jax
from ncl_jax.errors import ConfigError
from ncl_jax.runs.evaluate import evaluate_run
from ncl_jax.runs.train import train
from ncl_jax.storage.directory import RunDir


@pytest.fixture
def old(old_run):
    return old_run


def test_it_evaluates_to_its_own_figures(old):
    results = json.loads((old / "results.json").read_text())
    again = evaluate_run(old)
    assert (again["step"], again["epoch"]) == (38, 2)
    assert again["ensemble"]["per_class"] == results["ensemble"]["per_class"]
    np.testing.assert_allclose(again["ensemble"]["nll"], results["ensemble"]["nll"], rtol=1e-5)


def test_it_loads(old):
    data = tiny.load_source("fashion_mnist_lt", "")
    scores = ncl_jax.load(old)(data.splits["test"].images)
    results = json.loads((old / "results.json").read_text())
    assert np.mean(scores.argmax(-1) == data.splits["test"].labels) == pytest.approx(results["ensemble"]["accuracy"])


def test_finished_it_answers_without_its_data(old, capsys):
    config = RunDir(old).read_config()
    config.data.dir = "/nowhere"
    before = config.to_json()
    results = train(config, old)
    assert results == json.loads((old / "results.json").read_text())
    assert "holds this run, finished" in capsys.readouterr().out
    assert config.to_json() == before  # the caller's configuration is not changed


def test_unfinished_it_says_that_it_cannot_be_continued(old):
    (old / "results.json").unlink()
    with pytest.raises(ConfigError, match=r"version 0 of the training state.* cannot continue\. It can be evaluated"):
        train(RunDir(old).read_config(), old)
