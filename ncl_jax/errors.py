"""The package's errors: what a user can fix. Each message names the value or the file, and says what to do."""

import difflib
import signal
import unicodedata
from collections.abc import Iterable

HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # Unicode's categories of what steers a terminal, or cannot be seen
JOINERS = "\u200c\u200d"  # which words of some scripts and many emoji hold


def printable(text: str) -> str:
    """Text in one line that shows all that it holds: names of others could steer a terminal, or look like other ones.

    Control characters, line breaks, marks that turn the direction of reading or take no space, and bytes that are not
    UTF-8 become escapes: `\\x1b`, `\\n`, `\\u202e`, `\\xe9`. A second time nothing changes.
    """
    if text.isprintable():
        return text
    return "".join(char if _shows(text, place) else _escape(char) for place, char in enumerate(text))


def _shows(text: str, place: int) -> bool:
    """Whether a character may stay: a joiner between two that are not ASCII, and what can be seen."""
    if text[place] in JOINERS:
        around = text[place - 1 : place], text[place + 1 : place + 2]
        return all(char.isprintable() and not char.isascii() for char in around)
    return unicodedata.category(text[place]) not in HIDDEN


def _escape(char: str) -> str:
    """A character as an escape; `\\x80` and above are bytes of a name that is not UTF-8."""
    number = ord(char)
    if 0xDC80 <= number <= 0xDCFF:
        return f"\\x{number - 0xDC00:02x}"
    if 0x80 <= number < 0x100:
        return f"\\u{number:04x}"
    return char.encode("unicode_escape").decode()


def one_line(error: BaseException, most: int = 300) -> str:
    """The beginning of an error's message, for a line of this program."""
    return " ".join(str(error).split())[:most]


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """The valid name that is nearest to a misspelt one, as a part of a message; empty where none is near."""
    near = difflib.get_close_matches(name, list(valid), 1)
    return f" (did you mean {near[0]}?)" if near else ""


class NclError(Exception):
    """The base of all of them: commands show its message in one line, without a traceback."""

    def __str__(self) -> str:
        return printable(super().__str__())


class ConfigError(NclError):
    """A configuration that cannot be run, or a directory that belongs to another one."""


class DataError(NclError):
    """The data is missing, damaged, or not what it should be."""


class CheckpointError(NclError):
    """No checkpoint that could be used; the message lists what was tried."""


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
