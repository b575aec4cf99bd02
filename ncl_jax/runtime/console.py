"""Output that a program outlives when it is closed, full or broken."""

import contextlib
import os
import re
import sys
from collections.abc import Iterable
from typing import TextIO

from ncl_jax.errors import printable


def survive_closed_streams() -> None:
    """Gives the program something to write to where it was started without standard output or error, and lets it write
    names that the terminal's encoding has no letters for.

    The numbers 0 to 2 are taken first: a file of a run that got one of them would hold what libraries write there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: what is opened gets the least number that is free
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 - for the rest of the program
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def say(line: str, *, error: bool = False) -> None:
    """Prints a line; where that is not possible the program continues without that output."""
    say_text(printable(line), error=error)


def say_text(text: str, *, error: bool = False) -> None:
    """Prints text of several lines in the same way; what names it holds are `printable` already."""
    try:
        show(text, error=error)
    except (OSError, ValueError):  # full, closed by the reader, closed by the program
        mute(sys.stderr if error else sys.stdout)


def say_lines(lines: Iterable[str]) -> None:
    """Prints several lines as `say` does."""
    for line in lines:
        say(line)


def show(text: str, *, error: bool = False) -> None:
    """As `say_text`, for a program whose output is its work: raises OSError where it cannot be written.

    Whatever it holds, nothing but line breaks and tabs steers the terminal.
    """
    lines = re.sub(r"[^\n\t]+", lambda part: printable(part[0]), text)
    print(lines, file=sys.stderr if error else sys.stdout, flush=True)


def flush() -> None:
    """Flushes both streams, so that the interpreter's own attempt at its end cannot fail."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            mute(stream)


def tell(message: str) -> None:
    """Writes a line to standard error from within a signal handler."""
    with contextlib.suppress(OSError):
        os.write(2, f"\n{message}\n".encode())


def mute(stream: TextIO) -> None:
    """Sends what a stream still holds, and all further output, nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
