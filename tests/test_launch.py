"""Runs in Slurm's queue, with stand-ins for its commands that do what they do on a cluster of one host."""

import os
import signal
import subprocess
import sys
import time

import pytest

from ncl_jax.cli import launch
from ncl_jax.errors import ConfigError, NclError

SBATCH = """
import os, pathlib, subprocess, sys
*options, script = sys.argv[1:]
if "--nonsense" in options:
    sys.exit("sbatch: unrecognized option '--nonsense'")
last = next(int(o.rpartition("-")[2]) for o in options if o.startswith("--array="))
print("17;cluster", flush=True)
pathlib.Path("options").write_text(" ".join(options))
tasks = [subprocess.Popen(["bash", script], env=os.environ | {"SLURM_ARRAY_TASK_ID": str(i)}) for i in range(last + 1)]
pathlib.Path("tasks").write_text(" ".join(str(task.pid) for task in tasks))
sys.exit(max(task.wait() for task in tasks))
"""
SCANCEL = """
import pathlib, subprocess, sys
assert sys.argv[1:] == ["17"]
subprocess.run(["pkill", "-TERM", "-P", pathlib.Path("tasks").read_text().replace(" ", ",")])
"""
SHORT = 0.2  # seconds for a file to show up
SQUEUE = "import os; print(os.environ.get('LISTED', ''))"


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A launcher in whose path Slurm's commands are the stand-ins."""
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL), ("squeue", SQUEUE)):
        (tmp_path / name).write_text(f"#!{sys.executable}\n{text}")
    (tmp_path / "srun").write_text('#!/bin/bash\nexec "$@"\n')
    for name in ("sbatch", "scancel", "squeue", "srun"):
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "VISIBLE", SHORT)
    return lambda options="": launch.Slurm(options, tmp_path / "in a folder")


def job(tmp_path, *command):
    return launch.Job("a run", tmp_path, list(command))


def test_an_array_runs_each_command_and_brings_its_exit_code(slurm, tmp_path):
    say = f"import sys; open({str(tmp_path / 'said')!r}, 'w').write(sys.argv[1])"
    jobs = [job(tmp_path, sys.executable, "-c", say, "it's $HOME, (2,)"), job(tmp_path, "bash", "-c", "exit 3")]
    jobs.append(job(tmp_path, "bash", "-c", "kill -9 $PPID $$"))  # as Slurm ends a task that takes too much memory
    assert slurm("--gpus=1 --comment='two words'").run(jobs) == [0, 3, None]
    assert (tmp_path / "said").read_text() == "it's $HOME, (2,)"
    options = (tmp_path / "options").read_text()
    assert "--array=0-2" in options and options.endswith("--gpus=1 --comment=two words")


def test_exit_codes_of_an_earlier_array_do_not_count(slurm, tmp_path):
    assert slurm().run([job(tmp_path, "true")]) == [0]
    assert slurm().run([job(tmp_path, "bash", "-c", "kill -9 $PPID $$")]) == [None]


def test_an_array_that_is_still_there_is_not_handed_over_again(slurm, tmp_path, monkeypatch):
    slurm().run([job(tmp_path, "true")])
    monkeypatch.setenv("LISTED", "17 all array.sh R")
    with pytest.raises(NclError, match="job 17 is still running.*scancel 17"):
        slurm().run([job(tmp_path, "true")])


def test_what_slurm_says_against_the_options_is_shown(slurm, tmp_path):
    with pytest.raises(NclError, match="refused the runs: sbatch: unrecognized option '--nonsense'"):
        slurm("--nonsense").run([job(tmp_path, "true")])


def test_options_that_are_none_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"--slurm=--comment='x cannot be split into options"):
        launch.Slurm("--comment='x", tmp_path)


def test_without_slurm_the_missing_command_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NclError, match=r"--slurm .*sbatch"):
        launch.Slurm("", tmp_path).run([job(tmp_path, "true")])


def test_runs_at_the_same_time_have_a_log_each_and_share_a_gpus_memory(tmp_path, monkeypatch, capsys):
    for name in launch.MEMORY:
        monkeypatch.delenv(name, raising=False)
    meet = "touch {0}; echo {0} $XLA_CLIENT_MEM_FRACTION; "
    meet += "for _ in {{1..600}}; do sleep .1; [ -e {1} ] && exit {2}; done"
    commands = {"a": meet.format("a", "b", 3), "b": meet.format("b", "a", 0), "c": "echo late >&2"}
    monkeypatch.chdir(tmp_path)
    jobs = [launch.Job(name, tmp_path / "runs" / name, ["bash", "-c", text]) for name, text in commands.items()]
    assert launch.Here(2).run(jobs) == [3, 0, 0]
    logs = [(tmp_path / "runs" / f"{name}.log").read_text() for name in commands]
    assert logs == ["a 0.450\n", "b 0.450\n", "late\n"]
    assert f"== a: {tmp_path / 'runs' / 'a.log'}" in capsys.readouterr().out


PROGRAM = """
import pathlib, sys
from ncl_jax.cli import launch
from ncl_jax.errors import Interrupted
command = "trap 'touch saved; kill $!; exit 143' TERM; touch begun; sleep 60 & wait"
jobs = [launch.Job("one", pathlib.Path("one"), ["bash", "-c", command])]
try:
    launch.run({launcher}, jobs)
except Interrupted as stopped:
    sys.exit(128 + stopped.number)
"""


@pytest.mark.parametrize("launcher", ["launch.Here()", "launch.Here(2)", "launch.Slurm('', pathlib.Path('slurm'))"])
def test_a_signal_reaches_the_runs_and_all_end(slurm, tmp_path, launcher):
    process = subprocess.Popen([sys.executable, "-c", PROGRAM.replace("{launcher}", launcher)])
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert (tmp_path / "saved").exists()
