"""A run of two real processes on one machine, each with one CPU device."""

import json
import math
import re
import signal
import socket

import numpy as np
import one_layer
import programs
import pytest

from ncl_jax.data.features.cache import ABOUT, KEY_BYTES
from ncl_jax.storage.checkpoint import Checkpoints

pytestmark = pytest.mark.slow
assert one_layer.OneLayer  # imported for the backbone that it adds
METHOD = "configs/quickstart.py:method=ncl_supervised"
FIELDS = {
    "epochs": 4, "eval_every": 1, "checkpoint_every": 1, "optim__batch_size": 128, "optim__learning_rate": 0.01,
    "optim__milestones": "(2,)", "run__data_devices": 2,
    "data__augment": "crop_flip",
}  # fmt: skip


def start_two(workdir, cache, fields=FIELDS, config=METHOD):
    """Starts both processes of a run."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"--coordinator=localhost:{free.getsockname()[1]}"
    arguments = [*programs.one_layer(workdir, config, **fields), coordinator, "--num_processes=2"]
    return [programs.start([*arguments, f"--process_id={i}"], cache) for i in range(2)]


def run_two(workdir, cache):
    """Runs both to their end; returns what they printed."""
    processes = start_two(workdir, cache)
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    return outputs


@pytest.fixture(scope="module")
def together(cache, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("together") / "run"
    return workdir, run_two(workdir, cache)


def test_two_processes_compute_what_one_does(together, tmp_path, capsys):
    programs.here(programs.one_layer(tmp_path / "one", METHOD, **FIELDS), capsys)
    contents = [programs.content(workdir) for workdir in (together[0], tmp_path / "one")]
    losses = [[line["loss"] for line in content["lines"] if line["kind"] == "train"] for content in contents]
    assert len(losses[0]) == 4
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    assert contents[0]["results"]["class_counts"] == contents[1]["results"]["class_counts"]


def test_only_the_first_process_speaks(together):
    first, second = together[1]
    assert "epoch 4/4" in first and "best on the test set" in first
    assert not re.search("epoch|accuracy", second)


def test_a_killed_process_ends_the_other_and_the_command_continues(together, cache, tmp_path):
    for killed, epoch in ((1, 2), (0, 3)):
        processes = start_two(tmp_path / "run", cache)
        programs.wait_for_epoch(processes[0], tmp_path / "run", epoch)
        processes[killed].send_signal(signal.SIGKILL)
        other = processes[1 - killed]
        output = other.communicate(timeout=120)[0]
        processes[killed].communicate()
        # Who notices first is a matter of milliseconds: the collective, or JAX's own watch, which aborts the process.
        assert other.returncode != 0
        assert re.search(f"error: process {1 - killed}: .*another one died.*the same command|another task died", output)
    assert re.search(r"continuing at step (9|18|27)\b", run_two(tmp_path / "run", cache)[0])
    assert programs.content(tmp_path / "run") == programs.content(together[0])


def test_sigterm_to_one_stops_both_at_the_same_step(cache, tmp_path):
    """The run is far too long to end before the signal has gone round."""
    long = FIELDS | {"epochs": 1000, "eval_every": 1000, "checkpoint_every": 1000}
    processes = start_two(tmp_path / "run", cache, long)
    programs.wait_for_epoch(processes[0], tmp_path / "run", 1)
    processes[1].send_signal(signal.SIGTERM)
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [143, 143]
    stopped = [re.search(r"stopped .*, saved: the same command continues", output)[0] for output in outputs]
    assert stopped[0] == stopped[1]
    (step,) = Checkpoints(tmp_path / "run", read_only=True).steps()
    assert f"at step {step}," in stopped[0] or f"after epoch {step // 9}," in stopped[0]


def cached_rows(root):
    """The features in a cache, each by its kind and its image's key."""
    for path in sorted(root.rglob("*.rows")):
        about = json.loads((path.parent / ABOUT).read_text())
        shape = (about["views of each image"], about["features"])
        content, each = path.read_bytes(), KEY_BYTES + 4 * math.prod(shape)
        number = len(content) // each
        rows = np.frombuffer(content, "<f4", offset=KEY_BYTES * number).reshape(number, *shape)
        yield from (((path.parent.name, content[KEY_BYTES * n : KEY_BYTES * (n + 1)]), rows[n]) for n in range(number))


def test_two_processes_share_the_work_of_features(together, cache, tmp_path, capsys):
    frozen = FIELDS | {
        "epochs": 1, "optim__milestones": "()", "optim__name": "adamw", "data__cached_views": 1, "model__freeze": "all",
        "model__pretrained": together[0], "model__pretrained_expert": 0, "model__classifier": "cosine",
        "model__head_start": "class_mean",
    }  # fmt: skip
    processes = start_two(tmp_path / "two", cache, frozen | {"data__cache": tmp_path / "of two"})
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    programs.here(programs.one_layer(tmp_path / "one", METHOD, **frozen, data__cache=tmp_path / "of one"), capsys)
    two, one = (dict(cached_rows(tmp_path / of)) for of in ("of two", "of one"))
    assert two.keys() == one.keys() and len(list((tmp_path / "of two").rglob("*.rows"))) > 4
    for name, row in two.items():  # equal but for the order in which threads add up
        np.testing.assert_allclose(row, one[name], rtol=1e-5, atol=1e-6)
    contents = [programs.content(tmp_path / name) for name in ("two", "one")]
    losses = [[line["loss"] for line in content["lines"] if line["kind"] == "train"] for content in contents]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    for name, row in contents[0]["results"]["baselines"].items():
        assert row["accuracy"] == pytest.approx(contents[1]["results"]["baselines"][name]["accuracy"], abs=0.01)
