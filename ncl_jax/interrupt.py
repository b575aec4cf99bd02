"""Stopping a run from outside without losing its state."""

import signal

import jax
from jax.experimental import multihost_utils


class Interrupt:
    """While active, SIGTERM or SIGINT only asks the run to stop; a SIGINT after that stops at once.

    Where several processes run together JAX handles a SIGTERM to any of them, and lets all stop together.
    """

    def __init__(self):
        self._requested, self._asked = False, 0
        self._previous = {}

    def __enter__(self):
        for number in (signal.SIGTERM, signal.SIGINT) if jax.process_count() == 1 else ():
            self._previous[number] = signal.signal(number, self._request)
        return self

    def _request(self, number, frame):
        self._requested = True
        signal.signal(signal.SIGINT, self._previous[signal.SIGINT])

    def requested(self) -> bool:
        """Whether to stop now. All processes must ask equally often: they stop at the same count of questions."""
        if jax.process_count() > 1 and not self._requested:
            self._asked += 1
            self._requested = multihost_utils.reached_preemption_sync_point(self._asked)
        return self._requested

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)
