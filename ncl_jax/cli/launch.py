"""Where the runs of a comparison are done: here, one or more at a time, or in a cluster's queue."""

import contextlib
import os
import pathlib
import shlex
import signal
import subprocess
import time
from concurrent import futures
from typing import NamedTuple, Protocol

from ncl_jax.errors import ConfigError, Interrupted, NclError, one_line
from ncl_jax.runtime import console
from ncl_jax.runtime.files import write_text
from ncl_jax.runtime.interrupt import SIGNALS
from ncl_jax.runtime.schema import read_bytes

MEMORY = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")  # JAX takes one of them, the second is older
GPU_SHARE = 0.9  # of a GPU's memory, for all runs that go on at the same time
VISIBLE = 10  # seconds in which a file that another host wrote shows up


class Job(NamedTuple):
    """One run."""

    name: str  # in words
    directory: pathlib.Path
    command: list[str]


class Launcher(Protocol):
    """Does jobs until they have ended, and passes a signal to stop on to them, so that they save their state."""

    def run(self, jobs: list[Job]) -> list[int | None]:
        """The jobs' exit codes, None for one that left none. Raises Interrupted after a signal."""
        ...

    def stop(self) -> None:
        """Asks the jobs to stop; called by a signal's handler."""
        ...


def run(launcher: Launcher, jobs: list[Job]) -> list[int | None]:
    """`launcher.run(jobs)`, stopped by the signals that stop a run."""

    def handle(number, frame):
        stopped.append(number)
        launcher.stop()

    stopped: list[int] = []
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handle)
    codes = launcher.run(jobs)
    if stopped:
        raise Interrupted("stopped: the same command continues", stopped[0])
    return codes


class Here:
    """Processes of this machine.

    Args:
      at_once: how many run at the same time. Where it is more than one, each writes what it has to say to
        `<directory>.log`, and takes its share of a GPU's memory, unless the environment says how much.
    """

    def __init__(self, at_once: int = 1) -> None:
        self._at_once, self._stopped = at_once, False
        self._processes: list[subprocess.Popen] = []

    def run(self, jobs: list[Job]) -> list[int | None]:
        """See `Launcher`."""
        with futures.ThreadPoolExecutor(self._at_once) as pool:
            return list(pool.map(self._do, jobs))

    def _do(self, job):
        if self._stopped:
            return None
        environment, log = dict(os.environ), None
        if self._at_once > 1:
            job.directory.parent.mkdir(parents=True, exist_ok=True)
            log = job.directory.with_name(f"{job.directory.name}.log").open("a")
            if not environment.keys() & set(MEMORY):
                environment[MEMORY[0]] = f"{GPU_SHARE / self._at_once:.3f}"
        console.say(f"== {job.name}: {log.name if log else job.directory}")
        with log or contextlib.nullcontext():
            # A session of its own: a terminal would send Ctrl-C to the run as well, and two stop it at once.
            process = subprocess.Popen(
                job.command, start_new_session=True, env=environment, stdout=log, stderr=log and subprocess.STDOUT
            )
        self._processes.append(process)
        if self._stopped:
            process.terminate()
        return process.wait()

    def stop(self) -> None:
        """See `Launcher`."""
        self._stopped = True
        for process in self._processes:
            process.terminate()


class Slurm:
    """One job array of Slurm, of which every task is one run.

    Args:
      options: for `sbatch`, as one piece of text, such as `--gpus=1 --time=4:00:00`.
      directory: a new or an old one that the array's hosts see; holds its script, its logs and its exit codes.
    """

    def __init__(self, options: str, directory: pathlib.Path):
        try:
            self._options, self._directory = shlex.split(options), directory.absolute()
        except ValueError as error:
            raise ConfigError(f"--slurm={options} cannot be split into options: {error}") from error
        self._number, self._stopped = "", False  # the array's number, once it is known

    def run(self, jobs: list[Job]) -> list[int | None]:
        """See `Launcher`. Raises NclError where Slurm does not take the array, or still has an earlier one."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._check_earlier()
        codes = [self._directory / f"{task}.code" for task in range(len(jobs))]
        for code in codes:
            code.unlink(missing_ok=True)
        write_text(self._directory / "array.sh", array_script(jobs, self._directory))
        self._submit(len(jobs))
        deadline = time.monotonic() + VISIBLE
        while not self._stopped and not all(map(_read, codes)):
            if time.monotonic() > deadline:
                self._check_earlier()  # sbatch may have been killed while it waited
                break
            time.sleep(0.1)
        return [int(text) if (text := _read(code)) else None for code in codes]

    def stop(self) -> None:
        """See `Launcher`."""
        self._stopped = True
        if self._number:
            subprocess.run(["scancel", self._number], check=False)

    def _submit(self, number):
        """Hands the array over and waits for its end."""
        log = self._directory / "%a.log"
        options = ["--parsable", "--wait", f"--array=0-{number - 1}", f"--output={log}", "--open-mode=append"]
        # A session of its own: Ctrl-C is for this program, which cancels the array.
        process = _start(["sbatch", *options, *self._options, str(self._directory / "array.sh")])
        self._number = process.stdout.readline().strip().partition(";")[0]
        write_text(self._directory / "job", self._number)
        if self._stopped:
            self.stop()
        if self._number:
            console.say(f"Slurm's job {self._number} has the {number} runs; their logs: {self._directory}/*.log")
        _, errors = process.communicate()
        if not self._number:
            raise NclError(f"Slurm refused the runs: {one_line(RuntimeError(errors))}")

    def _check_earlier(self):
        earlier = self._directory / "job"
        if number := _read(earlier):
            listed, _ = _start(["squeue", "--noheader", f"--jobs={number}"]).communicate()
            if listed.strip():
                raise NclError(
                    f"Slurm's job {number} is still running: wait until squeue no longer lists it, or scancel "
                    f"{number}; the same command then collects what is finished and continues with the rest"
                )


def _read(path):
    """A file's number as text; empty where there is none."""
    try:
        text = read_bytes(path, 100).decode().strip()
    except (OSError, ValueError, NclError):
        return ""
    return text if text.isdigit() else ""


def array_script(jobs: list[Job], directory: pathlib.Path) -> str:
    """A script of which Slurm's task number i does job i and leaves its exit code behind."""
    cases = [f"  {task}) set -- {shlex.join(job.command)} ;;" for task, job in enumerate(jobs)]
    code = f"{shlex.quote(str(directory))}/$SLURM_ARRAY_TASK_ID.code"
    # Since 22.05 srun does not take the number of CPUs over from sbatch.
    cpus = "export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}"
    lines = ["#!/bin/bash", "case $SLURM_ARRAY_TASK_ID in", *cases, "esac", cpus, 'srun "$@"', f"echo $? > {code}"]
    return "\n".join(lines) + "\n"


def _start(command):
    try:
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
    except OSError as error:
        raise NclError(
            f"Slurm was not found ({one_line(error)}): --slurm is for a machine that has {command[0]}"
        ) from error
