"""Files and paths: read and written whole, with errors that name them."""

import contextlib
import errno
import os
import pathlib
import stat
from collections.abc import Iterator
from typing import BinaryIO, TextIO

from ncl_jax.errors import ConfigError, DataError


def expand(name: str, path: str | pathlib.Path) -> pathlib.Path:
    """A path with `~` replaced, unless something of the name `~...` is there and no user of it.

    Raises ConfigError, naming the field, for one that no file system can hold.
    """
    expanded = pathlib.Path(path)
    try:
        with contextlib.suppress(RuntimeError):  # no user of this name: it is a file's
            expanded = expanded.expanduser()
        expanded.exists()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{name}={path} cannot be used: {error}") from error
    return expanded


def partial_of(path: pathlib.Path) -> pathlib.Path:
    """Where a file's content lies until it is complete."""
    return path.with_name(path.name + ".partial")


@contextlib.contextmanager
def writing_whole(path: pathlib.Path) -> Iterator[TextIO]:
    """A text file that is written line by line and takes its name when it is complete; OSError as for `open`."""
    partial = partial_of(path)
    with partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        yield file
    partial.replace(path)


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    partial = partial_of(path)
    partial.write_bytes(content)
    partial.replace(path)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """A regular file, or a link to one, open for reading.

    Pipes and devices are refused without waiting for them: reading one may never end. Raises DataError, naming the
    file, for those; OSError as for `open`.
    """
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(number).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        if not stat.S_ISREG(mode):
            raise DataError(f"{path} is not a regular file but a pipe, socket or device: copy its content to a file")
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def read_file(path: pathlib.Path, most: int | None = None) -> bytes:
    """A regular file's content. Raises DataError, naming it, where it cannot be read or has more than `most` bytes."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read() if most is None or size <= most else b""
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    if most is not None and max(size, len(content)) > most:
        raise DataError(f"{path} is larger than {most:,} bytes, which is more than such a file can have")
    return content
