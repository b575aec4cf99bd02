"""Helpers that start the real commands on a shrunk quickstart."""

import contextlib
import itertools
import json
import os
import pathlib
import signal
import sys
import time

import forks

from ncl_jax import cli
from ncl_jax.runs.setup import compile_step
from ncl_jax.storage.checkpoint import Checkpoints

ROOT = pathlib.Path(__file__).parent.parent
SHRINK = {  # augmentation is most of such a run's compilation
    "epochs": 6, "eval_every": 2, "checkpoint_every": 2, "model.width": 4, "model.num_experts": 2,
    "optim.milestones": "(4,5)", "loss.ramp_steps": 30, "run.data_devices": 1, "data.augment": "none",
    "contrast.augment": "none",
}  # fmt: skip


def one_layer(workdir, config="configs/quickstart.py", **fields):
    """As `command`, with a network that stands in for the ResNet: for tests of everything around it."""
    arguments = command(workdir, config, **fields | {"model__backbone": "one_layer"})
    return [sys.executable, str(ROOT / "tests" / "one_layer.py"), *arguments[3:]]


def command(workdir, config="configs/quickstart.py", **fields):
    """The command line of a shrunk run; a field with two underscores is nested: optim__batch_size=32."""
    fields = SHRINK | {name.replace("__", "."): value for name, value in fields.items()}
    overrides = [f"--config.{name}={value}" for name, value in fields.items()]
    return [sys.executable, "-m", "ncl_jax.main", f"--config={config}", f"--workdir={workdir}", *overrides]


def environment(cache):
    """The variables of a program on CPU, with a compilation cache shared between the tests."""
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(ROOT),
    }


def start(arguments, cache, new_group=False, **variables):
    """Starts a command in the tests' `environment` with other `variables`, in a process group of its own if asked; see
    forks.py."""
    assert arguments[0] == sys.executable
    return forks.start(arguments[1:], environment(cache) | variables, ROOT, new_group)


def run(arguments, cache, code=0, **variables):
    """Runs a command to its end and returns its output; fails on another exit code than `code`."""
    process = start(arguments, cache, **variables)
    try:
        output = process.communicate(timeout=300)[0]
    finally:
        process.kill()  # where it took too long
    assert process.returncode == code, output
    return output


def attempt(arguments):
    """Trains in the tests' process, see `cli.attempt`. `arguments` are those of a whole program."""
    first = next(place for place, word in enumerate(arguments) if word.startswith("--"))
    return cli.attempt("train", arguments[first:])


def finish(arguments):
    """Trains to the end in the tests' process; fails where that does."""
    assert attempt(arguments) == ("", 0)


def here(arguments, capsys, code=0):
    """Runs a command in the tests' process; returns its output. `arguments` are those of a whole program."""
    capsys.readouterr()
    message, ended = attempt(arguments)
    output = capsys.readouterr()
    assert ended == code, message
    return output.out + output.err + message


def wait_for_epoch(process, workdir, epoch):
    """Returns as soon as the log shows the epoch, or the process has ended."""
    path = pathlib.Path(workdir) / "metrics.jsonl"
    deadline, lines = time.monotonic() + 300, ""
    while process.poll() is None and time.monotonic() < deadline:
        if path.exists() and path.stat().st_size > len(lines):
            lines = path.read_text()
            if f'"kind": "train", "epoch": {epoch},' in lines:
                return
        time.sleep(0.002)


def stop_after_epoch(arguments, cache, workdir, epoch, number):
    """Sends a signal as soon as the log shows the epoch; returns the output and the exit code."""
    process = start(arguments, cache)
    wait_for_epoch(process, workdir, epoch)
    process.send_signal(number)
    output = process.communicate(timeout=120)[0]
    assert process.returncode in (-signal.SIGKILL, 143), output
    return output, process.returncode


def content(workdir):
    """What must be equal between two runs: final fingerprint, logged figures, results; without times."""
    workdir = pathlib.Path(workdir)
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    results = json.loads((workdir / "results.json").read_text())
    for record in (*lines, results):
        for name in ("images_per_second", "seconds", "waited"):
            record.pop(name, None)
    last = Checkpoints(workdir, read_only=True).steps()[-1]
    fingerprint = json.loads((workdir / "checkpoints" / str(last) / "fingerprint" / "metadata").read_text())
    return {"step": last, "fingerprint": fingerprint, "lines": lines, "results": results}


@contextlib.contextmanager
def terminated_at(number, monkeypatch):
    """Runs in this process get SIGTERM before their training step `number`, from 1."""

    def compile_and_stop(*arguments):
        advance, calls = compile_step(*arguments), itertools.count(1)

        def step(*arguments):
            if next(calls) == number:
                os.kill(os.getpid(), signal.SIGTERM)
            return advance(*arguments)

        return step

    with monkeypatch.context() as patch:
        patch.setattr("ncl_jax.runs.setup.compile_step", compile_and_stop)
        yield
