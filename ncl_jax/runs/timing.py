"""How long a run takes: measured on its own steps, compilation left out; and what is due by the clock."""

import collections
import dataclasses
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import ml_collections
import numpy as np
from jax.experimental import multihost_utils

LONGEST_CALL = 1.0  # seconds: a longer call of several steps would keep Ctrl-C waiting
SLOW_CALL = 0.25  # seconds: from it on nothing is gained by sending the next call before this one is done
ENOUGH_SECONDS, ENOUGH_CALLS, FEWEST_CALLS = 2.0, 10, 2  # timed calls that an estimate is made of
RECENT = 50  # calls that the speed is taken from
FORWARD = 1 / 3  # of a training step's work on an image is the network's answer: what an evaluation takes


@dataclasses.dataclass
class Pace:
    """The speed of a run, and its clock.

    Attributes:
      steps_per_call: at most, see `TrainingPlan`.
      limit: seconds from `began` on that the command may take; 0: any number.
      began: when the command began, by `clock`.
      evaluation: seconds that an evaluation takes; None: not measured yet.
      compilation: seconds that the training step took to compile.
      clock: seconds.
    """

    steps_per_call: int = 1
    limit: float = 0.0
    began: float = dataclasses.field(default_factory=time.perf_counter)
    evaluation: float | None = None
    compilation: float = 0.0
    clock: Callable[[], float] = time.perf_counter

    def __post_init__(self) -> None:
        self._laps: collections.deque[tuple[float, int]] = collections.deque(maxlen=RECENT)
        self._is_warm = self._has_evaluated = False
        self._mark = self._saved = self._evaluated = self.clock()

    def start(self) -> None:
        """Steps begin: what came before is not theirs."""
        self._mark = self.clock()

    def lap(self, steps: int) -> bool:
        """Some steps are done; returns whether their time counts: that of the first call, which makes ready what all
        others use, does not."""
        now, counts = self.clock(), self._is_warm
        if counts and steps:
            self._laps.append((now - self._mark, steps))
        self._mark, self._is_warm = now, True
        return counts

    @property
    def step(self) -> float | None:
        """Seconds of a training step, of the recent ones; None before one was timed."""
        return sum(s for s, _ in self._laps) / sum(n for _, n in self._laps) if self._laps else None

    @property
    def is_known(self) -> bool:
        """Whether enough was timed for an estimate of the whole run."""
        seconds, calls = sum(s for s, _ in self._laps), len(self._laps)
        return calls >= ENOUGH_CALLS or (calls >= FEWEST_CALLS and seconds >= ENOUGH_SECONDS)

    @property
    def at_once(self) -> int:
        """Steps of the next call: few where they are slow, so that the run stops soon after it is asked to.

        Processes that run together make the same calls: there it is always the most.
        """
        if jax.process_count() > 1 or not self.step:
            return self.steps_per_call
        return max(1, min(self.steps_per_call, int(LONGEST_CALL / self.step)))

    @property
    def ahead(self) -> int:
        """Calls that are sent to the devices before the one that is running is done."""
        slow = self.step is not None and self.step * self.at_once >= SLOW_CALL
        return 0 if slow or not self.is_known else 2

    def left(self) -> float:
        """Seconds until the limit; infinite without one."""
        return self.limit - self.spent() if self.limit else float("inf")

    def spent(self) -> float:
        """Seconds since the command began."""
        return self.clock() - self.began

    def expected_evaluation(self, images: int, batch: int) -> float:
        """Seconds of an evaluation of so many images; before one was timed, from a step's, of `batch` views."""
        return self.evaluation if self.evaluation is not None else FORWARD * (self.step or 0.0) * images / batch

    def start_evaluation(self) -> None:
        """An evaluation begins."""
        self._evaluated = self.clock()

    def end_evaluation(self) -> None:
        """It is done: the first one, which is compiled, does not count."""
        now = self.clock()
        if self._has_evaluated:
            self.evaluation = now - self._evaluated
        self._evaluated, self._has_evaluated = now, True

    def note_saved(self) -> None:
        """A checkpoint has been saved."""
        self._saved = self.clock()

    def evaluation_due(self, minutes: float) -> bool:
        """Whether the last evaluation is so long ago; 0: never."""
        return bool(minutes) and together(self.clock() - self._evaluated >= 60 * minutes)

    def save_due(self, minutes: float) -> bool:
        """Whether the last checkpoint is so long ago; 0: never."""
        return bool(minutes) and self.clock() - self._saved >= 60 * minutes


def together(value: bool) -> bool:
    """The first process's answer, in all of them: their clocks differ, and what follows is computed by all."""
    return value if jax.process_count() == 1 else bool(multihost_utils.broadcast_one_to_all(np.bool_(value)))


def is_evaluated(config: ml_collections.ConfigDict, epoch: int, epochs: int) -> bool:
    """Whether the run is evaluated after epoch `epoch` (from 1) of `epochs`: the first, the last and every
    `config.eval_every`th."""
    return epoch in (1, epochs) or epoch % config.eval_every == 0


def num_evaluations(config: ml_collections.ConfigDict, done: int, epochs: int) -> int:
    """Evaluations after the epochs that follow the first `done` of `epochs`."""
    every = range(config.eval_every, epochs + 1, config.eval_every)
    return len([epoch for epoch in {1, epochs, *every} if epoch > done])


class Estimate(NamedTuple):
    """What follows of a run."""

    epochs: int
    epoch: float  # seconds of one
    evaluations: int
    evaluation: float  # seconds of one

    @property
    def seconds(self) -> float:
        """Of all."""
        return self.epochs * self.epoch + self.evaluations * self.evaluation


def estimate(config: ml_collections.ConfigDict, done: int, epochs: int, epoch: float, evaluation: float) -> Estimate:
    """What follows the first `done` of `epochs`, with the evaluations that are due by the clock; `epoch` and
    `evaluation`: seconds of one."""
    evaluations = num_evaluations(config, done, epochs)
    if config.eval_minutes:
        evaluations = max(evaluations, min(epochs - done, int((epochs - done) * epoch / (60 * config.eval_minutes))))
    return Estimate(epochs - done, epoch, evaluations, evaluation)
