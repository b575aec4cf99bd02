"""An epoch of a run: its steps, what is logged of it, and the checkpoints within and after it."""

import collections
import time

import jax
import numpy as np

from ncl_jax.errors import Interrupted
from ncl_jax.runs import durations, keeping, messages, timing
from ncl_jax.runs.divergence import check_finite
from ncl_jax.runs.setup import Run
from ncl_jax.runtime import memory
from ncl_jax.runtime.interrupt import Interrupt
from ncl_jax.storage import records
from ncl_jax.training import steps

BETWEEN = 1.0  # seconds: of epochs that are shorter some have no line


def train_epoch(run: Run, epoch: int, interrupt: Interrupt) -> bool:
    """Trains the rest of epoch `epoch` (from 0), sends an evaluation that is due after it, and logs it.

    Returns whether it was trained to its end: not where the time was up; the state has then been saved.

    Raises:
      Diverged: a metric or the state is not finite; nothing since the last checkpoint has been saved.
      Interrupted: in the middle of the epoch; the state has been saved.
    """
    waited, seconds, first = run.feed.waited, 0.0, int(run.state.step) % run.length
    left = run.length - first
    while left:
        began = time.perf_counter()
        left = run_steps(run, left, epoch, interrupt)
        known = slice(run.known_from, run.length - left)
        history = jax.tree.map(lambda values: np.asarray(values)[known], run.history)  # noqa: B023 - used at once
        took = time.perf_counter() - began
        check_finite(run, history, epoch * run.length + run.known_from)
        run.progress["seconds"] += took
        seconds += took
        if left:
            save_within(run, history, interrupt)
            if run.pace.left() < evaluation_seconds(run):
                return False
    if is_due(run, epoch + 1):
        run.pace.start_evaluation()
        run.evaluation = run.evaluate(run.variables)  # the first one is compiled: not the steps' time
    run.known_from = 0
    speed = (run.length - first) * run.config.optim.batch_size / seconds
    record = records.epoch(history, epoch + 1, (epoch + 1) * run.length, run.learning_rates[epoch], speed)
    record |= {"waited": (run.feed.waited - waited) / seconds} if run.feed.cut else {}
    run.progress["images_per_second"].append(speed)
    run.log.write("train", record)
    if is_shown(run, epoch + 1):
        run.shown = run.pace.clock()
        run.log.print(messages.epoch_line(record, run.epochs, seconds, expected(run, epoch + 1).seconds))
    collapsed = None if run.on_features or run.frozen is not None else messages.collapse_warning(record)
    for warning in filter(None, (collapsed, messages.wait_warning(record))):
        run.log.print(warning)
    return True


def is_due(run: Run, epoch: int) -> bool:
    """Whether the run is evaluated after an epoch (from 1): by epochs, or by the clock."""
    by_epochs = timing.is_evaluated(run.config, epoch, run.epochs)
    return by_epochs or run.pace.evaluation_due(run.config.eval_minutes)


def is_shown(run: Run, epoch: int) -> bool:
    """Whether an epoch (from 1) has its line on the console: one that is evaluated, or a second after the last line;
    `metrics.jsonl` has all."""
    return run.evaluation is not None or epoch in (1, run.epochs) or run.pace.clock() - run.shown >= BETWEEN


def expected(run: Run, done: int) -> timing.Estimate:
    """What follows the first `done` epochs."""
    return timing.estimate(run.config, done, run.epochs, run.length * (run.pace.step or 0.0), evaluation_seconds(run))


def evaluation_seconds(run: Run) -> float:
    """What an evaluation takes."""
    return run.pace.expected_evaluation(len(run.data.test), run.config.optim.batch_size * run.config.loss.copies)


def run_steps(run: Run, left: int, epoch: int, interrupt: Interrupt) -> int:
    """Up to `left` training steps; returns how many an interrupt left, or a checkpoint or limit that is due.

    Where steps are fast nothing waits for the newest calls: the bar shows the loss of an earlier one.
    """
    pending: collections.deque = collections.deque()
    text = f"epoch {epoch + 1}/{run.epochs} lr {run.learning_rates[epoch]:.4g}"
    run.pace.start()
    run.log.start(run.epochs * run.length)
    for source, served in run.feed.batches(int(run.state.step)):
        served = min(served, left)
        while served and not stops(run, interrupt):
            count = min(served, run.pace.at_once)
            with jax.transfer_guard("disallow"):
                run.state, run.history, last, done = run.advance(run.state, run.history, run.key, source, count)
            served, left = served - done, left - done
            pending.append((last, done))
            while len(pending) > run.pace.ahead:
                show(run, *pending.popleft(), text=text)
        if served or not left:
            break
    while pending:
        show(run, *pending.popleft(), text=text)
    return left


def stops(run: Run, interrupt: Interrupt) -> bool:
    """Whether to stop between two steps: asked from outside or, in a process that runs alone, because a checkpoint is
    due or the time is up."""
    if interrupt.requested() or jax.process_count() > 1:
        return interrupt.requested()
    return run.pace.save_due(run.config.checkpoint_minutes) or run.pace.left() < evaluation_seconds(run)


def show(run: Run, last: steps.Metrics, steps_done: int, *, text: str) -> None:
    """Moves the bar on by a finished call, with its last step's loss; tells once how long the run will take."""
    loss = jax.device_get(last["loss"])
    counts = run.pace.lap(steps_done)
    if not counts:
        memory.trim()
    run.log.advance(steps_done, f"{text} loss {loss:.3f}", timed=counts)
    if run.pace.is_known and not run.is_estimated:
        run.is_estimated = True
        for line in durations.estimate(expected(run, int(run.state.step) // run.length), run.config):
            run.log.print(line)


def counts(run: Run, epoch: int) -> bool:
    """Whether an evaluation can be the best one: of those by the clock, which another machine makes after other epochs,
    none."""
    return int(run.state.step) == epoch * run.length and timing.is_evaluated(run.config, epoch, run.epochs)


def save_if_due(run: Run, epoch: int, interrupt: Interrupt, is_last: bool) -> None:
    """Saves a checkpoint after the epochs that ask for one, and the last. Raises Interrupted if the run was asked to
    stop."""
    keeping.check_place(run)
    is_last = is_last or epoch == run.epochs
    stop, late = interrupt.requested(), timing.together(run.pace.save_due(run.config.checkpoint_minutes))
    if is_last or epoch % run.config.checkpoint_every == 0 or stop or late:
        run.log.flush()
        keeping.restore_deleted(run)
        newest = run.results if run.results and run.results["epoch"] == epoch and counts(run, epoch) else None
        run.checkpoints.save(run.state, run.progress, newest["ensemble"]["accuracy"] if newest else None)
        run.pace.note_saved()
    if stop and not is_last:
        run.checkpoints.wait()
        raise Interrupted(f"stopped after epoch {epoch}, saved: the same command continues the run", interrupt.number)


def save_within(run: Run, history: steps.Metrics, interrupt: Interrupt) -> None:
    """Saves a checkpoint in the middle of an epoch, with the metrics of its steps so far. Raises Interrupted if the run
    was asked to stop."""
    keeping.check_place(run)
    run.log.flush()
    keeping.restore_deleted(run)
    values = {"history": jax.tree.map(np.ndarray.tolist, history)} if not run.known_from else {}
    run.checkpoints.save(run.state, run.progress | values)
    run.pace.note_saved()
    if interrupt.requested():
        run.checkpoints.wait()
        stopped = f"stopped at step {int(run.state.step)}, saved: the same command continues the run"
        raise Interrupted(stopped, interrupt.number)
