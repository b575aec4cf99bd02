"""Faults of whole programs: signals, streams that are closed, full or broken, the environment, disks.

A run that outlives a fault ends with exit code 0 and its results; one that is stopped says so in a line, and continues.
"""

import os
import shutil
import signal
import subprocess
import sys
import time

import harness
import programs
import pytest

from ncl_jax.runtime import caches

pytestmark = pytest.mark.slow
CONFIG = "configs/quickstart.py:method=ce"
SHORT = {"epochs": 2, "eval_every": 2, "checkpoint_every": 1, "optim__milestones": "(2,)"}
LONG = SHORT | {"epochs": 400, "eval_every": 400, "checkpoint_every": 400}


def environment(cache):
    """Of the programs: CPU, one compilation cache."""
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": str(programs.ROOT),
    }


def finish(arguments, cache, shell="exec {}", **options):
    """Runs a command through the shell, `{}` standing for it; returns exit code and what could be read."""
    text = " ".join(f"'{word}'" for word in map(str, arguments))
    process = subprocess.run(
        ["bash", "-c", shell.format(text)], cwd=programs.ROOT, env=environment(cache) | options.pop("env", {}),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, **options,
    )  # fmt: skip
    return process.returncode, process.stdout


STREAMS = {
    "all closed": "exec {} <&- >&- 2>&-",
    "all full": "exec {} >/dev/full 2>/dev/full",
    "a reader that goes": "set -o pipefail; {} 2>/dev/null | true",
    "a reader that goes after a line": "set -o pipefail; {} 2>/dev/null | head -n 1",
    "hung up, ignored": "trap '' HUP; {} & sleep 2; kill -HUP $!; wait $!",
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_run_outlives_its_streams(name, tmp_path, cache):
    arguments = programs.one_layer(tmp_path / "run", CONFIG, **SHORT)
    code, output = finish(arguments, cache, STREAMS[name])
    assert code == 0 and "Traceback" not in output and "Exception ignored" not in output, output
    assert (tmp_path / "run" / "results.json").exists()


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", "<&- 2>&-", "2>&-", ">&-"])
def test_no_file_gets_the_number_of_a_closed_stream(closed, tmp_path):
    """What libraries and signals write to stream 2 would be in it."""
    program = f"from ncl_jax.runtime import console as c; c.survive_closed_streams(); f = open('{tmp_path}/n', 'w')"
    shell = f'{sys.executable} -c "{program}; f.write(str(f.fileno()))" {closed}'
    assert subprocess.run(["bash", "-c", shell], cwd=programs.ROOT).returncode == 0
    assert int((tmp_path / "n").read_text()) > 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGTERM, 143)])
def test_a_signal_stops_and_saves(number, code, tmp_path, cache):
    process = programs.start(programs.one_layer(tmp_path / "run", CONFIG, **LONG), cache)
    programs.wait_for_epoch(process, tmp_path / "run", 1)
    process.send_signal(number)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == code, output
    assert "stopping after this step; again (Ctrl-C) to stop now" in output
    assert "saved: the same command continues the run" in output and "Traceback" not in output
    assert list((tmp_path / "run" / "checkpoints").glob("[0-9]*"))


def test_a_second_interrupt_stops_at_once(tmp_path, cache):
    process = programs.start(programs.one_layer(tmp_path / "run", CONFIG, **LONG), cache)
    deadline = time.monotonic() + 120
    while "compiling" not in (line := process.stdout.readline()) and time.monotonic() < deadline:
        assert line, "the program ended"
    for _ in range(2):  # while it compiles, when nothing can stop after a step
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130, output
    assert "Traceback" not in output


@pytest.mark.parametrize("delay", [0.15, 1.2])
def test_an_interrupt_in_the_first_seconds_leaves_no_traceback(delay, tmp_path, cache):
    """While it imports: no fork."""
    process = subprocess.Popen(
        programs.command(tmp_path / "run", CONFIG, **LONG), cwd=programs.ROOT, env=programs.environment(cache),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=120)[0]
    assert process.returncode in (130, -signal.SIGINT), output
    # Python itself may not have reached our first line yet.
    assert "Traceback" not in output or delay < 0.3, output


def test_a_directory_deleted_under_a_run_ends_it_with_a_line(tmp_path, cache):
    process = programs.start(programs.one_layer(tmp_path / "run", CONFIG, **LONG), cache)
    programs.wait_for_epoch(process, tmp_path / "run", 1)
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 1 and "run was deleted" in output, output
    assert "Traceback" not in output


@pytest.mark.parametrize("platforms", ["nonsense", "tpu"])
def test_platforms_that_are_not_there(platforms, tmp_path, cache):
    arguments = programs.one_layer(tmp_path / "run", CONFIG, **SHORT)
    code, output = finish(arguments, cache, env={"JAX_PLATFORMS": platforms})
    assert "Traceback" not in output, output
    last = output.splitlines()[-1]
    assert code == 1 and last.startswith("error: ") and platforms in last, output
    assert not (tmp_path / "run").exists()


def test_a_run_needs_no_compiler(tmp_path, cache):
    output = programs.run(programs.one_layer(tmp_path / "run", CONFIG, **SHORT), cache, CXX="no-such-compiler")
    assert "Traceback" not in output, output


def test_without_a_cache_folder_the_kernels_are_compiled_and_not_kept(kernels, tmp_path, cache):
    """Ten seconds of compiling: what stands in for the compiler brings what it made earlier."""
    made = next(caches.folder().glob("kernels-*.so"))
    compiler = tmp_path / "c++"
    compiler.write_text(f"#!/bin/bash\necho >>{tmp_path}/called\ncp {made} ${{!#}}\n")
    compiler.chmod(0o755)
    env = {"XDG_CACHE_HOME": "/dev/null", "CXX": str(compiler)}
    output = programs.run(programs.one_layer(tmp_path / "run", CONFIG, **SHORT), cache, **env)
    assert "Traceback" not in output and (tmp_path / "called").read_text() == "\n", output


@pytest.fixture
def disk(tmp_path):
    """Mounts a small disk: `disk(kilobytes)` gives its folder. Skipped where that is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("no disk can be mounted here")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True)


@pytest.mark.parametrize("options", ["size=100k", "size=100m,nr_inodes=9"])
def test_a_full_disk_ends_a_run_with_a_line_and_room_continues_it(options, disk, tmp_path, cache):
    folder = disk(options)
    arguments = programs.one_layer(folder / "run", CONFIG, **SHORT)
    output = programs.run(arguments, cache, code=1)
    assert "Traceback" not in output, output
    assert len([line for line in output.splitlines() if line.startswith("error: ")]) == 1, output
    assert not (folder / "run" / "results.json").exists()
    subprocess.run(["mount", "-o", "remount,size=100m,nr_inodes=9999", str(folder)], check=True)
    output = programs.run(arguments, cache)
    assert (folder / "run" / "results.json").exists(), output


def test_a_finished_run_on_a_read_only_disk_shows_its_table(disk, finished, capfd):
    folder = disk("size=10m")
    shutil.copytree(finished, folder / "run")
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    said, code = harness.cli.attempt("train", [*harness.TRAIN[1:], f"--workdir={folder / 'run'}"])
    assert code == 0 and "holds this run, finished" in capfd.readouterr().out, said
