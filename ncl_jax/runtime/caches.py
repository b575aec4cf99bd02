"""The user's cache folder: used only where it is the user's own, because what lies in it is run as the user."""

import contextlib
import functools
import grp
import os
import pathlib
import pwd
import shutil
import stat
import tempfile
from collections.abc import Iterator

from ncl_jax.runtime import console

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Unusable(Exception):
    """Why there is no cache folder."""


def location() -> pathlib.Path:
    """Where the package's cache folder is to lie. Raises Unusable where there is no place for one."""
    named = pathlib.Path(os.environ.get("XDG_CACHE_HOME", ""))
    if named.is_absolute():  # others are to be ignored, says the standard
        return named / "ncl_jax"
    try:
        home = pathlib.Path.home()
    except RuntimeError as error:
        raise Unusable("there is no home directory: set HOME or XDG_CACHE_HOME") from error
    if not home.is_absolute():
        raise Unusable(f"the home directory {str(home)!r} is not an absolute path: set XDG_CACHE_HOME")
    return home / ".cache" / "ncl_jax"


def folder() -> pathlib.Path | None:
    """The package's cache folder, which nobody else can write; None where there is none, which is printed once."""
    try:
        return _own(location())
    except (Unusable, OSError, ValueError) as error:
        _note(str(error))
        return None


@functools.cache
def _note(reason: str) -> None:
    console.say(
        f"note: compiled programs are not kept for the next time, which makes starts slower: {reason}", error=True
    )


@contextlib.contextmanager
def private() -> Iterator[pathlib.Path]:
    """A new folder of the user's alone, in the cache folder where there is one, that is deleted in the end."""
    with tempfile.TemporaryDirectory(dir=folder(), ignore_cleanup_errors=True) as name:
        yield pathlib.Path(name)


def _own(path: pathlib.Path) -> pathlib.Path:
    """The folder, made if need be; files in it that another user could have written are gone. Raises Unusable."""
    _make(path)
    path = path.resolve(strict=True)
    for place in reversed(path.parents):
        _check_above(place)
    found = path.stat()
    if found.st_uid != os.geteuid():
        raise Unusable(f"{path} belongs to another user: set XDG_CACHE_HOME to a folder of your own")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise Unusable(f"{path} cannot be written: make it writable, or set XDG_CACHE_HOME")
    path.chmod(0o700)
    open_to_others = bool(found.st_mode & OTHERS_WRITE)
    for place in path.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another program of the user's is at work here
            _purge(place, open_to_others)
    return path


def _make(path: pathlib.Path) -> None:
    """Makes a folder and those above it, for the user alone."""
    if not path.parent.exists():
        _make(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)


def _purge(place: pathlib.Path, open_to_others: bool) -> None:
    """Removes what is not a regular file or folder of the user's, or may have been written by somebody else."""
    found = place.lstat()
    regular = stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)
    if regular and found.st_uid == os.geteuid() and not (open_to_others and found.st_mode & OTHERS_WRITE):
        return
    if stat.S_ISDIR(found.st_mode):
        shutil.rmtree(place)
    else:
        place.unlink()


def _check_above(place: pathlib.Path) -> None:
    """Raises Unusable where another user could put something else in the place of what lies in a folder."""
    found = place.stat()
    if found.st_uid not in (os.geteuid(), 0, pathlib.Path("/").stat().st_uid):  # who owns the root can do anything
        raise Unusable(f"{place} belongs to another user: set XDG_CACHE_HOME to a folder of your own")
    if found.st_mode & stat.S_ISVTX:
        return
    if found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and not _is_private_group(found.st_gid)):
        raise Unusable(f"other users can write {place}: chmod go-w it, or set XDG_CACHE_HOME to a folder of your own")


def _is_private_group(number: int) -> bool:
    """Whether a group has no member but the user, as on systems where every user has one by the same name."""
    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(number)
    except KeyError:
        return False
    return group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
