"""Checkpoints of a run: Orbax, with a fingerprint that tells a damaged one from a good one."""

import itertools
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from ncl_jax.errors import CheckpointError


class Restored(NamedTuple):
    """A checkpoint's content."""

    state: Any  # TrainState, or the part of it that was asked for
    progress: dict  # the run's host-side record, see `train.Progress`
    step: int
    skipped: list[str]  # a line for every later checkpoint that could not be used


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


class Checkpoints:
    """The checkpoints in `directory/checkpoints`, written asynchronously: the last two and the best one."""

    def __init__(self, directory: pathlib.Path, *, read_only: bool = False):
        self.path = pathlib.Path(directory).absolute() / "checkpoints"
        keep = [
            checkpoint_managers.LatestN(2),
            checkpoint_managers.BestN(
                get_metric_fn=lambda metrics: metrics["accuracy"], n=1, keep_checkpoints_without_metrics=False
            ),
        ]
        self._options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(keep),
            best_fn=lambda metrics: metrics["accuracy"],  # without it Orbax does not write the metrics down
            save_interval_steps=0 if read_only else 1,
            enable_async_checkpointing=not read_only,
            read_only=read_only,
            create=not read_only,
        )
        self._manager = self._open()

    def _open(self):
        verbosity = logging.get_verbosity()
        logging.set_verbosity(logging.ERROR)  # it warns that a read-only directory is read-only
        names = ("state", "fingerprint", "progress")
        manager = ocp.CheckpointManager(self.path, options=self._options, item_names=names)
        logging.set_verbosity(verbosity)
        return manager

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, state: Any, progress: dict, accuracy: float | None = None) -> None:
        """Saves the state and the host-side record under the state's step; returns once the state has been copied."""
        step = int(state.step)
        if step in self.steps():
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeSave(state._asdict()),
                fingerprint=ocp.args.JsonSave(fingerprint(state)),
                progress=ocp.args.JsonSave(progress),
            ),
            metrics=None if accuracy is None else {"accuracy": accuracy},
        )

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
        skipped: list[str] = []
        for number in reversed(self.steps()) if step is None else [step]:
            try:
                return Restored(*self._read(number, target), number, skipped)
            except Exception as error:  # whatever Orbax, TensorStore or the file system raise
                reason = " ".join(str(error).split())[:300]
                skipped.append(f"checkpoint {number} cannot be used ({type(error).__name__}: {reason})")
                logging.warning(skipped[-1])
        if skipped:
            raise CheckpointError(
                f"none of the {len(skipped)} checkpoints in {self.path} can be read: {'; '.join(skipped)}. Bring one "
                "back from a copy, or start again in another --workdir"
            )
        return None

    def _read(self, step: int, target: Any) -> tuple[Any, dict]:
        parts = target._asdict()
        places = ocp.checkpoint_utils.construct_restore_args(parts)
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeRestore(parts, restore_args=places, partial_restore=True),
                fingerprint=ocp.args.JsonRestore(),
                progress=ocp.args.JsonRestore(),
            ),
        )
        state = type(target)(**restored["state"])
        numbers = fingerprint(state)
        if numbers != restored["fingerprint"][: len(numbers)]:
            raise CheckpointError("its content is not what was saved: a file is missing or was changed")
        return state, restored["progress"]

    def set_aside(self, after: int) -> None:
        """Moves the checkpoints later than step `after`, found to be damaged, to `damaged-checkpoints/`."""
        later = [step for step in self.steps() if step > after]
        if not later:
            return
        for step in later if jax.process_index() == 0 else ():
            folder = self.path.parent / "damaged-checkpoints"
            folder.mkdir(exist_ok=True)
            free = next(n for n in itertools.count() if not (folder / f"{step}-{n}").exists())
            (self.path / str(step)).rename(folder / f"{step}-{free}")
        multihost_utils.sync_global_devices("damaged checkpoints are set aside")
        self._manager.close()
        self._manager = self._open()

    def close(self) -> None:
        """Waits until everything is on disk."""
        self._manager.close()
