"""Output that a program outlives when it is closed, full or broken."""

import contextlib
import os
import sys
from typing import TextIO


def survive_closed_streams() -> None:
    """Gives the program something to write to where it was started without standard output or error, and lets it write
    names that the terminal's encoding has no letters for."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 - for the rest of the program
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def say(line: str, *, error: bool = False) -> None:
    """Prints a line; where that is not possible the program goes on without that output."""
    stream = sys.stderr if error else sys.stdout
    try:
        print(line, file=stream, flush=True)
    except (OSError, ValueError):  # full, closed by the reader, closed by the program
        mute(stream)


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
