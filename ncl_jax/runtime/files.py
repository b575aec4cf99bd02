"""Files and paths: read and written whole, with errors that name them."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import TextIO

from ncl_jax.errors import ConfigError, DataError


def expand(name: str, path: str | pathlib.Path) -> pathlib.Path:
    """A path with `~` replaced. Raises ConfigError, naming the field, for one that no file system can hold."""
    try:
        expanded = pathlib.Path(path).expanduser()
        expanded.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{name}={path} cannot be used: {error}") from error
    return expanded


def cache_directory() -> pathlib.Path:
    """The package's folder in the user's cache directory; it may not exist yet."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "ncl_jax"


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


def read_file(path: pathlib.Path) -> bytes:
    """A file's content. Raises DataError, naming it, where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
