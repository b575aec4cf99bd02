"""A run, from a configuration to `results.json`: `train` reads top to bottom."""

import collections
import contextlib
import dataclasses
import fcntl
import functools
import json
import pathlib
import time
from collections.abc import Callable

import jax
import ml_collections
import numpy as np

from ncl_jax import build, metrics, records, report, sharding, steps
from ncl_jax import config as config_lib
from ncl_jax.checkpoint import Checkpoints
from ncl_jax.data import pipeline
from ncl_jax.evaluate import make_evaluate
from ncl_jax.interrupt import Interrupt
from ncl_jax.logs import RunLog, SilentLog, write_text
from ncl_jax.models import cpu_conv


class Diverged(RuntimeError):
    """A loss or gradient that is not finite."""


class Interrupted(RuntimeError):
    """The run was asked to stop and has saved its state."""


def is_first() -> bool:
    """Whether this process is the one that writes and speaks; the others only compute and save their part."""
    return jax.process_index() == 0


@dataclasses.dataclass
class Run:
    """What the epochs share. Only `state`, `progress` and `results` change."""

    config: ml_collections.ConfigDict
    facts: pipeline.Facts
    checkpoints: Checkpoints
    log: RunLog
    names: tuple[str, ...]  # of a step's metrics
    learning_rates: np.ndarray  # [epochs]
    order_of: Callable  # epoch -> row numbers [N]
    data: tuple  # the run's step key, images and labels, on the devices
    advance: Callable  # (state, *data, order, steps left) -> (state, row, steps done)
    evaluate: Callable  # (params, batch_stats) -> metrics.Sums
    state: steps.TrainState
    progress: dict  # the host's record, saved with the state
    sums: metrics.Sums | None = None  # of an evaluation that the devices are still at
    results: dict | None = None  # of the newest evaluation

    @property
    def length(self) -> int:
        """Steps in an epoch."""
        return len(self.state.history)


def train(config: ml_collections.ConfigDict, workdir: str | pathlib.Path) -> dict:
    """Trains, or continues what `workdir` holds, and returns the content of `results.json`.

    The continued run equals one that was never stopped, bit for bit on the same hardware: the state holds the weights,
    the optimizer, the running statistics, the queue and the step; order and augmentation follow from seed and step.

    Raises:
      ConfigError: a bad value, `workdir` holds a run of another configuration, or another process works in it.
      DataError: the data cannot be read.
      CheckpointError: there are checkpoints and none can be read.
      Diverged: a loss became infinite or NaN.
      Interrupted: SIGTERM or SIGINT came; the state has been saved.
    """
    config_lib.validate(config)
    mesh = build.mesh(config)
    split = build.data(config)
    config_lib.check_against_data(config, split.facts.num_train, split.facts.num_classes)
    workdir = open_workdir(pathlib.Path(workdir), config, split.facts)
    if (workdir / "results.json").exists():  # written last
        results = json.loads((workdir / "results.json").read_text())
        if is_first():
            print(f"{workdir} holds this run, finished:\n{report.table(results)}")
        return results
    with locked(workdir), contextlib.closing(Checkpoints(workdir)) as checkpoints, Interrupt() as interrupt:
        run = prepare(config, split, mesh, workdir, checkpoints)
        with contextlib.closing(run.log):
            for epoch in range(int(run.state.step) // run.length, config.epochs):
                train_epoch(run, epoch, interrupt)
                if run.sums is not None:
                    run.results = evaluate(run, epoch + 1)
                    run.log.write("evaluation", run.results)
                save_if_due(run, epoch + 1, interrupt)
            # The run may have been killed between its last checkpoint and here.
            results = records.final(run.results or evaluate(run, config.epochs), config, run.facts, run.progress, mesh)
            if is_first():
                report.write(workdir, results)
            run.log.print(f"\n{results['dataset']}: {workdir}\n{report.table(results)}")
    return results


@contextlib.contextmanager
def locked(workdir: pathlib.Path):
    """Keeps a second run out of the run's directory. Raises ConfigError if there is one already."""
    if not is_first():
        yield
        return
    with (workdir / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise config_lib.ConfigError(
                f"another process is training in {workdir}: wait for it, or stop it"
            ) from error
        yield


def open_workdir(workdir: pathlib.Path, config: ml_collections.ConfigDict, facts: pipeline.Facts) -> pathlib.Path:
    """Creates the run's directory with `config.json` and `dataset.json`, or checks that it holds the same run.

    Raises:
      ConfigError: it holds another run, or cannot be written.
    """
    path, data_path = workdir / "config.json", workdir / "dataset.json"
    config.data.dir = str(pathlib.Path(config.data.dir).expanduser().absolute())  # evaluation may start elsewhere
    content = config.to_dict()
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        differing = config_lib.differences(json.loads(path.read_text()), content) if path.exists() else []
        if data_path.exists() and pipeline.Facts.from_json(data_path.read_text()) != facts:
            differing.append(f"the data: another than in {data_path}")
        if differing:
            raise config_lib.ConfigError(
                f"{workdir} holds a run of another configuration: {'; '.join(differing)}. Repeat that run's command, "
                "or give another --workdir"
            )
        if is_first():
            write_text(path, json.dumps(content, indent=1) + "\n")
            write_text(data_path, facts.to_json())
    except OSError as error:
        raise config_lib.ConfigError(f"cannot write to --workdir={workdir}: {error}") from error
    except (TypeError, ValueError) as error:
        raise config_lib.ConfigError(f"{path} or {data_path} is not what a run writes: {error}") from error
    return workdir


def prepare(config, split, mesh, workdir, checkpoints) -> Run:
    """Restores or initialises the state, puts the data on the devices and compiles the training step."""
    facts, place = split.facts, sharding.replicated(mesh)
    state, progress, notes = restore_or_start(config, facts, mesh, checkpoints)
    total = config.epochs * len(state.history)
    log = RunLog(workdir, int(state.step), total, config.optim.batch_size) if is_first() else SilentLog()
    for line in (records.description(config, facts, mesh, workdir), *cpu_conv.notes(), *notes, *log.notes):
        log.print(line)
    keys = jax.jit(build.keys, static_argnums=0, out_shardings=place)(config.seed)
    images = sharding.put_rows(mesh, split.train_images)
    data = (keys.step, images, jax.device_put(split.train_labels, place))
    epoch_order = jax.jit(steps.epoch_order, static_argnums=2, out_shardings=place)
    order_of = lambda epoch: epoch_order(keys.order, epoch, facts.num_train)  # noqa: E731
    began = time.perf_counter()
    advance = compile_step(config, facts, mesh, (state, *data, order_of(0)))
    log.print(f"compiled the training step in {time.perf_counter() - began:.1f} s")
    return Run(
        config=config, facts=facts, checkpoints=checkpoints, log=log, names=build.metric_names(config, facts),
        learning_rates=build.learning_rates(config), order_of=order_of, data=data, advance=advance,
        evaluate=make_evaluate(config, split, mesh), state=state, progress=progress,
    )  # fmt: skip


def restore_or_start(config, facts, mesh, checkpoints):
    """The state to go on from, placed on the devices, the host's record, and lines that say where it came from."""
    initial = functools.partial(build.initial_state, config, facts)
    shapes = jax.eval_shape(initial)
    places = sharding.state_shardings(mesh, shapes, config.model.num_experts)
    target = jax.tree.map(lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), shapes, places)
    restored = checkpoints.restore(target)
    if restored is None:
        return (
            jax.jit(initial, out_shardings=places)(),
            {"seconds": 0.0, "images_per_second": [], "best_on_test": None},
            [],
        )
    checkpoints.set_aside(after=restored.step)
    return restored.state, restored.progress, [*restored.skipped, f"continuing at step {restored.step}"]


def compile_step(config, facts, mesh, arguments):
    """`advance(state, key, images, labels, order, left) -> (state, row, steps done)`, compiled for these arguments.

    On accelerators one call does up to `steps_per_call` steps; on CPU one.
    """
    train_step = build.train_step(config, facts, mesh)
    limit, place = build.steps_per_call(config), sharding.replicated(mesh)
    places = jax.tree.map(lambda leaf: leaf.sharding, arguments[0])
    compile_ = functools.partial(jax.jit, donate_argnums=0, out_shardings=(places, place))
    if limit == 1:
        single = compile_(train_step).lower(*arguments).compile()
        return lambda state, *rest: (*single(state, *rest[:-1]), 1)
    counts = {n: jax.device_put(np.int32(n), place) for n in range(1, limit + 1)}
    multi = compile_(steps.make_multi_step(train_step)).lower(*arguments, counts[1]).compile()
    return lambda state, *rest: (*multi(state, *rest[:-1], counts[min(limit, rest[-1])]), min(limit, rest[-1]))


def train_epoch(run: Run, epoch: int, interrupt: Interrupt) -> None:
    """Trains the rest of epoch `epoch` (from 0), sends an evaluation that is due after it, and logs it.

    Raises:
      Diverged: a metric is not finite; nothing since the last checkpoint has been saved.
      Interrupted: in the middle of the epoch; the state has been saved.
    """
    began, first = time.perf_counter(), int(run.state.step) % run.length
    done = run.length - run_steps(run, run.order_of(epoch), run.length - first, epoch, interrupt)
    due = epoch + 1 == run.config.epochs or (epoch + 1) % run.config.eval_every == 0
    if due and done == run.length:
        run.sums = run.evaluate(run.state.params, run.state.batch_stats)
    history = check_finite(run, np.asarray(run.state.history)[:done], epoch * run.length)
    seconds = time.perf_counter() - began
    run.progress["seconds"] += seconds
    if done < run.length:
        run.log.flush()
        run.checkpoints.save(run.state, run.progress)
        raise Interrupted(f"stopped at step {int(run.state.step)}, saved: the same command continues the run")
    speed = (run.length - first) * run.config.optim.batch_size / seconds
    record = records.epoch(history, run.names, epoch + 1, run.learning_rates[epoch], speed)
    run.progress["images_per_second"].append(speed)
    run.log.write("train", record)
    run.log.print(records.epoch_line(record, run.config.epochs, seconds))
    if warning := records.collapse_warning(record):
        run.log.print(warning)


def run_steps(run: Run, order: jax.Array, count: int, epoch: int, interrupt: Interrupt) -> int:
    """Up to `count` training steps; returns how many an interrupt left.

    Nothing waits for the newest calls: the bar shows the losses of an earlier one.
    """
    pending = collections.deque()
    text = f"epoch {epoch + 1}/{run.config.epochs} lr {run.learning_rates[epoch]:.4g}"
    with jax.transfer_guard("disallow"):
        while count and not interrupt.requested():
            run.state, row, done = run.advance(run.state, *run.data, order, count)
            count -= done
            pending.append((row, done))
            if len(pending) > 2:
                show(run, *pending.popleft(), text)
    run.log.advance(sum(done for _, done in pending), text)
    return count


def show(run: Run, row: jax.Array, steps_done: int, text: str) -> None:
    """Moves the bar on by a finished call, with its last step's losses."""
    values = dict(zip(run.names, jax.device_get(row), strict=True))
    parts = " ".join(f"{name} {values[name]:.3f}" for name in run.names if name not in steps.DIAGNOSTICS)
    run.log.advance(steps_done, f"{text} {parts}")


def check_finite(run: Run, history: np.ndarray, first_step: int) -> np.ndarray:
    """Returns the metrics `[steps, M]`, or raises Diverged naming the step, its parts and the way back."""
    bad = np.flatnonzero(~np.isfinite(history).all(axis=1))
    if not bad.size:
        return history
    row = ", ".join(f"{name}={value:.4g}" for name, value in zip(run.names, history[bad[0]], strict=True))
    saved = run.checkpoints.steps()
    good = f"the last good checkpoint is step {saved[-1]} in {run.checkpoints.path}" if saved else "no checkpoint yet"
    raise Diverged(
        f"step {first_step + bad[0] + 1} is not finite: {row}; {good}. Lower optim.learning_rate, set loss.ramp_steps "
        "or lengthen optim.warmup_epochs, in another --workdir"
    )


def evaluate(run: Run, epoch: int) -> dict:
    """Evaluates the state on the test set, and notes the best epoch so far in the record."""
    sums, run.sums = run.sums or run.evaluate(run.state.params, run.state.batch_stats), None
    figures = metrics.summarize(sums, run.facts.groups())
    best, accuracy = run.progress["best_on_test"], figures["ensemble"]["accuracy"]
    if best is None or accuracy > best["accuracy"]:
        run.progress["best_on_test"] = {"epoch": epoch, "accuracy": accuracy}
    results = {"epoch": epoch, "step": int(run.state.step), **figures}
    run.log.print(records.evaluation_line(results))
    return results


def save_if_due(run: Run, epoch: int, interrupt: Interrupt) -> None:
    """Saves a checkpoint after the epochs that ask for one. Raises Interrupted if the run was asked to stop."""
    last = epoch == run.config.epochs
    stop = interrupt.requested()
    if last or epoch % run.config.checkpoint_every == 0 or stop:
        run.log.flush()
        evaluated = run.results is not None and run.results["epoch"] == epoch
        run.checkpoints.save(run.state, run.progress, run.results["ensemble"]["accuracy"] if evaluated else None)
    if stop and not last:
        raise Interrupted(f"stopped after epoch {epoch}, saved: the same command continues the run")
