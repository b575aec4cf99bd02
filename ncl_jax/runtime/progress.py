"""How far long work is: a bar on a terminal, otherwise a line now and then, so that a log is not silent for minutes."""

import sys
import time
from collections.abc import Callable, Iterator

from tqdm import tqdm

from ncl_jax.runtime import console

FIRST, EVERY = 10.0, 30.0  # seconds until the first line, and between lines


class Lines:
    """Lines about work on `total` images.

    Args:
      text: what is done.
      total: images in all.
      done: of them when it begins.
      clock: seconds.
    """

    def __init__(self, text: str, total: int, done: int = 0, clock: Callable[[], float] = time.monotonic):
        self._text, self._total, self._first, self._clock = text, total, done, clock
        self._began = clock()
        self._next = self._began + FIRST

    def line(self, done: int) -> str:
        """The line after so many images where one is due, otherwise nothing."""
        now = self._clock()
        if now < self._next or not self._first < done < self._total:
            return ""
        self._next = now + EVERY
        speed = (done - self._first) / (now - self._began)
        left = (self._total - done) / speed
        minutes = f"{left / 60:.0f} min" if left >= 90 else f"{left:.0f} s"
        return f"{self._text}: {done:,} of {self._total:,} images, {speed:,.3g} images/s, about {minutes} left"


def counted(count: int, text: str) -> Iterator[int]:
    """The numbers below `count`, with a bar on a terminal or a line on standard error now and then."""
    if sys.stderr.isatty():
        yield from tqdm(range(count), desc=text, unit=" images", leave=False)
        return
    lines = Lines(text, count)
    for row in range(count):
        if line := lines.line(row):
            console.say(line, error=True)
        yield row
