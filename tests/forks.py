"""Programs as forks of one process that has imported what they import: imports are half of a tiny run's CPU time.

Only what `programs.start` starts; the notebooks, and tests of a program's streams, platforms and first seconds, start
whole programs.
As a program this file is that process: `python forks.py SOCKET`, the number of an open file.
"""

import contextlib
import gc
import importlib
import io
import json
import os
import pathlib
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading

MODULES = ("ncl_jax.cli.ablate", "ncl_jax.cli.train", "blank")
parents = {}  # by process: the socket to its process that forks


class Fork:
    """A program that was started; the part of `subprocess.Popen` that the tests need."""

    def __init__(self, pid, status, output):
        self.pid, self.stdout, self.returncode = pid, output, None
        self._status = status

    def poll(self):
        """The exit code, or None; minus a signal's number where one ended it."""
        return self._ended(0)

    def _ended(self, timeout):
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            self.returncode = int(self._status.readline())
            self._status.close()
        return self.returncode

    def send_signal(self, number):
        """Sends a signal, where the program has not ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self):
        """Ends the program at once."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout=300):
        """What it prints until it ends, and None. Killed where that takes more than `timeout` seconds."""
        timer = threading.Timer(timeout, self.kill)
        timer.start()
        with self.stdout:
            output = self.stdout.read()
        if self._ended(timeout) is None:
            raise subprocess.TimeoutExpired("a program", timeout, output)
        timer.cancel()
        return output, None


def start(arguments, env, cwd, new_group):
    """Starts `python ARGUMENTS`, with what it prints in its `stdout`; in a process group of its own if asked."""
    if os.getpid() not in parents:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        subprocess.Popen([sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()], env=env, cwd=cwd)
        theirs.close()
        parents[os.getpid()] = ours
    (output, write_output), (status, write_status) = os.pipe(), os.pipe()
    request = {"arguments": arguments, "env": dict(env), "new_group": new_group}
    socket.send_fds(parents[os.getpid()], [json.dumps(request, default=str).encode()], [write_output, write_status])
    for descriptor in (write_output, write_status):
        os.close(descriptor)
    status = os.fdopen(status)
    return Fork(int(status.readline()), status, os.fdopen(output))


def serve(requests):
    """Returns in each program that is asked for, with its arguments; ends with the process that asks."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback where the tests are interrupted
    while True:
        message, descriptors, *_ = socket.recv_fds(requests, 2**20, 2)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not message:
            os._exit(0)
        if not os.fork():  # a process that waits for the program
            return program(json.loads(message), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def program(request, output, status):
    """Forks the program and, as its parent, tells its number and exit code; as the program returns its arguments."""
    if pid := os.fork():
        os.close(output)
        os.write(status, f"{pid}\n".encode())
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):  # of the whole group
            signal.signal(number, signal.SIG_IGN)
        os.write(status, f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n".encode())
        os._exit(0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if request["new_group"]:
        os.setsid()
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(output, number)
        setattr(sys, name, io.TextIOWrapper(io.FileIO(number, "w", closefd=False), write_through=True))
    for descriptor in (output, status):
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["env"])
    return request["arguments"]


def execute(arguments):
    """What `python ARGUMENTS` does."""
    first, *rest = arguments
    if first == "-m":
        sys.argv[:] = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv[:] = arguments
        sys.path.insert(0, str(pathlib.Path(first).parent))
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    from ncl_jax.runtime import memory

    memory.keep()
    for module in MODULES:
        importlib.import_module(module)
    import jax

    gc.freeze()  # forks share it, and their collectors leave it alone

    asked = serve(socket.socket(fileno=int(sys.argv[1])))
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    execute(asked)
