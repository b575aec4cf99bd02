"""A run that must fit a time: how many views and epochs it gets, and whether its time is up."""

import time
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.experimental import multihost_utils

from ncl_jax.config import build, schedule
from ncl_jax.config.plan import TrainingPlan
from ncl_jax.data import dataset
from ncl_jax.runs import durations, timing, trunk
from ncl_jax.runs.setup import Run, is_first, replan, restart
from ncl_jax.runtime import console

SHARE = 0.9  # of the time that is planned: steps are not all as fast as those that were timed
ENDING = 5.0  # seconds of table, plots and page
FEATURES = 0.7  # of the time may go into the features of a frozen backbone


def fewer_views(
    plan: TrainingPlan, variables: Any, config: ml_collections.ConfigDict, data: dataset.Data, pace: timing.Pace
) -> ml_collections.ConfigDict:
    """The configuration of a new run on frozen features, with as many cached views of each training image as can be
    computed within `FEATURES` of the time that is left, at least one; says what it chooses.

    Args:
      plan: the run's.
      variables: of the frozen backbone.
      config: not changed.
      data: images.
      pace: has the limit.
    """
    views = _views_that_fit(plan, variables, data, pace) if is_first() else 0
    views = int(multihost_utils.broadcast_one_to_all(np.int32(views))) if jax.process_count() > 1 else views
    fitted = config.copy_and_resolve_references()
    fitted.data.cached_views = views
    return fitted


def _views_that_fit(plan, variables, data, pace):
    given = plan.loading.cached_views
    images = trunk.images_to_compute(plan, variables, data, range(1, given + 1))
    if not images[-1]:  # all are in the cache
        return given
    one, seconds = trunk.seconds_for_image(plan, variables, data.train), FEATURES * pace.left()
    views = max([1, *(number for number, count in enumerate(images, 1) if count * one <= seconds)])
    for line in durations.fitted_views(pace.limit, views, given, images[views - 1] * one, seconds):
        console.say(line)
    return views


def fit(
    run: Run,
    plan: TrainingPlan,
    given: ml_collections.ConfigDict,
    data: dataset.Data,
    noted: dict,
    begin: Callable,
    between: Callable[[str], None],
) -> TrainingPlan:
    """Gives a new run as many epochs as fit into its limit, at most those that it has; returns its plan.

    Steps and a batch of an evaluation are timed, then the run starts from its first state. Its directory keeps the
    choice, by which it continues on any machine.

    Args:
      run: prepared, at step 0.
      plan: its own.
      given: the configuration before anything was scaled.
      data: of the run.
      noted: see `RunDir.begin`.
      begin: `setup.restore_or_start`, of plan, configuration and inputs.
      between: see `setup.prepare`.
    """
    if run.on_features:  # whose heads need seconds, whatever the features took
        run.pace.limit = max(run.pace.limit, run.pace.spent() + (1 - FEATURES) * run.pace.limit)
    run.log.print(durations.measuring(run.pace))
    measure(run, between)
    epoch_seconds = run.length * (run.pace.step or 0.0)
    seconds = SHARE * run.pace.left() - run.pace.compilation - ENDING
    epochs = most_epochs(given, seconds, epoch_seconds, run.pace.evaluation or 0.0, noted["extend"])
    epochs = int(multihost_utils.broadcast_one_to_all(np.int32(epochs))) if jax.process_count() > 1 else epochs
    for line in durations.fitted(run.pace, given, epochs, epoch_seconds, epoch_seconds > seconds):
        run.log.print(line)
    config, views = run.config, run.config.data.cached_views
    if epochs < given.epochs:
        config = schedule.finishing(schedule.shortened(given, epochs), run.length)
        config.data.cached_views = views
        noted = {name: value for name, value in noted.items() if name != "scaled"} | schedule.noted(given, config)
        plan = build.make_training_plan(config, plan.facts, plan.mesh)
        if is_first():
            run.directory.begin(config, data, noted)
    restart(run, begin(plan, config, inputs=run.inputs)[0])
    if epochs < given.epochs:
        replan(run, plan, config, noted)
    return plan


def most_epochs(
    config: ml_collections.ConfigDict, seconds: float, epoch_seconds: float, evaluation: float, extend: int = 0
) -> int:
    """How many of a configuration's epochs fit into so many seconds, with their evaluations and `extend` epochs more;
    at least 1."""
    epochs = int(max(1, min(config.epochs, seconds / max(epoch_seconds, 1e-9))))
    while epochs > 1:
        scaled = schedule.shortened(config, epochs)
        needed = timing.estimate(scaled, 0, epochs + extend, epoch_seconds, evaluation).seconds
        if needed <= seconds:
            break
        epochs = max(1, min(epochs - 1, int(epochs * seconds / needed)))
    return epochs


def measure(run: Run, between: Callable[[str], None]) -> None:
    """Times steps, which change the run's state, and a batch of an evaluation."""
    run.pace.start()
    for source, served in run.feed.batches(0):
        while served and not run.pace.is_known:
            count = min(served, run.pace.at_once)
            run.state, run.history, last, done = run.advance(run.state, run.history, run.key, source, count)
            jax.block_until_ready(last)
            run.pace.lap(done)
            served -= done
            between("timing steps")
        if run.pace.is_known:
            break
    run.feed.close()
    for _ in range(2):  # the first one compiles
        began = time.perf_counter()
        jax.block_until_ready(run.evaluate(run.variables, 1).sums)
        took = time.perf_counter() - began
    batches = -(-len(run.data.test) // min(run.config.run.eval_batch, len(run.data.test)))
    run.pace.evaluation = took * batches


def is_spent(run: Run, epoch: int) -> bool:
    """Whether the time is up after an epoch (from 1): what is left of it is less than another one takes."""
    if not run.pace.limit or epoch == run.epochs:
        return False
    another = run.length * (run.pace.step or 0.0) + (run.pace.evaluation or 0.0)
    return timing.together(run.pace.left() < another)
