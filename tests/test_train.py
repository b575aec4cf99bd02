"""Bad input to a run, in the process: nothing is compiled, nothing is lost, the message names the value."""

import json
import os
from importlib import metadata

import numpy as np
import pytest
from programs import SHRINK
from tiny import FACTS, load_config

from ncl_jax._version import __version__
from ncl_jax.config import build_data, precision
from ncl_jax.errors import ConfigError, DataError, Diverged, WriteError
from ncl_jax.runs import messages
from ncl_jax.runs.setup import restore_history
from ncl_jax.runs.train import train
from ncl_jax.storage import records
from ncl_jax.storage.directory import RunDir


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optim__batch_size": 2000}, "optim.batch_size=2000 is larger than the 1236 training images"),
        ({"loss__num_hard": 11}, "loss.num_hard=11 is larger than the number of classes, 10"),
        ({"data__imbalance": 0.5}, "data.imbalance=0.5 must be at least 1"),
        ({"contrast__temperature": 0.0}, "contrast.temperature=0.0 must be above 0"),
        ({"contrast__momentum": 1.0}, r"contrast.momentum=1.0 must be in \[0, 1\)"),
        ({"contrast__queue": 0}, "contrast.queue=0 must be at least 1"),
        ({"loss__copies": 0}, "loss.copies=0 must be at least 1"),
        ({"loss__copies": 4}, "loss.copies=4 needs loss.name=nclpp"),
        ({"loss__name": "nclpp"}, r"loss.copies=1 must be at least 2 for NCL\+\+"),
        ({"loss__name": "nclpp", "loss__copies": 4, "contrast__weight": 1.0}, "set contrast.weight=0, not 1.0"),
        ({"epochs": 10}, r"optim.milestones=\(16, 18\) are after the last epoch, 10: .* :epochs=10"),
        ({"run__expert_devices": 2}, "run.expert_devices=2 must divide model.num_experts=3"),
        ({"run__expert_devices": 99}, "does not match the 8"),
        ({"run__data_devices": 7}, "optim.batch_size=64 cannot be split over 7 devices and optim.accumulate=1"),
        ({"run__data_devices": 8, "optim__accumulate": 16}, "cannot be split over 8 devices and optim.accumulate=16"),
    ],
)
def test_a_bad_value_is_named_before_anything_is_written(fields, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        train(load_config("quickstart", **fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_missing_data_says_which_files_to_put_where(tmp_path):
    config = load_config("cifar10lt", data__dir=str(tmp_path / "none"), data__download=False)
    with pytest.raises(DataError, match=r"put cifar-10-python\.tar\.gz .* into .*none"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_embedded_data_has_one_imbalance(tmp_path):
    with pytest.raises(DataError, match="data.imbalance=50.0: the data fashion_mnist_lt is fixed at 100"):
        train(load_config("quickstart", data__imbalance=50.0), tmp_path / "run")


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"cannot write to --workdir=.*file.run"):
        train(load_config("quickstart"), tmp_path / "file" / "run")
    if os.getuid():  # root may write anywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(WriteError, match="cannot write to"):
            train(load_config("quickstart"), tmp_path / "locked")


def test_other_data_in_the_same_directory_is_refused(tmp_path):
    config = precision.as_begun(load_config("quickstart"), None)
    data = build_data.data(config)
    config.data.dir = str(tmp_path)
    RunDir(tmp_path).begin(config, data._replace(facts=data.facts._replace(rows_checksum="0")), {})
    RunDir(tmp_path).check(config, data)  # nothing has been saved yet
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    with pytest.raises(ConfigError, match="the data: another than in"):
        train(config, tmp_path)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    fields = {name: value for name, value in SHRINK.items() if name != "optim.milestones"}
    config = load_config("quickstart", **fields, optim__milestones=(2,), model__backbone="one_layer")
    config.checkpoint_every, config.optim.warmup_epochs = 1, 0
    config.optim.learning_rate = 1e18
    with pytest.raises(Diverged, match=r"step \d+ is not finite: loss=.*nil=.*(no checkpoint yet|checkpoint is step)"):
        train(config, tmp_path / "run")


def test_a_second_process_is_kept_out(tmp_path):
    directory = RunDir(tmp_path)
    with directory.locked(), pytest.raises(ConfigError, match="another process is training in"), directory.locked():
        pass
    with directory.locked():
        pass


def record(dead, mean):
    values = {
        "train_accuracy": [0.5, 0.5],
        "grad_norm": [1, 3],
        "dead_features": [dead] * 2,
        "feature_mean": [mean] * 2,
    }
    history = {name: np.array(value, np.float32) for name, value in {"loss": [2, 4], **values}.items()}
    return records.epoch(history | {"parts": {"nil": history["loss"]}}, 3, 6, 0.1, 100.0)


def test_an_epochs_record_holds_means_and_the_largest_gradient():
    result = record(0.1, 0.8)
    assert (result["epoch"], result["step"], result["loss"], result["parts"]) == (3, 6, 3, {"nil": 3})
    assert (result["grad_norm"], result["grad_norm_max"]) == (2.0, 3.0)
    json.dumps(result)


def test_collapsed_features_are_said_in_plain_words():
    assert messages.collapse_warning(record(0.1, 0.8)) is None
    assert "the features have collapsed: 80 %" in messages.collapse_warning(record(0.8, 0.8))
    assert "their mean is 0.001" in messages.collapse_warning(record(0.0, 0.001))


def test_results_are_written_by_a_checkout_that_was_never_installed(monkeypatch):
    version = metadata.version

    def installed(name):
        if name == "ncl-jax":
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", installed)
    progress = {"best_on_test": None, "seconds": 1.0, "images_per_second": [1.0]}
    versions = records.final({}, FACTS, progress, "1 x CPU", {})["versions"]
    assert versions["ncl-jax"] == __version__ and versions["jax"] == version("jax")


def test_a_run_stopped_within_an_epoch_keeps_its_metrics_unless_the_code_has_others():
    zeros = {"loss": np.zeros(4, np.float32), "parts": {"nil": np.zeros(4, np.float32)}}
    saved = json.loads(json.dumps({"parts": {"nil": [0.5]}, "loss": [0.1]}))
    history, known_from = restore_history(zeros, saved, 1)
    assert known_from == 0 and history["loss"].dtype == np.float32
    assert history["loss"].tolist() == [np.float32(0.1), 0, 0, 0] and history["parts"]["nil"][0] == 0.5
    for other in ({}, {"loss": [0.1]}, {"loss": [0.1], "parts": {"nil": [0.5], "kl": [0.5]}}):
        assert restore_history(zeros, other, 1)[1] == 1
