"""Errors that the machine causes, not the program: too little of something, or a refusal of the operating system."""

import errno
import os

from ncl_jax.errors import one_line

# What the operating system says, by what can be done about it; other codes are shown as they are.
ADVICE = {
    errno.ENOSPC: "free disk space",
    errno.EDQUOT: "free disk space, or ask for a larger quota",
    errno.EROFS: "use a place that can be written",
    errno.EACCES: "correct the permissions, or use another place",
    errno.EPERM: "correct the permissions, or use another place",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the limit of open files",
    errno.EAGAIN: "raise the limit of processes and threads (ulimit -u)",
    errno.ENOMEM: "free memory, or raise its limit (ulimit -v)",
    errno.EIO: "check the disk",
    errno.ESTALE: "check the network disk",
}
LIBRARY = {  # what the dynamic loader says of a library that is there
    "failed to map segment": "memory (ulimit -v)", "Cannot allocate memory": "memory (ulimit -v)",
    "Too many open files": "open files (ulimit -n)",
}  # fmt: skip
LESS_MEMORY = "lower optim.batch_size or model.width, or raise its limit (ulimit -v)"


def of(error: BaseException) -> str | None:
    """One line about an error that the machine caused, with what to do; None for one of the program.

    An error that was raised because of another one is what that one is.
    """
    while error is not None:
        if found := _of_one(error):
            return found
        error = error.__cause__  # type: ignore[assignment]
    return None


def _is_somewhere() -> bool:
    """Whether there is a working directory."""
    try:
        return bool(os.getcwd())  # noqa: PTH109 - the same
    except OSError:
        return False


def _of_one(error: BaseException) -> str | None:
    text = one_line(error)
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        return f"the memory is full ({text or 'no more is available'}): {LESS_MEMORY}"
    if isinstance(error, FileNotFoundError) and not error.filename and not _is_somewhere():
        return "the working directory has been deleted: change to another one"
    if isinstance(error, OSError) and error.errno:
        advice = ADVICE.get(error.errno, "check the place that it names")
        names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
        return f"cannot use {' and '.join(names) or 'a file'} ({os.strerror(error.errno)}): {advice}"
    if isinstance(error, ImportError) and (limit := [limit for part, limit in LIBRARY.items() if part in text]):
        return f"a library cannot be loaded ({text}): raise the limit of {limit[0]}"
    if isinstance(error, RuntimeError) and "can't start new thread" in text:
        return f"no thread can be started ({text}): raise the limits of processes and memory (ulimit -u, -v)"
    return None
