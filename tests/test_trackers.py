"""Trackers, with modules that stand in for their libraries: what they are sent, continued runs, and what goes wrong."""

import json
import sys
import types

import pytest
from tiny import load_config

from ncl_jax.errors import ConfigError
from ncl_jax.runs import setup
from ncl_jax.runs.train import train
from ncl_jax.storage import trackers
from ncl_jax.storage.directory import RunDir
from ncl_jax.storage.log import read_metrics


class FakeWandb(types.ModuleType):
    """Keeps what each run was sent, by the run's id."""

    def __init__(self):
        super().__init__("wandb")
        self.runs, self.started = {}, []

    def init(self, **settings):
        self.started.append(settings)
        sent = self.runs.setdefault(settings["id"], {"log": [], "summary": {}, "codes": []})
        return types.SimpleNamespace(
            log=lambda values, step: sent["log"].append((step, values)),
            summary=sent["summary"],
            finish=lambda exit_code: sent["codes"].append(exit_code),
        )


class FakeMlflow(types.ModuleType):
    """Likewise; its runs are named by numbers."""

    def __init__(self):
        super().__init__("mlflow")
        self.runs = {}

    def MlflowClient(self):
        return self

    def set_experiment(self, name):
        return types.SimpleNamespace(experiment_id=name)

    def create_run(self, experiment, run_name):
        name = str(len(self.runs))
        self.runs[name] = {"log": [], "params": {}, "states": [], "in": (experiment, run_name)}
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=name))

    def log_params(self, params, run_id):
        self.runs[run_id]["params"] |= params

    def log_metrics(self, values, step, run_id):
        self.runs[run_id]["log"].append((step, values))

    def update_run(self, run_id, status):
        self.runs[run_id]["states"].append(status)

    def set_terminated(self, run_id, status):
        self.runs[run_id]["states"].append(status)


@pytest.fixture
def library(request, monkeypatch):
    """The module that stands in for a tracker's library."""
    for variable in ("WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(variable, raising=False)
    module = {"wandb": FakeWandb, "mlflow": FakeMlflow}[request.param]()
    monkeypatch.setitem(sys.modules, request.param, module)
    return module


def config():
    """A run of an epoch that takes a moment."""
    fields = {"model__backbone": "one_layer", "model__num_experts": 2, "optim__batch_size": 256}
    return load_config("quickstart", "method=ce,epochs=1", run__data_devices=1, **fields)


def make_directory(path):
    """A run's directory with its configuration."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config().to_dict()))
    return RunDir(path)


def log(directory, name, step, finished):
    """What a run that begins at a step logs in two steps."""
    log = setup.open_log(directory, step, 4, 1, name)
    for done in (step + 1, step + 2):
        log.write("train", {"step": done, "epoch": done, "loss": done / 2, "parts": {"nil": 0.5}})
    if finished:
        log.finish({"ensemble": {"accuracy": 0.75, "per_class": [1.0, 0.5]}, "step": step + 2})
    log.close()


@pytest.mark.parametrize("library", ["wandb", "mlflow"], indirect=True)
def test_a_continued_run_goes_on_in_its_own(library, tmp_path):
    directory = make_directory(tmp_path / "run")
    for step in (0, 2):
        log(directory, library.__name__, step, finished=step == 2)
    ((identity, sent),) = library.runs.items()
    assert directory.read_tracker(library.__name__) == identity
    expected = [(step, {"train/step": step, "train/epoch": step, "train/loss": step / 2, "train/parts/nil": 0.5})
                for step in (1, 2, 3, 4)]  # fmt: skip
    assert sent["log"][:4] == expected
    results = {"results/ensemble/accuracy": 0.75, "results/step": 4}
    if library.__name__ == "wandb":
        assert sent["codes"] == [1, 0] and sent["summary"] == results  # stopped, finished
        assert library.started[0]["project"] == "ncl_jax" and library.started[0]["config"]["optim.batch_size"] == 256
    else:
        assert sent["states"] == ["KILLED", "RUNNING", "FINISHED"] and sent["log"][4:] == [(4, results)]
        assert sent["in"] == ("ncl_jax", "run") and sent["params"]["optim.batch_size"] == 256


@pytest.mark.slow
@pytest.mark.parametrize("library", ["mlflow"], indirect=True)
def test_a_trained_run_is_tracked_with_its_results(library, tmp_path):
    results = train(config(), tmp_path, tracker="mlflow")
    (sent,) = library.runs.values()
    values = {name: value for _, values in sent["log"] for name, value in values.items()}
    assert values["evaluation/ensemble/accuracy"] == values["results/ensemble/accuracy"]
    assert values["results/ensemble/accuracy"] == results["ensemble"]["accuracy"]
    assert [step for step, values in sent["log"] if "train/loss" in values] == [4]
    assert not any(name.startswith("results/config") for name in values)


def fail(*arguments, **keywords):
    """A library's call that fails."""
    raise RuntimeError("the server\nhas gone")


@pytest.mark.parametrize("library", ["wandb"], indirect=True)
@pytest.mark.parametrize("method", ["__init__", "write", "finish", "close"])
def test_a_tracker_that_fails_is_switched_off_and_the_log_goes_on(library, method, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trackers.Wandb, method, fail)
    directory = make_directory(tmp_path / "run")
    log(directory, "wandb", 0, finished=True)
    warning = "warning: --tracker=wandb failed (RuntimeError: the server has gone); the run continues without it\n"
    assert capsys.readouterr().out == warning
    assert [record["step"] for record in read_metrics(directory.metrics)] == [1, 2]


@pytest.mark.parametrize("library", ["wandb"], indirect=True)
def test_the_first_process_alone_has_a_tracker(library, tmp_path, monkeypatch):
    monkeypatch.setattr(setup, "is_first", lambda: False)
    setup.open_log(make_directory(tmp_path / "run"), 0, 1, 1, "wandb").finish({"step": 1})
    assert not library.started and {path.name for path in (tmp_path / "run").iterdir()} == {"config.json"}


def test_an_unknown_tracker_and_a_missing_library_stop_before_anything_is_written(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="--tracker='comet' must be one of: wandb, mlflow"):
        train(config(), tmp_path / "run", tracker="comet")
    for name in trackers.TRACKERS:
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ConfigError, match=rf"--tracker={name} needs its library .*pip install '{name}>="):
            train(config(), tmp_path / "run", tracker=name)
    assert not (tmp_path / "run").exists()
