"""The package's errors: what a user can fix. Each message names the value or the file, and says what to do."""

import difflib
import signal
from collections.abc import Iterable


def one_line(error: BaseException, most: int = 300) -> str:
    """The beginning of an error's message, for a line of our own."""
    return " ".join(str(error).split())[:most]


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """The valid name that is nearest to a misspelt one, as a part of a message; empty where none is near."""
    near = difflib.get_close_matches(name, list(valid), 1)
    return f" (did you mean {near[0]}?)" if near else ""


class NclError(Exception):
    """The base of all of them: commands show its message in one line, without a traceback."""


class ConfigError(NclError):
    """A configuration that cannot be run, or a directory that belongs to another one."""


class DataError(NclError):
    """The data is missing, damaged, or not what it should be."""


class CheckpointError(NclError):
    """No checkpoint that could be used; the message says what was tried."""


class ExportError(NclError):
    """An exported model that cannot be used."""


class WriteError(NclError):
    """Something of a run cannot be written down."""


class Diverged(NclError):
    """A loss or gradient that is not finite."""


class Interrupted(NclError):
    """The run was asked to stop and has saved its state; `number` is the signal's."""

    def __init__(self, message: str, number: int = signal.SIGTERM):
        super().__init__(message)
        self.number = number
