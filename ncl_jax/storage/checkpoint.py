"""Checkpoints of a run: Orbax, with a fingerprint that tells a damaged one from a good one."""

import contextlib
import dataclasses
import itertools
import json
import pathlib
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from ncl_jax.errors import CheckpointError, one_line
from ncl_jax.runtime import settings
from ncl_jax.storage import place, untrusted
from ncl_jax.storage.directory import RunDir


class Restored(NamedTuple):
    """A checkpoint's content."""

    state: Any  # TrainState, or the part of it that was asked for
    progress: dict  # the run's host-side record, see `setup.Run`
    step: int
    skipped: list[str]  # a line for every later checkpoint that could not be used


@settings.holding
def fingerprint(state: Any) -> list[int]:
    """One number a leaf: the sum of its bits modulo 2 ** 32, the same on any number of devices.

    Orbax reads a missing piece of an array as zeros; the fingerprint tells.
    """
    return [int(value) for value in jax.device_get(_sums(state))]


@jax.jit
def _sums(state):
    def bits(leaf):
        leaf = jnp.atleast_1d(leaf)
        return jax.lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{8 * leaf.dtype.itemsize}")).astype(jnp.uint32)

    return [jnp.sum(bits(leaf), dtype=jnp.uint32) for leaf in jax.tree.leaves(state)]


@dataclasses.dataclass
class KeepLatestAndBest(checkpoint_managers.PreservationPolicy):
    """Orbax's rule of what stays: the latest two, the best one, whose step the run's record names, and the one that
    the results were written from."""

    best: int | None = None
    results: int | None = None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """See `PreservationPolicy`: one answer for each checkpoint, oldest first."""
        kept = {*[info.step for info in checkpoints][-2:], self.best, self.results}
        return [info.step in kept for info in checkpoints]


class _Manager(ocp.CheckpointManager):
    """Leaves preemption to `Interrupt`: Orbax would ask JAX for it as well, by steps, and JAX agrees on one count."""

    def reached_preemption(self, step: int) -> bool:
        return False


class Checkpoints:
    """The checkpoints in `directory/checkpoints`, written asynchronously: the latest two and the best one."""

    def __init__(self, directory: pathlib.Path, *, read_only: bool = False, results: int | None = None):
        self.path = pathlib.Path(directory).absolute() / "checkpoints"
        place.check_name(self.path, reading=read_only)
        self._policy = KeepLatestAndBest(results=results)
        self._options = ocp.CheckpointManagerOptions(
            preservation_policy=self._policy,
            save_interval_steps=0 if read_only else 1,
            enable_async_checkpointing=not read_only,
            read_only=read_only,
            create=not read_only,
        )
        if self.path.exists() and not self.path.is_dir():
            raise CheckpointError(f"{self.path} is not a folder: move it away, the run's checkpoints go there")
        untrusted.check_files(self.path)
        try:
            self._manager = self._open()
        except Exception as error:  # whatever Orbax makes of files that are not its own
            raise CheckpointError(f"{self.path} cannot be used for checkpoints: {_one_line(error)}") from error

    def _open(self) -> ocp.CheckpointManager:
        verbosity = logging.get_verbosity()
        logging.set_verbosity(logging.ERROR)  # it warns that a read-only directory is read-only
        names = ("state", "fingerprint", "progress")
        manager = _Manager(self.path, options=self._options, item_names=names)
        logging.set_verbosity(verbosity)
        return manager

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, state: Any, progress: dict, accuracy: float | None = None) -> None:
        """Saves the state and the host-side record under the state's step; returns once the state has been copied.

        With an `accuracy` the checkpoint is kept for as long as none has a higher one.

        Raises:
          CheckpointError: this or the save before it failed: the disk is full, the folder is gone.
        """
        step = int(state.step)
        if step in self.steps():
            return
        if accuracy is not None and (not progress.get("best") or accuracy > progress["best"]["accuracy"]):
            progress["best"] = {"step": step, "accuracy": accuracy}
        self._policy.best = progress["best"]["step"] if progress.get("best") else None
        with self._errors(step):
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(state._asdict()),
                    fingerprint=ocp.args.JsonSave(fingerprint(state)),
                    progress=ocp.args.JsonSave(progress),
                ),
            )

    def forget_deleted(self, progress: dict) -> list[int]:
        """The steps whose checkpoints somebody deleted since they were saved; nothing counts on them from now on.

        Of several processes, which may see the file system's changes at different times, none looks.
        """
        if jax.process_count() > 1:
            return []
        self.wait()
        deleted = [step for step in self.steps() if not (self.path / str(step)).is_dir()]
        if deleted:
            self._manager.reload()
        if progress.get("best") and progress["best"]["step"] in deleted:
            progress["best"] = None
        return deleted

    def wait(self) -> None:
        """Returns when everything is on disk. Raises CheckpointError as `save` does."""
        with self._errors(None):
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _errors(self, step: int | None) -> Iterator[None]:
        try:
            yield
        except jax.errors.JaxRuntimeError:  # of the computation, such as too little memory
            raise
        except (OSError, ValueError, RuntimeError) as error:  # what Orbax makes of those of a file system
            saved = f"the newest good one is step {self.steps()[-1]}" if self.steps() else "there is none yet"
            what = f"checkpoint {step}" if step is not None else "the newest checkpoint"
            raise CheckpointError(
                f"{what} could not be saved in {self.path} ({_one_line(error)}); {saved}. Free disk space or fix the "
                "folder, and pass the same command again: the run continues there"
            ) from error

    def peek(self) -> dict | None:
        """The record of the newest checkpoint whose record can be read, None without any."""
        for step in reversed(self.steps()):
            with contextlib.suppress(CheckpointError):
                return untrusted.read_progress(self.path / str(step))
        return None

    def restore(self, target: Any, step: int | None = None) -> Restored | None:
        """The latest good checkpoint, or that of one step; None where there is none at all.

        Args:
          target: the state as `jax.ShapeDtypeStruct` leaves with their shardings, or its first parts alone
            (`steps.ModelState`), which then are all that is read.
          step: None for the latest good one.

        Raises:
          CheckpointError: if there are checkpoints and none can be read, or not that of `step`.
        """
        if step is not None and step not in self.steps():
            raise CheckpointError(f"{self.path} has no checkpoint of step {step}; it has {self.steps()}")
        agree("the checkpoints that they see", self.steps())
        skipped: list[str] = []
        for number in reversed(self.steps()) if step is None else [step]:
            try:
                found, fault = Restored(*self._read(number, target), number, skipped), ""
            except (jax.errors.JaxRuntimeError, MemoryError):  # of this machine, not of the checkpoint
                raise
            except Exception as error:  # whatever Orbax, TensorStore or the file system raise
                found, fault = None, _one_line(error)
            if _all_well(not fault) and found:
                return found
            skipped.append(f"checkpoint {number} cannot be used ({fault or 'another process could not read it'})")
        if skipped and step is not None:
            raise CheckpointError(f"{skipped[0]}; there are also: {[s for s in self.steps() if s != step]}")
        if skipped:
            raise CheckpointError(
                f"none of the {len(skipped)} checkpoints in {self.path} can be read: {'; '.join(skipped)}. Restore one "
                "from a backup, or start again in another --workdir"
            )
        return None

    def _read(self, step: int, target: Any) -> tuple[Any, dict]:
        folder, parts = self.path / str(step), target._asdict()
        saved, progress = untrusted.read_fingerprint(folder), untrusted.read_progress(folder)
        untrusted.check_description(folder / "state")
        untrusted.check_size(folder / "state", parts)
        places = ocp.checkpoint_utils.construct_restore_args(parts)
        wanted = ocp.args.PyTreeRestore(parts, restore_args=places, partial_restore=True)
        state = type(target)(**self._manager.restore(step, args=ocp.args.Composite(state=wanted))["state"])
        numbers = fingerprint(state)
        if numbers != saved[: len(numbers)]:
            raise CheckpointError("its content is not what was saved: a file is missing or was changed")
        return state, progress

    def set_aside(self, after: int) -> None:
        """Moves the checkpoints later than step `after`, found to be damaged, to `damaged-checkpoints/`."""
        later = [step for step in self.steps() if step > after]
        if not later:
            return
        for step in later if jax.process_index() == 0 else ():
            folder = RunDir(self.path.parent).damaged
            try:
                folder.mkdir(exist_ok=True)
                free = next(n for n in itertools.count() if not (folder / f"{step}-{n}").exists())
                (self.path / str(step)).rename(folder / f"{step}-{free}")
            except OSError as error:
                raise CheckpointError(
                    f"the damaged checkpoint {step} cannot be moved to {folder} ({error}): move it out of the way"
                ) from error
        multihost_utils.sync_global_devices("damaged checkpoints are set aside")
        self._manager.close()
        self._manager = self._open()

    def close(self) -> None:
        """Waits until everything is on disk; an error of that was raised by `wait`, or another one is on its way."""
        with contextlib.suppress(Exception):
            self._manager.close()


def agree(what: str, value: Any) -> None:
    """Raises CheckpointError unless all processes of the run have the same value, of what JSON can hold."""
    digest = zlib.crc32(json.dumps(value, sort_keys=True).encode())
    if jax.process_count() > 1 and len(set(multihost_utils.process_allgather(np.uint32(digest)).tolist())) > 1:
        raise CheckpointError(
            f"the processes of this run differ in {what}: pass the same command in all, and a --workdir on a file "
            f"system that all share (process {jax.process_index()}: {str(value)[:300]})"
        )


def _all_well(well: bool) -> bool:
    """Whether it went well in all processes of the run."""
    return well if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.bool_(well)).all())


def _one_line(error: BaseException) -> str:
    """An error's type and the beginning of its message."""
    return f"{type(error).__name__}: {one_line(error)}"
