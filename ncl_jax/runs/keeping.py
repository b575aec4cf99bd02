"""What a run does where its directory is moved, or its files are deleted, while it trains."""

import contextlib

import jax

from ncl_jax.errors import CheckpointError
from ncl_jax.runs.setup import Run
from ncl_jax.storage.checkpoint import Checkpoints


def check_place(run: Run) -> None:
    """Raises CheckpointError where the run's directory was moved, replaced or deleted; the state is saved if it can be.

    To be called where the state may be saved. Of several processes the first alone could save it: none does.
    """
    place, step = run.directory.whereabouts(), int(run.state.step)
    if place == run.directory.path:
        return
    if place is None:
        replaced = " and replaced by another one" if run.directory.path.exists() else ""
        raise CheckpointError(f"{run.directory} was deleted{replaced} during its run: nothing more can be saved there")
    where = f"{run.directory} was moved to {place} during its run"
    again = f"the same command with --workdir={place} continues the run"
    if jax.process_count() > 1:
        raise CheckpointError(f"{where}: {again} at its last checkpoint there")
    run.log.flush()
    with contextlib.closing(Checkpoints(place)) as checkpoints:
        checkpoints.save(run.state, run.progress)
        checkpoints.wait()
    raise CheckpointError(f"{where}. Its state of step {step} is saved there: {again}")


def restore_deleted(run: Run) -> None:
    """Writes again what was deleted of the run's files since it began, and says what is lost.

    To be called before a checkpoint is saved.
    """
    for path in [*run.directory.rewrite_missing(), *run.log.rewrite_missing()]:
        run.log.print(f"warning: {path} was deleted or changed during the run; it is written again")
    if steps := run.checkpoints.forget_deleted(run.progress):
        listed = ", ".join(map(str, steps))
        run.log.print(
            f"warning: checkpoints deleted in {run.checkpoints.path} during the run: {listed}. Step "
            f"{int(run.state.step)} is saved now; until it is, the run cannot continue at those"
        )
