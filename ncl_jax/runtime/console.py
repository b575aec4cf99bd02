"""Output that a program outlives when it is closed, full or broken."""

import contextlib
import os
import sys
from typing import TextIO

from ncl_jax.errors import printable


def survive_closed_streams() -> None:
    """Gives the program something to write to where it was started without standard output or error, and lets it write
    names that the terminal's encoding has no letters for."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 - for the rest of the program
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def say(text: str, *, error: bool = False) -> None:
    """Prints a line, or several; where that is not possible the program goes on without that output."""
    try:
        show(text, error=error)
    except (OSError, ValueError):  # full, closed by the reader, closed by the program
        mute(sys.stderr if error else sys.stdout)


def show(text: str, *, error: bool = False) -> None:
    """As `say`, for a program whose output is its work: raises OSError where it cannot be written.

    Nothing in it steers the terminal (`printable`), whatever names it holds; line breaks stay.
    """
    lines = "\n".join(map(printable, text.split("\n")))
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
