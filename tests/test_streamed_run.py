"""Whole runs on a folder of images that are decoded as they are needed."""

import json
import os
import re
import shutil
import signal
import time

import numpy as np
import programs
import pytest
from test_own_images import make_folder, write_image
from test_processes import start_two

from ncl_jax.storage.directory import RunDir

pytestmark = pytest.mark.slow
FIELDS = {
    "data__feed": "stream", "data__augment": "moco_key", "data__resize": 18, "epochs": 4, "eval_every": 1,
    "optim__batch_size": 4, "run__eval_batch": 8, "checkpoint_every": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty-four training images of three classes."""
    root = make_folder(tmp_path_factory.mktemp("folder") / "data", ("train",), {"a": 24, "b": 12, "c": 8})
    return make_folder(root, ("test",), {"a": 5, "b": 4, "c": 4})


def command(folder, workdir, **fields):
    return programs.one_layer(workdir, f"folder:dir={folder},image_size=16", **FIELDS | fields)


@pytest.fixture(scope="module")
def reference(folder, cache, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("streamed") / "run"
    return workdir, programs.run(command(folder, workdir, data__threads=1), cache)


def content(workdir):
    """As `programs.content`, without where it was computed."""
    found = programs.content(workdir)
    for name in ("threads", "workers"):
        found["results"]["config"]["data"].pop(name)
    return found


def test_a_streamed_run_says_what_it_is(reference, folder):
    workdir, output = reference
    assert "recipe: data.image_size=16 data.augment=moco_key" in output and "% waiting for data" in output
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert all(0 <= line["waited"] <= 1 for line in lines if line["kind"] == "train")
    files = RunDir(workdir).read_files()
    assert len(files) == 57 and files[0] == f"train\ta\ttrain/a/0.jpg\t{(folder / 'train/a/0.jpg').stat().st_size}"
    assert json.loads((workdir / "results.json").read_text())["class_counts"] == [24, 12, 8]


def test_killed_it_goes_on_to_the_same_bit_with_other_threads_and_workers(reference, folder, cache, tmp_path):
    arguments = command(folder, tmp_path / "run", data__threads=1)
    programs.stop_after_epoch(arguments, cache, tmp_path / "run", 2, signal.SIGKILL)
    # Whether a checkpoint was there yet depends on the moment.
    programs.run(command(folder, tmp_path / "run", data__threads=3, data__workers=2), cache)
    assert content(tmp_path / "run") == content(reference[0])


def test_ctrl_c_stops_the_run_and_its_workers(reference, folder, cache, tmp_path):
    arguments = command(folder, tmp_path / "run", data__threads=2, data__workers=1)
    process = programs.start(arguments, cache, new_group=True)
    programs.wait_for_epoch(process, tmp_path / "run", 1)
    os.killpg(process.pid, signal.SIGINT)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 130 and "Traceback" not in output, output
    with pytest.raises(ProcessLookupError):  # as soon as the workers have ended too
        for _ in range(300):
            os.killpg(process.pid, 0)
            time.sleep(0.1)
    programs.run(arguments, cache)
    assert content(tmp_path / "run") == content(reference[0])


def test_two_processes_stream_what_one_does(folder, cache, tmp_path, capsys):
    fields = FIELDS | {"run__data_devices": 2}
    processes = start_two(tmp_path / "two", cache, fields, config=f"folder:dir={folder},image_size=16")
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    programs.here(command(folder, tmp_path / "one", run__data_devices=2), capsys)
    contents = [programs.content(tmp_path / name) for name in ("two", "one")]
    losses = [[line["loss"] for line in content["lines"] if line["kind"] == "train"] for content in contents]
    assert len(losses[0]) == 4
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    accuracies = [content["results"]["ensemble"]["accuracy"] for content in contents]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.08)


def test_unreadable_files_stop_a_run_or_are_left_out(folder, capsys, tmp_path):
    data = shutil.copytree(folder, tmp_path / "data")
    (data / "train" / "a" / "3.jpg").write_bytes(b"")
    (data / "train" / "c" / "1.jpg").write_bytes((data / "train" / "c" / "1.jpg").read_bytes()[:300])
    (data / "test" / "b" / "0.jpg").write_bytes(b"no image")
    output = programs.here(command(data, tmp_path / "stopped", data__workers=1), capsys, code=1)
    assert "cannot be read as an image" in output and "ncl-jax inspect finds" in output and "Traceback" not in output
    output = programs.here(command(data, tmp_path / "stopped", data__skip_unreadable=True, epochs=2), capsys)
    assert re.search(r"skipped in train .*: 2 \(1 of a, 1 of c\)", output)
    facts = json.loads((tmp_path / "stopped" / "dataset.json").read_text())
    assert facts["class_counts"] == [23, 12, 7] and facts["skipped"] == {"train": {"a": 1, "c": 1}, "test": {"b": 1}}


CHANGES = {
    "gone": (lambda data: (data / "train/b/5.jpg").unlink(), r"files gone: 1 \(train train/b/5.jpg\)"),
    "new": (lambda data: write_image(data / "test/a/x.png", 5), r"files new: 1 \(test test/a/x.png\)"),
    "moved": (
        lambda data: (data / "train/b/5.jpg").rename(data / "train/c/5b.jpg"),
        r"files gone: 1 \(train train/b/5.jpg\); files new: 1 \(train train/c/5b.jpg\)",
    ),
    "changed": (lambda data: write_image(data / "train/a/7.jpg", 7, (60, 60)), r"files changed: 1 \(train train/a/7.j"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_folder_that_changed_is_refused(reference, folder, capsys, tmp_path, name):
    """By a run that has not ended, and its data."""
    change, said = CHANGES[name]
    shutil.copytree(folder, tmp_path / "data")
    shutil.copytree(reference[0], tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    change(tmp_path / "data")
    output = programs.here(command(tmp_path / "data", tmp_path / "run", data__threads=1), capsys, code=1)
    assert re.search(said, output) and "its images have changed since it began" in output, output
