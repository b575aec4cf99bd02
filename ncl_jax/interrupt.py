"""Stopping a run from outside without losing its state."""

import signal


class Interrupt:
    """While active, SIGTERM or SIGINT only sets `requested`; a SIGINT after that stops at once."""

    def __init__(self):
        self.requested = False
        self._previous = {}

    def __enter__(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._request)
        return self

    def _request(self, number, frame):
        self.requested = True
        signal.signal(signal.SIGINT, self._previous[signal.SIGINT])

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)
