"""What a program does before its first computation: compiled programs are kept, and what is needed once is quick."""

import os
import sys
from collections.abc import Callable
from typing import Any

import jax
from absl import logging

from ncl_jax.runtime import caches, compiled, console, xla_flags

HEARTBEAT = 60  # seconds without a sign of life after which a process counts as dead


QUICK: dict[str, Any] = {"xla_backend_optimization_level": 1}  # of programs that need no tuning


def connect(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Joins the processes of a run on several hosts; to be called before anything else of JAX.

    Args:
      coordinator: `HOST:PORT` of process 0, the same in all processes. None: what the cluster's environment says (Cloud
        TPU, Slurm, Open MPI, Kubernetes), as well as the other two.
      num_processes: how many there are.
      process_id: this one's number, from 0.

    Raises:
      ValueError: one of the three is missing, and the environment does not say.
      RuntimeError: the others did not come within five minutes.
    """
    where = f"at {coordinator}" if coordinator else "that the cluster's environment names"
    console.say(f"joining the other processes {where}; this waits for up to five minutes")
    jax.distributed.initialize(coordinator, num_processes, process_id, heartbeat_timeout_seconds=HEARTBEAT)
    console.say(
        f"process {jax.process_index()} of {jax.process_count()}: should another one die, this one ends too, within "
        f"{HEARTBEAT} s; the same command in all of them then continues the run"
    )


def prepare() -> None:
    """To be called once by a command, before `connect` and the first computation. Raises ConfigError for XLA_FLAGS that
    are none."""
    xla_flags.check(os.environ.get("XLA_FLAGS", ""))
    quiet_orbax()
    keep_compiled_programs()


def quiet_orbax() -> None:
    """Leaves it to the run to report a save that failed, in one line: Orbax logs each of its threads' tracebacks, and
    TensorStore prints one for every file that it was still writing when Orbax gave up."""
    logging.set_verbosity(logging.FATAL)
    show = sys.unraisablehook

    def hook(raised: "sys.UnraisableHookArgs") -> None:
        if not (raised.exc_type is RuntimeError and str(raised.exc_value) == "Event loop is closed"):
            show(raised)

    sys.unraisablehook = hook


def keep_compiled_programs() -> None:
    """Keeps compiled programs in the user's cache directory, unless JAX was told where."""
    if not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        folder = caches.folder()
        jax.config.update("jax_compilation_cache_dir", str(folder) if folder else None)
    compiled.heal()


def compile_once(function: Callable[[], Any], places: Any = None) -> jax.stages.Compiled:
    """`jax.jit(function, out_shardings=places)` of a program that is called once, compiled in less time.

    At its last level of optimization the compiler takes several times as long over random draws. The numbers are the
    same without (docs/benchmarks.md).
    """
    return jax.jit(function, out_shardings=places, compiler_options=QUICK).lower().compile()


def run_once(function: Callable[[], Any], places: Any = None) -> Any:
    """What the program of `compile_once` makes."""
    return compile_once(function, places)()
