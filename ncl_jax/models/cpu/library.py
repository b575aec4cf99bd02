"""Compiles the C++ kernels for the machine when they are first needed, into the user's cache directory, and loads them.

Without a C++ compiler the networks take XLA's operations.
"""

import ctypes
import functools
import hashlib
import os
import pathlib
import platform
import shlex
import shutil
import signal
import subprocess
import tempfile

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

from ncl_jax.errors import DataError, one_line
from ncl_jax.runtime import caches
from ncl_jax.runtime.files import read_file

FOLDER = pathlib.Path(__file__).parent
SOURCES = sorted([*FOLDER.glob("*.h"), *FOLDER.glob("*.cc")])
ARCHITECTURE = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
FLAGS = ("-std=c++17", "-O3", ARCHITECTURE, "-ffp-contract=fast", "-fPIC", "-shared", "-w")
MOST_SECONDS = 300  # of compiling, which takes about ten
SAID = 500  # bytes of what a compiler says that are passed on
TARGETS = (
    "NclAttention", "NclConv", "NclConvGradient", "NclConvImageGradient", "NclConvolved", "NclDense", "NclFiltered",
    "NclInverted", "NclPool", "NclPoolGradient", "NclStem", "NclSums",
)  # fmt: skip


@functools.cache
def features() -> tuple[str, ...]:
    """What the processor can do, in the system's words."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else [platform.processor()]
    return tuple(sorted({line for line in lines if line.startswith(("flags", "Features"))}) or lines[:1])


@functools.cache
def lanes() -> int:
    """Floats of a vector on this processor; the kernels want a multiple of this many channels."""
    return 16 if "avx512f" in " ".join(features()).split() else 8


@functools.cache
def load() -> str:
    """Makes the kernels available; returns why they are not, or an empty text."""
    compiler = os.environ.get("CXX") or "c++"
    try:
        _register(_build(compiler, lanes()))
    except Unbuilt as reason:
        return str(reason)
    except (OSError, RuntimeError, ValueError) as error:
        return f"the compiled kernels could not be made or loaded: {one_line(error)}"
    return ""


class Unbuilt(Exception):
    """Why a compiler made no kernels."""


def _register(library: ctypes.CDLL, suffix: str = "") -> None:
    """Makes a library's kernels known to XLA, under their names and the suffix."""
    for name in TARGETS:
        jax.ffi.register_ffi_target(name + suffix, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")


def _build(compiler: str, lanes: int) -> ctypes.CDLL:
    """The compiled kernels, for this machine and vectors of `lanes` floats; compiled now if not in the cache.

    Raises:
      Unbuilt: there is no such compiler, or it failed.
      OSError: there is nowhere to compile.
    """
    command, flags = _split(compiler), (*FLAGS, f"-DNCL_LANES={lanes}")
    system = (jaxlib.__version__, compiler, *flags, platform.machine(), *platform.libc_ver(), *features())
    key = hashlib.sha256("|".join((*map(pathlib.Path.read_text, SOURCES), *system)).encode()).hexdigest()[:16]
    cache = caches.folder()
    for path in cache.glob(f"kernels-{key}-*.so") if cache else ():
        # Loading a file that was cut short would end the program.
        if path.stem.endswith(f"-{_digest(path)}") and (found := _open(path)):
            return found
        path.unlink(missing_ok=True)
    with caches.private() as folder:
        if os.statvfs(folder).f_flag & getattr(os, "ST_NOEXEC", 0):
            raise Unbuilt(f"nothing can be run from {folder.parent} (noexec): set XDG_CACHE_HOME to another folder")
        output = folder / "kernels.so"
        _compile(command, flags, output)
        found = _open(output)
        if found is None:
            raise Unbuilt(f"{compiler} made a library that cannot be loaded or lacks the kernels")
        if cache:  # whole or not at all, whoever else compiles at the same time
            output.replace(cache / f"kernels-{key}-{_digest(output)}.so")
    return found


def _split(compiler: str) -> list[str]:
    """A compiler and its arguments, as words. Raises Unbuilt for one that is not available."""
    words = [compiler]
    if shutil.which(compiler) is None:
        try:
            words = shlex.split(compiler)
        except ValueError:
            words = []
    if not words or shutil.which(words[0]) is None:
        raise Unbuilt(f"no C++ compiler was found ({compiler}: c++, or what the environment variable CXX names)")
    return words


def _compile(command: list[str], flags: tuple[str, ...], output: pathlib.Path) -> None:
    """Raises Unbuilt, with the beginning of what the compiler says, where it fails or takes too long."""
    units = [str(source) for source in SOURCES if source.suffix == ".cc"]
    arguments = [*command, *flags, f"-I{jax.ffi.include_dir()}", *units, "-o", str(output)]
    with tempfile.TemporaryFile() as said:  # it may say any amount
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=said, stderr=said, process_group=0)
        try:
            code = process.wait(MOST_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise Unbuilt(f"{command[0]} took more than {MOST_SECONDS} s to compile {FOLDER}") from error
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        said.seek(0)
        text = " ".join(said.read(SAID).decode(errors="replace").split())
    if code or not output.is_file():
        raise Unbuilt(f"{command[0]} could not compile {FOLDER}: {text or f'exit code {code}'}")


def _open(path: pathlib.Path) -> ctypes.CDLL | None:
    """A library that has all kernels, None for another one."""
    try:
        library = ctypes.CDLL(str(path))
        return library if all(hasattr(library, name) for name in TARGETS) else None
    except OSError:
        return None


def _digest(path: pathlib.Path) -> str:
    """A part of the checksum of a file; empty for one that cannot be read."""
    try:
        return hashlib.sha256(read_file(path)).hexdigest()[:16]
    except DataError:
        return ""


def call(
    target: str, shape: tuple[int, ...], *arrays: jax.Array | np.ndarray, **attributes: int | np.float32
) -> jax.Array:
    """A kernel's result, float32 of `shape`; `load` must have succeeded."""
    result = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.ffi.ffi_call(target, result, vmap_method="sequential")(*arrays, **attributes)
