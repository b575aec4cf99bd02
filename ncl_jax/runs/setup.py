"""Setting a run up: its state, its data on the devices, its compiled program."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.sharding import NamedSharding

from ncl_jax.config import build, costs, loading
from ncl_jax.config import plan as plans
from ncl_jax.config.plan import TrainingPlan
from ncl_jax.data import dataset
from ncl_jax.data.feeds.feed import Feed
from ncl_jax.errors import CheckpointError
from ncl_jax.evaluation import metrics
from ncl_jax.evaluation.step import make_evaluate
from ncl_jax.runs import class_vectors, heads, messages, pretrained, trunk
from ncl_jax.runs.timing import Pace
from ncl_jax.runtime import console, startup
from ncl_jax.runtime.devices import replicated
from ncl_jax.storage import records, trackers
from ncl_jax.storage.checkpoint import Checkpoints
from ncl_jax.storage.directory import RunDir
from ncl_jax.storage.log import RunLog, SilentLog
from ncl_jax.training import steps


def is_first() -> bool:
    """Whether this process is the one that writes and prints; the others only compute and save their part."""
    return jax.process_index() == 0


@dataclasses.dataclass
class Run:
    """What the epochs share. The last eleven change.

    `frozen`: the variables of a frozen backbone in whose blocks the experts have adapters, on the devices; None: the
    experts have no such backbone, or see its features.
    """

    config: ml_collections.ConfigDict
    directory: RunDir
    facts: dataset.Facts
    data: dataset.Data  # what it is trained on and evaluated on
    inputs: dataset.Data  # the same as the experts see it: with a frozen backbone, features
    device: str  # in words
    checkpoints: Checkpoints
    log: RunLog
    length: int  # steps in an epoch
    epochs: int  # in all
    learning_rates: np.ndarray  # [epochs]
    key: jax.Array  # of the steps
    feed: Feed
    advance: Callable  # (state, history, key, source, steps left) -> (state, history, last metrics, steps done)
    evaluate: Callable  # (variables) -> metrics.Evaluation
    validate: Callable | None  # (variables) -> metrics.Evaluation of the val split, of runs that may stop early
    are_finite: Callable  # (state) -> bool [leaves], see `steps.are_finite`
    term_fields: Mapping[str, Sequence[str]]  # what feeds a loss term, see `Objective.fields`
    pace: Pace
    state: steps.TrainState
    history: steps.Metrics  # [length] each: the metrics of the running epoch's steps
    known_from: int  # the first of them whose metrics are known
    progress: dict  # the host's record, saved with the state
    frozen: Any = None
    shown: float = 0.0  # when the last epoch's line was, by the clock of `pace`
    is_estimated: bool = False  # whether it was said how long the run will take
    evaluation: metrics.Evaluation | None = None  # that the devices are still at
    results: dict | None = None  # of the newest one that is done
    answers: list[metrics.Answers] = dataclasses.field(default_factory=list)  # likewise

    @property
    def on_features(self) -> bool:
        """Whether the experts see the features of a frozen backbone."""
        return self.inputs is not self.data

    @property
    def variables(self) -> dict[str, Any]:
        """The weights as a model takes them; of heads alone, of features."""
        own = {"params": self.state.params, "batch_stats": self.state.batch_stats}
        return own if self.frozen is None else own | {"trunk": self.frozen}


def prepare(
    plan: TrainingPlan,
    config: ml_collections.ConfigDict,
    data: dataset.Data,
    directory: RunDir,
    checkpoints: Checkpoints,
    shapes: steps.TrainState,
    noted: Mapping[str, Any],
    start: pretrained.Start | None = None,
    tracker: str = "",
    between: Callable[[str], None] = lambda doing: None,
    pace: Pace | None = None,
    make_validate: Callable | None = None,
) -> Run:
    """Restores or initialises the state of these `shapes`, puts the data on the devices, compiles the training step.

    `between` is called, with what is being done, where the work can stop without a loss. `noted`: what `config.json`
    holds beside the fields, see `RunDir.begin`; `make_validate`: see `early`.

    Raises:
      ConfigError: the compiled step would take more memory than there is.
      CheckpointError: there are checkpoints and none can be read.
    """
    assert plan.mesh is not None
    extend, place, rates = noted["extend"], replicated(plan.mesh), plan.learning_rates
    epochs, pace = config.epochs + extend, pace or Pace()
    pace.steps_per_call = plan.steps_per_call
    device = records.device_name(list(plan.mesh.devices.flat))
    if is_first():
        console.say_text(messages.opening(config, data, build.notes(config, plan.mesh), noted, device, str(directory)))
    frozen, inputs = trunk_of(plan, directory, checkpoints, start), data
    if plan.on_features:
        inputs = trunk.featurize(plan, frozen, data, functools.partial(between, "computing features"))
    shared = None if plan.lower is None else jax.device_put(frozen, place)
    state, progress, lines = restore_or_start(plan, config, checkpoints, shapes, start, inputs)
    step, length = int(state.step), plan.steps_per_epoch
    if step > epochs * length:
        raise CheckpointError(
            f"{directory} holds a run of {step // length} epochs, more than {epochs}: pass its --extend again"
        )
    log = open_log(directory, step, epochs * length, plan.batch_size, tracker)
    machine = {"convolution": plan.operations, "device": device}
    other = messages.other_machine(progress, machine)
    for line in (*lines, *log.notes, *other, messages.size(state.params)):
        log.print(line)
    if list((progress.get("config") or {}).get("data_changed", ())) != list(noted.get("data_changed", ())):
        progress |= {"best_on_test": None, "best": None}  # of other test images
    progress |= {"config": config.to_dict() | noted} | machine
    keys = jax.jit(plans.keys, static_argnums=0, out_shardings=place)(plan.seed)
    feed = loading.training_feed(plan, inputs, keys.order)
    train_step = jax.jit(plans.train_step(plan, cut=feed.cut), inline=True)  # traced once for its metrics and itself
    zeros = steps.zero_history(train_step, feed.take, state, keys.step, feed.like(), length, *given(shared))
    known, known_from = restore_history(zeros, progress.pop("history", {}), step % length)
    history = jax.device_put(known, place)
    began = time.perf_counter()
    arguments = (state, history, keys.step)
    advance = compile_step(train_step, feed, plan.steps_per_call, place, arguments, *given(shared))
    pace.compilation = time.perf_counter() - began
    log.print(f"compiled the training step in {pace.compilation:.1f} s")
    log.print(messages.loss_terms(zeros["parts"], config, plan.objective.fields))
    test = loading.test_feed(plan, inputs.test, plan.facts.split)
    predictor = plans.predictor(plan, on_features=plan.on_features)
    return Run(
        config=config, directory=directory, facts=plan.facts, data=data, inputs=inputs, device=device,
        checkpoints=checkpoints, log=log, length=length, epochs=epochs,
        learning_rates=with_extension(rates, extend),
        key=keys.step, feed=feed, advance=advance,
        evaluate=make_evaluate(predictor, test, plan.mesh, plans.to_train_prior(plan, None)),
        validate=make_validate(plan, config, data, frozen) if make_validate else None,
        are_finite=jax.jit(steps.are_finite, out_shardings=place, compiler_options=startup.QUICK),
        term_fields=plan.objective.fields, pace=pace,
        state=state, history=history, known_from=known_from, progress=progress, frozen=shared,
    )  # fmt: skip


def given(frozen: Any) -> tuple:
    """What a training step takes beside state, key and batch: a frozen backbone's variables, where there are any."""
    return () if frozen is None else (frozen,)


def with_extension(rates: np.ndarray, extend: int) -> np.ndarray:
    """The learning rates of all epochs: those of `extend` more are the last one."""
    return np.append(rates, np.full(extend, rates[-1]))


def restart(run: Run, state: steps.TrainState) -> None:
    """Gives a run that has not begun the state to begin with."""
    place = run.history["loss"].sharding
    zeros = jax.tree.map(lambda values: np.zeros(values.shape, values.dtype), run.history)
    run.state, run.history = state, jax.device_put(zeros, place)


def replan(run: Run, plan: TrainingPlan, config: ml_collections.ConfigDict, noted: dict) -> None:
    """Gives a run that has not begun a plan of another number of epochs."""
    assert plan.mesh is not None
    run.config, run.epochs = config, config.epochs + noted["extend"]
    run.learning_rates = with_extension(plan.learning_rates, noted["extend"])
    run.progress |= {"config": config.to_dict() | noted}
    train_step = jax.jit(plans.train_step(plan, cut=run.feed.cut), inline=True)
    arguments = (run.state, run.history, run.key)
    place = replicated(plan.mesh)
    run.advance = compile_step(train_step, run.feed, plan.steps_per_call, place, arguments, *given(run.frozen))


def trunk_of(plan: TrainingPlan, directory: RunDir, checkpoints: Checkpoints, start: pretrained.Start | None) -> Any:
    """The frozen backbone's variables, kept in the run's directory; None where each expert has its own."""
    if plan.trunk is None:
        return None
    if start is None:
        record = checkpoints.peek() or {}
        class_vectors.of_run(directory, record)  # refused before it is needed
        return trunk.read(directory, record.get("trunk", ""), plan)
    if is_first():
        trunk.write(directory, start.trunk)
        if start.vectors is not None:
            class_vectors.write(directory, start.vectors)
    return start.trunk


def open_log(directory: RunDir, step: int, total_steps: int, batch_size: int, tracker: str) -> RunLog:
    """The log, and the tracker if one is named; the first process alone has them. Raises WriteError, see `RunLog`."""
    if not is_first():
        return SilentLog()
    log = RunLog(directory, step, total_steps, batch_size)
    if tracker:
        log.add(trackers.Guarded(tracker, directory, log.print))
    return log


def restore_or_start(
    plan: TrainingPlan,
    config: ml_collections.ConfigDict,
    checkpoints: Checkpoints,
    shapes: steps.TrainState,
    start: pretrained.Start | None,
    inputs: dataset.Data,
) -> tuple[steps.TrainState, dict, list[str]]:
    """The state to continue from, placed on the devices, the host's record, and lines that say where it came from;
    `inputs`: the data as the experts see it."""
    assert plan.mesh is not None
    places = plans.state_places(plan, shapes)
    target = jax.tree.map(lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), shapes, places)
    restored = checkpoints.restore(target)
    if restored is None:
        progress = records.new_progress() | {"config": config.to_dict()}
        program = startup.compile_once(functools.partial(plans.initial_state, plan), places)
        costs.check_program(program, plan.mesh.local_devices, "initial state")
        state = program()
        if start is None:
            return state, progress, []
        if start.trunk is not None:
            state = started(plan, config, state, start, inputs)
            progress |= {"trunk": trunk.digest(start.trunk)}
        return pretrained.apply(state, start), progress | {"pretrained": start.record}, [start.note]
    checkpoints.set_aside(after=restored.step)
    return (
        restored.state,
        records.new_progress() | restored.progress,
        [*restored.skipped, f"continuing at step {restored.step}"],
    )


def started(
    plan: TrainingPlan,
    config: ml_collections.ConfigDict,
    state: steps.TrainState,
    start: pretrained.Start,
    inputs: dataset.Data,
) -> steps.TrainState:
    """The state at step 0 with what follows from the frozen backbone's variables, its training features and the
    vectors of the classes' names."""
    means, train = config.model.head_start == "class_mean", inputs.train
    vectors = start.vectors if config.model.head_start == "text" else None
    if plan.lower is not None:
        state = heads.with_copies(state, start.trunk)
        train = trunk.of_training(plan, start.trunk, inputs) if means else train
    return heads.start(plan, state, train.images, train.labels, means, vectors)


def restore_history(zeros: steps.Metrics, saved: dict, done: int) -> tuple[steps.Metrics, int]:
    """The metrics of the running epoch's steps, and from which step of it on they are known.

    A run stopped within an epoch continues with those that it saved of the `done` steps, unless the code has other
    metrics by now: then the epoch's figures are those of the steps that follow.
    """
    is_list = lambda value: isinstance(value, list)  # noqa: E731
    alike = str(jax.tree.structure(zeros)) == str(jax.tree.structure(saved, is_leaf=is_list))
    if not alike or any(len(known) != done for known in jax.tree.leaves(saved, is_leaf=is_list)):
        return zeros, done
    return jax.tree.map(
        lambda values, known: np.append(np.asarray(known, values.dtype), values[len(known) :]), zeros, saved
    ), 0


def compile_step(
    train_step: Callable, feed: Feed, limit: int, place: NamedSharding, arguments: tuple, *frozen: Any
) -> Callable:
    """`advance(state, history, key, source, left) -> (state, history, last metrics, steps done)`, compiled.

    One call does up to `limit` steps, fewer where fewer are `left`. `arguments` are the first state, history and key;
    `frozen`: see `given`.
    """
    counts = [jax.device_put(np.int32(n), place) for n in range(limit + 1)]
    program = lower_step(train_step, feed, limit, arguments, counts[1], *frozen).compile()
    costs.check_program(program, place.addressable_devices, "training step")
    return lambda *rest: (*program(*rest[:-1], counts[min(limit, rest[-1])], *frozen), min(limit, rest[-1]))


def lower_step(
    train_step: Callable, feed: Feed, limit: int, arguments: tuple, count: Any, *frozen: Any
) -> jax.stages.Lowered:
    """The program of `compile_step` before compilation; `arguments`, the `count` and `frozen` may be shapes."""
    advance = steps.make_advance(train_step, feed.take, several=limit > 1)
    places = jax.tree.map(lambda leaf: leaf.sharding, arguments[0])
    outputs = (places, count.sharding, count.sharding)
    return jax.jit(advance, donate_argnums=(0, 1), out_shardings=outputs).lower(*arguments, feed.like(), count, *frozen)
