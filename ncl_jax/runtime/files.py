"""Files and paths: read and written whole, with errors that name them."""

import contextlib
import errno
import fcntl
import io
import os
import pathlib
import re
import stat
from collections.abc import Iterator, Mapping
from typing import BinaryIO, TextIO

from ncl_jax.errors import ConfigError, DataError, printable

UNDECODABLE = re.compile("[\ud800-\udfff]")  # how Python keeps the bytes of a name that are not UTF-8


def expand(name: str, path: str | pathlib.Path) -> pathlib.Path:
    """A path with `~` replaced, unless something of the name `~...` is there and no user of it.

    Raises ConfigError, naming the field, for one that no file system can hold.
    """
    expanded = pathlib.Path(path)
    try:
        with contextlib.suppress(RuntimeError):  # no user of this name: it is a file's
            expanded = expanded.expanduser()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            expanded.stat()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{name}={path} cannot be used: {error}") from error
    return expanded


def name_text(name: str) -> str:
    """A file's name as text that is always valid UTF-8, and from which the name can be restored.

    A name that is UTF-8 stays as it is. In one that is not, every byte that is not UTF-8 becomes `\\xNN` and every
    backslash two; so they do in the rare name that holds `\\x` itself. `printable` writes such bytes in the same way.
    """
    if "\\x" in name or UNDECODABLE.search(name):
        name = name.replace("\\", "\\\\")
    return valid_utf8(name).decode()


def valid_utf8(text: str) -> bytes:
    """Text as the content of a file, with bytes of names that are not UTF-8 as `\\xNN`."""
    return UNDECODABLE.sub(lambda byte: printable(byte[0]), text).encode()


def target_of(path: pathlib.Path) -> pathlib.Path:
    """The file that is written where a path is given: a link stays one, what it leads to is replaced."""
    return pathlib.Path(os.path.realpath(path))


def partial_of(path: pathlib.Path) -> pathlib.Path:
    """Where a file's content lies until it is complete; what a killed program left there is overwritten."""
    target = target_of(path)
    return target.with_name(target.name + ".partial")


@contextlib.contextmanager
def writing_whole(path: pathlib.Path) -> Iterator[TextIO]:
    """A text file that is written line by line and takes its name when it is complete; OSError as for `open`.

    What has been written before an error stays in `partial_of(path)`.
    """
    with _partial(path, keep=True) as partial:
        file = io.TextIOWrapper(partial, "utf-8", "backslashreplace", newline="", write_through=True)
        try:
            yield file
        finally:
            file.detach()
        _complete(partial, path)
        partial_of(path).replace(target_of(path))


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file whole or not at all."""
    write_bytes(path, valid_utf8(text))


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    write_together({path: content})


def write_together(contents: Mapping[pathlib.Path, bytes]) -> None:
    """Writes files that belong together: once all are on the disk they take their names, in this order.

    A program that is killed leaves each of them as it was or new, and never a part; so does a machine that loses power.
    OSError as for `open`, and where another process is writing one of them.
    """
    with contextlib.ExitStack() as stack:
        partials = [stack.enter_context(_partial(path)) for path in contents]
        for file, content in zip(partials, contents.values(), strict=True):
            file.write(content)
        for file, path in zip(partials, contents, strict=True):
            _complete(file, path)
        for path in contents:
            partial_of(path).replace(target_of(path))


@contextlib.contextmanager
def _partial(path: pathlib.Path, *, keep: bool = False) -> Iterator[BinaryIO]:
    """The file in which another one is written, locked and empty; removed after an error unless it is to be kept."""
    target, partial = target_of(path), partial_of(path)
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, "it is a directory, pipe or device, not a file", str(path))
    with os.fdopen(_open_alone(partial), "wb") as file:
        try:
            yield file
        except BaseException:
            if not keep:
                partial.unlink(missing_ok=True)
            raise


def _open_alone(path: pathlib.Path) -> int:
    """Opens a file for writing, empty, that no other process is writing: the lock goes with the process."""
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = path.exists() and os.path.samestat(os.fstat(number), path.stat())
        except BlockingIOError:
            alone = False
        except OSError:  # a file system without locks
            alone = True
        if not alone:
            raise OSError(errno.EBUSY, "another process is writing it", str(path))
        os.ftruncate(number, 0)
    except BaseException:
        os.close(number)
        raise
    return number


def _complete(file: BinaryIO, path: pathlib.Path) -> None:
    """Puts a file's content on the disk, with the permissions of the file that it replaces.

    Without that a machine that loses power could leave it empty under its final name.
    """
    file.flush()
    with contextlib.suppress(OSError):  # there is none, or the file system knows no permissions
        os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):  # file systems that know no such thing
            raise


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
