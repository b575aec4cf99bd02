"""A run, from a configuration to `results.json`: `train` reads top to bottom."""

import collections
import contextlib
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh, NamedSharding

from ncl_jax import build, checks, console, metrics, records, report, sharding, steps
from ncl_jax.checkpoint import Checkpoints
from ncl_jax.data import feeds, pipeline
from ncl_jax.errors import Diverged, Interrupted
from ncl_jax.evaluate import make_evaluate
from ncl_jax.interrupt import Interrupt
from ncl_jax.logs import RunLog, SilentLog
from ncl_jax.rundir import RunDir


def is_first() -> bool:
    """Whether this process is the one that writes and speaks; the others only compute and save their part."""
    return jax.process_index() == 0


@dataclasses.dataclass
class Run:
    """What the epochs share. The last seven change."""

    config: ml_collections.ConfigDict
    directory: RunDir
    facts: pipeline.Facts
    device: str  # in words
    checkpoints: Checkpoints
    log: RunLog
    length: int  # steps in an epoch
    epochs: int  # in all
    learning_rates: np.ndarray  # [epochs]
    key: jax.Array  # of the steps
    feed: feeds.Feed
    advance: Callable  # (state, history, key, source, steps left) -> (state, history, last metrics, steps done)
    evaluate: Callable  # (variables) -> metrics.Sums
    state: steps.TrainState
    history: steps.Metrics  # [length] each: the metrics of the running epoch's steps
    known_from: int  # the first of them whose metrics are known
    progress: dict  # the host's record, saved with the state
    sums: metrics.Sums | None = None  # of an evaluation that the devices are still at
    results: dict | None = None  # of the newest evaluation

    @property
    def variables(self) -> dict[str, Any]:
        """The weights as a model takes them."""
        return {"params": self.state.params, "batch_stats": self.state.batch_stats}


def train(config: ml_collections.ConfigDict, workdir: str | pathlib.Path, extend: int = 0) -> dict:
    """Trains, or continues what `workdir` holds, and returns the content of `results.json`.

    The continued run equals one that was never stopped, bit for bit on the same hardware: the state holds the weights,
    the optimizer, the running statistics, the method's memory and the step; order and augmentation follow from seed
    and step. A finished run is answered from its directory.

    Args:
      config: of the run; it is not changed.
      workdir: the run's directory, created if need be.
      extend: epochs beyond `config.epochs`, at the schedule's last learning rate; everything before is as without.

    Raises:
      ConfigError: a bad value, `workdir` holds a run of another configuration, or another process works in it.
      DataError: the data cannot be read.
      CheckpointError: there are checkpoints and none can be read, or one cannot be saved.
      WriteError: the log cannot be written.
      Diverged: a loss became infinite or NaN.
      Interrupted: SIGTERM, SIGINT or SIGHUP came; the state has been saved.
    """
    config, directory = ml_collections.ConfigDict(config.to_dict()), RunDir(workdir)
    config.data.dir = str(pathlib.Path(config.data.dir).expanduser().absolute())  # evaluation may start elsewhere
    checks.validate(config)
    directory.check(config, saved=saved_config(directory))
    extend = max(checks.at_least("--extend", extend, 0), directory.read_extend())
    if directory.is_finished(config.epochs + extend):
        results = directory.read_results() or {}
        if is_first():
            console.say(f"{directory} holds this run, finished:\n{report.table(results)}")
        return results
    directory.check_version()
    mesh = build.mesh(config)
    build.convolution(config, mesh)  # refused before anything is written
    split = build.data(config)
    checks.check_against_data(config, split.facts.num_train, split.facts.num_classes)
    directory.check(config, split.facts)
    with contextlib.ExitStack() as stack:
        stack.enter_context(begun(directory, config, split.facts, extend))
        checkpoints = stack.enter_context(contextlib.closing(Checkpoints(directory.path)))
        interrupt = stack.enter_context(Interrupt())
        run = prepare(config, split, mesh, directory, checkpoints, extend)
        stack.callback(run.log.close)
        for epoch in range(int(run.state.step) // run.length, run.epochs):
            train_epoch(run, epoch, interrupt)
            if run.sums is not None:
                run.results = evaluate(run, epoch + 1)
                run.log.write("evaluation", run.results)
            save_if_due(run, epoch + 1, interrupt)
        return finish(run)


@contextlib.contextmanager
def begun(directory: RunDir, config: ml_collections.ConfigDict, facts: pipeline.Facts, extend: int) -> Iterator[None]:
    """Creates the directory and keeps a second run out of it; in the first process alone."""
    if not is_first():
        yield
        return
    directory.begin(config, facts, extend)
    with directory.locked():
        yield


def saved_config(directory: RunDir) -> dict | None:
    """What the newest checkpoint says the run's configuration was, where the directory has lost its own file."""
    if directory.config.exists() or not directory.checkpoints.is_dir():
        return None
    with contextlib.closing(Checkpoints(directory.path, read_only=True)) as checkpoints:
        return (checkpoints.peek() or {}).get("config")


def prepare(
    config: ml_collections.ConfigDict,
    split: pipeline.Split,
    mesh: Mesh,
    directory: RunDir,
    checkpoints: Checkpoints,
    extend: int,
) -> Run:
    """Restores or initialises the state, puts the data on the devices and compiles the training step."""
    facts, place, epochs = split.facts, sharding.replicated(mesh), config.epochs + extend
    device = records.device_name(list(mesh.devices.flat))
    speak = console.say if is_first() else lambda line: None
    network = f"{config.model.num_experts} experts, {config.model.backbone}-{config.model.depth}"
    speak(records.description(facts, network, epochs, config.optim.batch_size, device, str(directory)))
    rates = build.learning_rates(config)
    for line in (*build.notes(config, mesh), *records.extension(config.epochs, extend, rates[-1]), "initialising"):
        speak(line)
    state, progress, lines = restore_or_start(config, facts, mesh, checkpoints)
    step, length = int(state.step), build.steps_per_epoch(config, facts)
    log = RunLog(directory, step, epochs * length, config.optim.batch_size) if is_first() else SilentLog()
    for line in (*lines, *log.notes, records.size(state.params)):
        log.print(line)
    keys = jax.jit(build.keys, static_argnums=0, out_shardings=place)(config.seed)
    feed = build.training_feed(config, split, keys.order, mesh)
    train_step = build.train_step(config, facts, mesh)
    zeros = steps.zero_history(train_step, feed.take, state, keys.step, next(feed.batches(0))[0], length)
    known, known_from = restore_history(zeros, progress.pop("history", {}), step % length)
    history = jax.device_put(known, place)
    began = time.perf_counter()
    advance = compile_step(train_step, feed, build.steps_per_call(config, mesh), place, (state, history, keys.step))
    log.print(f"compiled the training step in {time.perf_counter() - began:.1f} s")
    test = build.test_feed(config, split, mesh)
    return Run(
        config=config, directory=directory, facts=facts, device=device, checkpoints=checkpoints, log=log,
        length=length, epochs=epochs, learning_rates=np.append(rates, np.full(extend, rates[-1])), key=keys.step,
        feed=feed, advance=advance,
        evaluate=make_evaluate(build.predictor(config, facts.num_classes, mesh), test, mesh),
        state=state, history=history, known_from=known_from, progress=progress,
    )  # fmt: skip


def restore_or_start(
    config: ml_collections.ConfigDict, facts: pipeline.Facts, mesh: Mesh, checkpoints: Checkpoints
) -> tuple[steps.TrainState, dict, list[str]]:
    """The state to go on from, placed on the devices, the host's record, and lines that say where it came from."""
    initial = functools.partial(build.initial_state, config, facts)
    shapes = jax.eval_shape(initial)
    places = build.state_places(config, facts, mesh, shapes)
    target = jax.tree.map(lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), shapes, places)
    restored = checkpoints.restore(target)
    if restored is None:
        progress = {"seconds": 0.0, "images_per_second": [], "best_on_test": None, "config": config.to_dict()}
        return jax.jit(initial, out_shardings=places)(), progress, []
    checkpoints.set_aside(after=restored.step)
    return restored.state, restored.progress, [*restored.skipped, f"continuing at step {restored.step}"]


def restore_history(zeros: steps.Metrics, saved: dict, done: int) -> tuple[steps.Metrics, int]:
    """The metrics of the running epoch's steps, and from which step of it on they are known.

    A run stopped within an epoch goes on with those that it saved of the `done` steps, unless the code has other
    metrics by now: then the epoch's figures are those of the steps that follow.
    """
    is_list = lambda value: isinstance(value, list)  # noqa: E731
    if str(jax.tree.structure(zeros)) != str(jax.tree.structure(saved, is_leaf=is_list)):
        return zeros, done
    return jax.tree.map(lambda values, known: np.append(np.float32(known), values[len(known) :]), zeros, saved), 0


def compile_step(
    train_step: Callable, feed: feeds.Feed, limit: int, place: NamedSharding, arguments: tuple
) -> Callable:
    """`advance(state, history, key, source, left) -> (state, history, last metrics, steps done)`, compiled.

    One call does up to `limit` steps. `arguments` are the first state, history and key.
    """
    advance = steps.make_advance(train_step, feed.take, several=limit > 1)
    source, _ = next(feed.batches(0))
    counts = [jax.device_put(np.int32(n), place) for n in range(limit + 1)]
    places = jax.tree.map(lambda leaf: leaf.sharding, arguments[0])
    jitted = jax.jit(advance, donate_argnums=(0, 1), out_shardings=(places, place, place))
    program = jitted.lower(*arguments, source, counts[1]).compile()
    return lambda *rest: (*program(*rest[:-1], counts[min(limit, rest[-1])]), min(limit, rest[-1]))


def train_epoch(run: Run, epoch: int, interrupt: Interrupt) -> None:
    """Trains the rest of epoch `epoch` (from 0), sends an evaluation that is due after it, and logs it.

    Raises:
      Diverged: a metric is not finite; nothing since the last checkpoint has been saved.
      Interrupted: in the middle of the epoch; the state has been saved.
    """
    began, first = time.perf_counter(), int(run.state.step) % run.length
    done = run.length - run_steps(run, run.length - first, epoch, interrupt)
    due = epoch + 1 == run.epochs or (epoch + 1) % run.config.eval_every == 0
    if due and done == run.length:
        run.sums = run.evaluate(run.variables)
    known = slice(run.known_from, done)
    history = jax.tree.map(lambda values: np.asarray(values)[known], run.history)
    check_finite(run, history, epoch * run.length + run.known_from)
    seconds = time.perf_counter() - began
    run.progress["seconds"] += seconds
    if done < run.length:
        run.log.flush()
        values = {"history": jax.tree.map(np.ndarray.tolist, history)} if not run.known_from else {}
        run.checkpoints.save(run.state, run.progress | values)
        run.checkpoints.wait()
        stopped = f"stopped at step {int(run.state.step)}, saved: the same command continues the run"
        raise Interrupted(stopped, interrupt.number)
    run.directory.check_exists()
    run.known_from = 0
    speed = (run.length - first) * run.config.optim.batch_size / seconds
    record = records.epoch(history, epoch + 1, (epoch + 1) * run.length, run.learning_rates[epoch], speed)
    run.progress["images_per_second"].append(speed)
    run.log.write("train", record)
    left = records.time_left(run.progress["images_per_second"], run.length * run.config.optim.batch_size, run.epochs)
    run.log.print(records.epoch_line(record, run.epochs, seconds, left))
    if warning := records.collapse_warning(record):
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


def check_finite(run: Run, history: steps.Metrics, first_step: int) -> None:
    """Raises Diverged where one of the metrics `[steps]` is not finite, naming the step, its parts and the way back."""
    finite = np.all([np.isfinite(values) for values in jax.tree.leaves(history)], axis=0)
    if finite.all():
        return
    bad = int(np.argmin(finite))
    named = {"loss": history["loss"], **history["parts"], "grad_norm": history["grad_norm"]}
    row = ", ".join(f"{name}={values[bad]:.4g}" for name, values in named.items())
    saved = run.checkpoints.steps()
    good = f"the last good checkpoint is step {saved[-1]} in {run.checkpoints.path}" if saved else "no checkpoint yet"
    raise Diverged(
        f"step {first_step + bad + 1} is not finite: {row}; {good}. Lower optim.learning_rate, set loss.ramp_steps "
        "or lengthen optim.warmup_epochs, in another --workdir"
    )


def evaluate(run: Run, epoch: int) -> dict:
    """Evaluates the state on the test set, and notes the best epoch so far in the record."""
    sums, run.sums = run.sums or run.evaluate(run.variables), None
    figures = metrics.summarize(sums, run.facts.groups())
    best, accuracy = run.progress["best_on_test"], figures["ensemble"]["accuracy"]
    if best is None or accuracy > best["accuracy"]:
        run.progress["best_on_test"] = {"epoch": epoch, "accuracy": accuracy}
    results = {"epoch": epoch, "step": int(run.state.step), **figures}
    run.log.print(records.evaluation_line(results))
    return results


def finish(run: Run) -> dict:
    """The last figures: written when the checkpoint that they come from is on disk, and after the plots."""
    # The run may have been killed between its last checkpoint and here.
    figures = run.results or evaluate(run, run.epochs)
    results = records.final(figures, run.facts, run.progress, run.device, run.config.to_dict())
    run.checkpoints.wait()
    run.directory.check_exists()
    if is_first():
        with run.directory.writing():
            report.write(run.directory, results)
    run.log.print(f"\n{results['dataset']}: {run.directory}\n{report.table(results)}")
    return results


def save_if_due(run: Run, epoch: int, interrupt: Interrupt) -> None:
    """Saves a checkpoint after the epochs that ask for one. Raises Interrupted if the run was asked to stop."""
    last = epoch == run.epochs
    stop = interrupt.requested()
    if last or epoch % run.config.checkpoint_every == 0 or stop:
        run.log.flush()
        newest = run.results if run.results and run.results["epoch"] == epoch else None
        run.checkpoints.save(run.state, run.progress, newest["ensemble"]["accuracy"] if newest else None)
    if stop and not last:
        run.checkpoints.wait()
        raise Interrupted(f"stopped after epoch {epoch}, saved: the same command continues the run", interrupt.number)
