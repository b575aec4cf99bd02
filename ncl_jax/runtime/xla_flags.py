"""XLA ends the program, with its own words, where XLA_FLAGS holds what it does not know: tried in a child first."""

import contextlib
import functools
import os
import select
import signal
import tempfile
import warnings
from typing import BinaryIO

from jaxlib import xla_client

from ncl_jax.errors import ConfigError

SECONDS = 10  # the child's time; it needs a hundredth of one


@functools.cache
def check(flags: str) -> None:
    """Raises ConfigError, with what XLA says, for flags that it would end the program for."""
    if not flags or not hasattr(os, "fork"):
        return
    with tempfile.TemporaryFile() as output:
        if _survives(output):
            return
        output.seek(0)
        lines = output.read(4096).decode(errors="replace").splitlines()
    said = next((line for line in lines if line), "").partition("] ")[2]
    raise ConfigError(f"XLA_FLAGS={flags} cannot be used ({said[:200]}): correct or unset that variable")


def _survives(output: BinaryIO) -> bool:
    """Whether a child that reads the flags ends well."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX warns of any fork: this child asks for no device
        child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os.dup2(output.fileno(), 2)
            xla_client.CompileOptions()
            os._exit(0)
        os._exit(1)
    os.close(writing)
    ended, _, _ = select.select([reading], [], [], SECONDS)  # the end of the pipe: the child is gone
    os.close(reading)
    if not ended:
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    return not ended or status == 0
