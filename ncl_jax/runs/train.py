"""A run, from a configuration to `results.json`: `train` reads top to bottom."""

import collections
import contextlib
import pathlib
import time
from collections.abc import Iterator

import jax
import ml_collections
import numpy as np

from ncl_jax.config import build, build_data, checks, choose, costs, fields
from ncl_jax.config.fields import flatten
from ncl_jax.config.plan import TrainingPlan
from ncl_jax.data import dataset
from ncl_jax.errors import Interrupted
from ncl_jax.evaluation import metrics
from ncl_jax.field import Field
from ncl_jax.report import tables
from ncl_jax.runs import folds as out_of_fold
from ncl_jax.runs import heads, keeping, messages, neighbours, pretrained
from ncl_jax.runs.divergence import check_finite
from ncl_jax.runs.results import write
from ncl_jax.runs.setup import Run, is_first, prepare
from ncl_jax.runtime import console, settings
from ncl_jax.runtime.devices import devices
from ncl_jax.runtime.interrupt import Interrupt
from ncl_jax.storage import records, trackers
from ncl_jax.storage.checkpoint import Checkpoints, agree
from ncl_jax.storage.directory import RunDir
from ncl_jax.training import steps


@settings.holding
def train(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    extend: int = 0,
    tracker: str = "",
    folds: int = 0,
    accept_data: bool = False,
) -> dict:
    """Trains, or continues what `workdir` holds, and returns the content of `results.json`.

    The continued run equals one that was never stopped, bit for bit on the same hardware: the state holds the weights,
    the optimizer, the running statistics, the method's memory and the step; order and augmentation follow from seed
    and step. A finished run is answered from its directory.

    Args:
      config: of the run; it is not changed.
      workdir: the run's directory, created if need be.
      extend: epochs beyond `config.epochs`, at the schedule's last learning rate; everything before is as without.
      tracker: one of `trackers.TRACKERS`, which gets the log and the results as well; none if empty.
      folds: K of the out-of-fold scores that are kept with a run on frozen features, see `folds.write`; 0: none.
      accept_data: continue although the data has changed, with what is there now; an epoch keeps its number of steps.

    Raises:
      ConfigError: a bad value, `workdir` lies among the images or holds a run of another configuration, another
        process works in it, or the tracker's library is not installed.
      DataError: the data cannot be read.
      CheckpointError: there are checkpoints and none can be read, or one cannot be saved.
      WriteError: the log cannot be written.
      Diverged: a loss, or a number of the state, became infinite or NaN.
      Interrupted: SIGTERM, SIGINT or SIGHUP came; the state has been saved.
    """
    config, directory = fields.without_notes(config), RunDir(workdir)
    build_data.absolute_paths(config)  # evaluation may start elsewhere
    checks.validate(config)
    choose.note_method(config)
    trackers.check(tracker)
    out_of_fold.check(config, folds)
    saved = saved_config(directory)
    directory.check(config, saved=saved)
    Field(0, "", at_least=0, at_most=fields.EPOCHS).check("--extend", extend)
    extend = max(extend, directory.read_extend(), (saved or {}).get("extend", 0))
    devices()  # refused before anything is asked of them
    agree("the configuration, --extend or --folds", [flatten(config), extend, folds, accept_data])
    if directory.is_finished(config.epochs + extend) and (not folds or out_of_fold.are_there(directory, folds)):
        results = directory.read_results() or {}
        if is_first():
            console.say_text(f"{directory} holds this run, finished:\n{tables.table(results)}")
        return results
    directory.check_version()
    directory.check_name()
    checks.check_place(config, directory.path)
    mesh = build.mesh(config)
    build.operations(config, mesh)  # refused before the data is loaded
    rule = directory.split_rule(saved)
    data = build_data.data(config, rule, directory.pinned())
    other = messages.other_pixels(directory.read_pixels(), bool(data.listing()))
    data = data._replace(notes=(*data.notes, *other))
    checks.check_against_data(config, data.facts.num_train, data.facts.num_classes)
    directory.check(config, data, accept=accept_data)
    noted = noted_changes(directory, config, data, saved or {})
    data = data._replace(notes=(*data.notes, *messages.accepted(noted)))
    plan = build.make_training_plan(config, data.facts, mesh, noted.get("steps_per_epoch", 0))
    noted |= {"extend": extend, "prior_power": plan.prior_power(), "split_rule": rule}
    shapes = costs.check(plan, config, data, extend)
    start = None if directory.has_checkpoints() else pretrained.load(config, plan)
    with contextlib.ExitStack() as stack:
        stack.enter_context(begun(directory, config, data, noted, accept_data))
        interrupt = stack.enter_context(Interrupt())
        earlier = (directory.read_results() or {}).get("step")
        checkpoints = stack.enter_context(contextlib.closing(Checkpoints(directory.path, results=earlier)))
        run = prepare(plan, config, data, directory, checkpoints, shapes, noted, start, tracker, interrupt.check)
        stack.callback(run.log.close)
        stack.callback(run.feed.close)
        for epoch in range(int(run.state.step) // run.length, run.epochs):
            train_epoch(run, epoch, interrupt)
            if run.evaluation is not None:
                run.results = evaluate(run, epoch + 1)
                run.log.write("evaluation", run.results)
            save_if_due(run, epoch + 1, interrupt)
        results = finish(run, plan)
        if folds:
            out_of_fold.keep(run, plan, folds, extend, interrupt.check)
        return results


@contextlib.contextmanager
def begun(
    directory: RunDir, config: ml_collections.ConfigDict, data: dataset.Data, noted: dict, accept_data: bool
) -> Iterator[None]:
    """Creates the directory and keeps a second run out of it; in the first process alone."""
    if not is_first():
        yield
        return
    with directory.locked():
        # Again: another run may have begun here while the data was loaded.
        directory.check(config, data, accept=accept_data)
        directory.begin(config, data, noted)
        yield


def noted_changes(directory: RunDir, config: ml_collections.ConfigDict, data: dataset.Data, saved: dict) -> dict:
    """What a run notes of changes in its data: a line each, and the steps of its epochs, which stay those of its first
    data. Nothing where there were none. `saved` as for `RunDir.check`."""
    lines, length = list(directory.note("data_changed", (), saved)), directory.note("steps_per_epoch", 0, saved)
    if changed := directory.changed(data):
        length = length or directory.read_facts().num_train // config.optim.batch_size
        lines.append(f"after step {directory.last_step()}: {changed}")
    return {"data_changed": lines, "steps_per_epoch": length} if lines else {}


def saved_config(directory: RunDir) -> dict | None:
    """What the newest checkpoint says the run's configuration was, where the directory has lost its own file."""
    if directory.config.exists() or not directory.checkpoints.is_dir():
        return None
    with contextlib.closing(Checkpoints(directory.path, read_only=True)) as checkpoints:
        return (checkpoints.peek() or {}).get("config")


def train_epoch(run: Run, epoch: int, interrupt: Interrupt) -> None:
    """Trains the rest of epoch `epoch` (from 0), sends an evaluation that is due after it, and logs it.

    Raises:
      Diverged: a metric or the state is not finite; nothing since the last checkpoint has been saved.
      Interrupted: in the middle of the epoch; the state has been saved.
    """
    began, waited, first = time.perf_counter(), run.feed.waited, int(run.state.step) % run.length
    done = run.length - run_steps(run, run.length - first, epoch, interrupt)
    known = slice(run.known_from, done)
    history = jax.tree.map(lambda values: np.asarray(values)[known], run.history)
    seconds = time.perf_counter() - began
    check_finite(run, history, epoch * run.length + run.known_from)
    run.progress["seconds"] += seconds
    if done < run.length:
        keeping.check_place(run)
        run.log.flush()
        values = {"history": jax.tree.map(np.ndarray.tolist, history)} if not run.known_from else {}
        run.checkpoints.save(run.state, run.progress | values)
        run.checkpoints.wait()
        stopped = f"stopped at step {int(run.state.step)}, saved: the same command continues the run"
        raise Interrupted(stopped, interrupt.number)
    if epoch + 1 == run.epochs or (epoch + 1) % run.config.eval_every == 0:
        run.evaluation = run.evaluate(run.variables)  # the first one is compiled: not the steps' time
    run.known_from = 0
    speed = (run.length - first) * run.config.optim.batch_size / seconds
    record = records.epoch(history, epoch + 1, (epoch + 1) * run.length, run.learning_rates[epoch], speed)
    record |= {"waited": (run.feed.waited - waited) / seconds} if run.feed.cut else {}
    run.progress["images_per_second"].append(speed)
    run.log.write("train", record)
    left = messages.time_left(run.progress["images_per_second"], run.length * run.config.optim.batch_size, run.epochs)
    run.log.print(messages.epoch_line(record, run.epochs, seconds, left))
    collapsed = None if run.is_frozen else messages.collapse_warning(record)
    for warning in filter(None, (collapsed, messages.wait_warning(record))):
        run.log.print(warning)


def run_steps(run: Run, left: int, epoch: int, interrupt: Interrupt) -> int:
    """Up to `left` training steps; returns how many an interrupt left.

    Nothing waits for the newest calls: the bar shows the losses of an earlier one.
    """
    pending: collections.deque = collections.deque()
    text = f"epoch {epoch + 1}/{run.epochs} lr {run.learning_rates[epoch]:.4g}"
    for source, served in run.feed.batches(int(run.state.step)):
        served = min(served, left)
        while served and not interrupt.requested():
            with jax.transfer_guard("disallow"):
                run.state, run.history, last, done = run.advance(run.state, run.history, run.key, source, served)
            served, left = served - done, left - done
            pending.append((last, done))
            if len(pending) > 2:
                show(run, *pending.popleft(), text=text)
        if served or not left:
            break
    run.log.advance(sum(done for _, done in pending), text)
    return left


def show(run: Run, last: steps.Metrics, steps_done: int, *, text: str) -> None:
    """Moves the bar on by a finished call, with its last step's losses."""
    values = jax.device_get(last)
    parts = " ".join(f"{name} {value:.3f}" for name, value in {"loss": values["loss"], **values["parts"]}.items())
    run.log.advance(steps_done, f"{text} {parts}")


def evaluate(run: Run, epoch: int) -> dict:
    """Evaluates the state on the test set, and notes the best epoch so far in the record."""
    evaluation, run.evaluation = run.evaluation or run.evaluate(run.variables), None
    figures, run.answers = metrics.summarize(evaluation.sums, run.facts.groups()), evaluation.answers
    best, accuracy = run.progress["best_on_test"], figures["ensemble"]["accuracy"]
    if best is None or accuracy > best["accuracy"]:
        run.progress["best_on_test"] = {"epoch": epoch, "accuracy": accuracy}
    results = {"epoch": epoch, "step": int(run.state.step), **figures}
    run.log.print(messages.evaluation_line(results))
    return results


def finish(run: Run, plan: TrainingPlan) -> dict:
    """The last figures: written when the checkpoint that they come from is on disk, and after the plots."""
    # The run may have been killed between its last checkpoint and here.
    figures = run.results or evaluate(run, run.epochs)
    results = records.final(figures, run.facts, run.progress, run.device, run.config.to_dict())
    if run.is_frozen:
        results["baselines"] = heads.baselines(run.inputs)
    results |= teacher(run.config)
    run.checkpoints.wait()
    keeping.check_place(run)
    if is_first():
        with run.directory.writing():
            nearest = neighbours.finder(plan, run.variables, run.data, run.inputs if run.is_frozen else None)
            write(run.directory, results, run.answers, run.data, nearest)
    run.log.finish({name: value for name, value in results.items() if name != "config"})
    run.log.print(f"\n{results['dataset']}: {run.directory}\n{tables.table(results)}")
    return results


def teacher(config: ml_collections.ConfigDict) -> dict:
    """The figures of the ensemble that a student learned from, by the name `teacher`; nothing where there is none, or
    its directory has gone since."""
    found = RunDir(config.teacher.run).read_results() if config.teacher.run else None
    return {"teacher": tables.ensemble(found)} if found else {}


def save_if_due(run: Run, epoch: int, interrupt: Interrupt) -> None:
    """Saves a checkpoint after the epochs that ask for one. Raises Interrupted if the run was asked to stop."""
    keeping.check_place(run)
    last = epoch == run.epochs
    stop = interrupt.requested()
    if last or epoch % run.config.checkpoint_every == 0 or stop:
        run.log.flush()
        keeping.restore_deleted(run)
        newest = run.results if run.results and run.results["epoch"] == epoch else None
        run.checkpoints.save(run.state, run.progress, newest["ensemble"]["accuracy"] if newest else None)
    if stop and not last:
        run.checkpoints.wait()
        raise Interrupted(f"stopped after epoch {epoch}, saved: the same command continues the run", interrupt.number)
