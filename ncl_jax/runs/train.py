"""A run, from a configuration to `results.json`: `train` reads top to bottom."""

import contextlib
import functools
import pathlib
from collections.abc import Iterator

import ml_collections

from ncl_jax.config import build, build_data, checks, choose, costs, fields, precision, schedule
from ncl_jax.config.fields import flatten
from ncl_jax.config.plan import TrainingPlan
from ncl_jax.data import dataset
from ncl_jax.evaluation import metrics
from ncl_jax.field import Field
from ncl_jax.report import tables
from ncl_jax.runs import (
    budget,
    class_vectors,
    durations,
    early,
    heads,
    keeping,
    messages,
    neighbours,
    pretrained,
    probe,
    trunk,
)
from ncl_jax.runs import folds as out_of_fold
from ncl_jax.runs.assess import assess
from ncl_jax.runs.data import copies
from ncl_jax.runs.epoch import counts, save_if_due, train_epoch
from ncl_jax.runs.restore import Loaded
from ncl_jax.runs.results import write
from ncl_jax.runs.setup import Run, is_first, prepare, restore_or_start
from ncl_jax.runs.timing import Pace
from ncl_jax.runtime import console, settings
from ncl_jax.runtime.devices import devices
from ncl_jax.runtime.interrupt import Interrupt
from ncl_jax.storage import records, trackers
from ncl_jax.storage.checkpoint import Checkpoints, agree
from ncl_jax.storage.directory import RunDir


@settings.holding
def train(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    extend: int = 0,
    tracker: str = "",
    folds: int = 0,
    limit: float = 0.0,
    accept_data: bool = False,
) -> dict:
    """Trains, or continues what `workdir` holds, and returns the content of `results.json`.

    The continued run equals one that was never stopped, bit for bit on the same hardware: the state holds the weights,
    the optimizer, the running statistics, the method's state and the step; order and augmentation follow from seed
    and step. A finished run is answered from its directory.

    Args:
      config: of the run; it is not changed.
      workdir: the run's directory, created if need be.
      extend: epochs beyond `config.epochs`, at the schedule's last learning rate; everything before is as without.
      tracker: one of `trackers.TRACKERS`, which gets the log and the results as well; none if empty.
      folds: K of the out-of-fold scores that are kept with a run on a frozen backbone, see `folds.write`; 0: none.
      limit: seconds that the run may take, evaluations included; 0: any number. A new run gets as many of its epochs as
        fit (`budget.fit`), which its directory keeps; any run ends where its time is up, with results, and continues
        when it is passed again.
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
    pace = Pace(limit=limit)
    config, directory = fields.without_notes(config), RunDir(workdir)
    build_data.absolute_paths(config)  # evaluation may start elsewhere
    checks.validate(config)
    choose.note_method(config)
    trackers.check(tracker)
    out_of_fold.check(config, folds)
    saved = saved_config(directory)
    stored = directory.stored(saved)
    config, scaled = schedule.as_begun(config, stored)
    devices()  # refused before anything is asked of them
    config = precision.as_begun(config, stored)
    directory.check(config, saved=saved)
    Field(0, "", at_least=0, at_most=fields.EPOCHS).check("--extend", extend)
    asked, extend = extend, max(directory.read_extend(), (saved or {}).get("extend", 0))
    counted, extend = durations.counted(config.epochs, extend, asked), max(extend, asked)
    agree("the configuration or the options", [flatten(config), extend, folds, limit, accept_data])
    is_finished = directory.is_finished(config.epochs + extend, config.run.patience)
    if is_finished and (not folds or out_of_fold.are_there(directory, folds)):
        results = directory.read_results() or {}
        if is_first():
            console.say_text(f"{directory} holds this run, finished:\n{tables.table(results)}")
            console.say_lines(counted)
        return results
    directory.check_version()
    directory.check_name()
    checks.check_place(config, directory.path)
    mesh = build.mesh(config)
    build.operations(config, mesh)  # refused before the data is loaded
    rule = directory.split_rule(saved)
    data = build_data.data(config, rule, directory.pinned())
    other = messages.other_pixels(directory.read_pixels(), bool(data.listing()))
    data = data._replace(notes=(*data.notes, *other, *copies(data)))
    checks.check_against_data(config, data.facts.num_train, data.facts.num_classes)
    early.check(config, data)
    given = config
    if stored is None:
        config = schedule.finishing(given, data.facts.num_train // given.optim.batch_size)
        scaled = schedule.noted(given, config)
    directory.check(config, data, accept=accept_data)
    noted = noted_changes(directory, config, data, saved or {})
    data = data._replace(notes=(*data.notes, *messages.accepted(noted)))
    plan = build.make_training_plan(config, data.facts, mesh, noted.get("steps_per_epoch", 0))
    noted |= {"extend": extend, "prior_power": plan.prior_power(), "split_rule": rule, **scaled}
    shapes = costs.check(plan, config, data, extend)
    start = None if directory.has_checkpoints() else class_vectors.added(pretrained.load(config, plan), config, plan)
    if limit and stored is None and start is not None and plan.on_features:
        config = budget.fewer_views(plan, start.trunk, config, data, pace)
        plan = build.make_training_plan(config, data.facts, mesh)
        noted |= schedule.noted(given, config)
    with contextlib.ExitStack() as stack:
        stack.enter_context(begun(directory, config, data, noted, accept_data))
        interrupt = stack.enter_context(Interrupt())
        earlier = (directory.read_results() or {}).get("step")
        checkpoints = stack.enter_context(contextlib.closing(Checkpoints(directory.path, results=earlier)))
        make_validate = early.make_validate if config.run.patience else None
        run = prepare(
            plan, config, data, directory, checkpoints, shapes, noted, start, tracker, interrupt.check, pace,
            make_validate,
        )  # fmt: skip
        stack.callback(run.log.close)
        stack.callback(run.feed.close)
        run.progress.setdefault("teacher", teacher(config))  # which may have gone when the run is continued
        if start is not None:
            between = functools.partial(interrupt.check, "computing features")
            run.progress["baselines"] = probe.baselines(plan, config, start, data, between)
        if limit and stored is None:
            begin = functools.partial(restore_or_start, checkpoints=checkpoints, shapes=shapes, start=start)
            plan = budget.fit(run, plan, given, data, noted, begin, interrupt.check)
        is_whole = train_epochs(run, interrupt)
        if folds and is_whole:
            out_of_fold.keep(run, plan, folds, extend, interrupt.check)
        return finish(run, plan)


def train_epochs(run: Run, interrupt: Interrupt) -> bool:
    """Trains the epochs that are left, with what is due after each; returns whether all were: not where the time was
    up. Raises as `train_epoch` does."""
    for epoch in range(int(run.state.step) // run.length, run.epochs):
        if early.is_over(run.progress, epoch, run.config.run.patience):
            break  # and was killed before it wrote its results
        if not train_epoch(run, epoch, interrupt):
            run.log.print(durations.time_up(epoch, run.epochs))
            return False
        if run.evaluation is not None:
            run.results = evaluate(run, epoch + 1)
            run.log.write("evaluation", run.results)
        early.validate(run, epoch + 1)
        is_over = early.is_over(run.progress, epoch + 1, run.config.run.patience)
        is_spent = budget.is_spent(run, epoch + 1)
        save_if_due(run, epoch + 1, interrupt, is_over or is_spent)
        if is_over:
            run.log.print(durations.stopped_early(run.progress["best_on_val"], epoch + 1, run.config.run.patience))
            break
        if is_spent:
            run.log.print(durations.time_up(epoch + 1, run.epochs))
            return False
    return True


@contextlib.contextmanager
def begun(
    directory: RunDir, config: ml_collections.ConfigDict, data: dataset.Data, noted: dict, accept_data: bool
) -> Iterator[None]:
    """Creates the directory and keeps a second run out of it; in the first process alone. `noted`: see
    `RunDir.begin`."""
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


def evaluate(run: Run, epoch: int) -> dict:
    """Evaluates the state on the test set, and notes the best epoch so far in the record."""
    evaluation, run.evaluation = run.evaluation or run.evaluate(run.variables), None
    figures, run.answers = metrics.summarize(evaluation.sums, run.facts.groups()), evaluation.answers
    run.pace.end_evaluation()
    best, accuracy = run.progress["best_on_test"], figures["ensemble"]["accuracy"]
    if counts(run, epoch) and (best is None or accuracy > best["accuracy"]):
        run.progress["best_on_test"] = {"epoch": epoch, "accuracy": accuracy}
    results = {"epoch": epoch, "step": int(run.state.step), **figures}
    run.log.print(messages.evaluation_line(results | {"split": run.facts.split}))
    return results


def finish(run: Run, plan: TrainingPlan) -> dict:
    """The last figures: written when the checkpoint that they come from is on disk, and after the plots."""
    step = int(run.state.step)
    # The run may have been killed between its last checkpoint and here, or its time was up within an epoch.
    newest = run.results if run.results and run.results["step"] == step else None
    figures = newest or evaluate(run, step // run.length)
    results = records.final(figures, run.facts, run.progress, run.device, run.config.to_dict())
    features = features_of(run, plan)
    if features is not None:
        results["baselines"] = heads.baselines(features, class_vectors.of_run(run.directory, run.progress))
    elif found := run.progress.get("baselines"):
        results["baselines"] = found
    if "best_on_val" in run.progress:
        results["best_on_val"] = run.progress["best_on_val"] | {"patience": run.config.run.patience}
    results |= run.progress["teacher"]
    run.checkpoints.wait()
    keeping.check_place(run)
    if is_first():
        with run.directory.writing():
            nearest = neighbours.finder(plan, run.variables, run.data, features)
            assessed = assess(loaded(run, plan), run.data, features)
            write(run.directory, results, run.answers, run.data, nearest, assessed)
    run.log.finish({name: value for name, value in results.items() if name != "config"})
    run.log.print(f"\n{results['dataset']}: {run.directory}\n{tables.table(results)}")
    return results


def features_of(run: Run, plan: TrainingPlan) -> dataset.Data | None:
    """The run's data with the features of the backbone that the experts share: what simple classifiers reach on them is
    the least that adapters must be worth. None without such a backbone, or where they would take minutes."""
    if run.on_features:
        return run.inputs
    can = run.frozen is not None and heads.are_affordable(run.facts)
    return trunk.featurize(plan, run.frozen, run.data) if can else None


def loaded(run: Run, plan: TrainingPlan) -> Loaded:
    """The run's newest state as a checkpoint that was read."""
    variables = run.variables
    if plan.trunk is not None:
        variables = variables | {"trunk": trunk.read(run.directory, run.progress["trunk"], plan)}
    return Loaded(run.directory, run.config, plan, variables, int(run.state.step), run.progress, [])


def teacher(config: ml_collections.ConfigDict) -> dict:
    """The figures of the ensemble that a student learned from, by the name `teacher`; nothing where there is none, or
    its directory has gone since."""
    found = RunDir(config.teacher.run).read_results() if config.teacher.run else None
    return {"teacher": tables.ensemble(found)} if found else {}
