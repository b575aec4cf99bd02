"""Stopping a run from outside without losing its state."""

import os
import signal
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

from ncl_jax.errors import Interrupted
from ncl_jax.runtime import console

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Interrupt:
    """While active, SIGTERM, SIGINT or SIGHUP only asks the run to stop; a SIGINT after that stops at once.

    A signal that is ignored stays so (`nohup`). Where several processes run together JAX handles a SIGTERM to any of
    them, and lets all stop together.

    Attributes:
      number: the signal that asked; SIGTERM before any has.
    """

    def __init__(self) -> None:
        self._requested, self._asked = False, 0
        self._previous: dict[int, Any] = {}
        self.number: int = signal.SIGTERM

    def __enter__(self) -> "Interrupt":
        for number in SIGNALS if jax.process_count() == 1 else ():
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._request)
        return self

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self._requested and number == signal.SIGINT:
            console.tell("stopped at once; the run continues at its last checkpoint")
            os._exit(130)
        if not self._requested:
            console.tell("stopping after this step; again (Ctrl-C) to stop now")
        self._requested, self.number = True, number

    def requested(self) -> bool:
        """Whether to stop now. All processes must ask equally often: they stop at the same count of questions."""
        if jax.process_count() > 1 and not self._requested:
            self._asked += 1
            self._requested = multihost_utils.reached_preemption_sync_point(self._asked)
        return self._requested

    def check(self, doing: str) -> None:
        """Raises Interrupted where a process that runs alone was asked to stop while `doing` something it can leave."""
        if self._requested and jax.process_count() == 1:
            raise Interrupted(f"stopped while {doing}: the same command continues", self.number)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
