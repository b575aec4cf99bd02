"""Compiles the C++ kernels for the machine when they are first needed, into the user's cache directory, and loads them.

Without a C++ compiler the networks take XLA's operations.
"""

import ctypes
import functools
import hashlib
import os
import pathlib
import platform
import shutil
import subprocess
import tempfile

import jax
import jax.numpy as jnp
import jaxlib

from ncl_jax.runtime.files import cache_directory

FOLDER = pathlib.Path(__file__).parent
SOURCES = sorted([*FOLDER.glob("*.h"), *FOLDER.glob("*.cc")])
ARCHITECTURE = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
FLAGS = ("-std=c++17", "-O3", ARCHITECTURE, "-ffp-contract=fast", "-fPIC", "-shared", "-w")
TARGETS = ("NclConv", "NclConvGradient", "NclConvImageGradient", "NclInverted", "NclPooled", "NclStem", "NclSums")


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
    except subprocess.CalledProcessError as error:
        return f"{compiler} could not compile {FOLDER}: {error.stderr.strip()[:500]}"
    except (OSError, RuntimeError) as error:
        if shutil.which(compiler) is None:
            return f"no C++ compiler was found ({compiler}: c++, or what the environment variable CXX names)"
        return f"the compiled kernels could not be kept or loaded: {error}"
    return ""


def _register(path: pathlib.Path, suffix: str = "") -> None:
    """Makes a library's kernels known to XLA, under their names and the suffix."""
    library = ctypes.CDLL(str(path))
    for name in TARGETS:
        jax.ffi.register_ffi_target(name + suffix, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")


def _build(compiler: str, lanes: int) -> pathlib.Path:
    """The compiled kernels, for this machine and vectors of `lanes` floats; compiled now if not in the cache."""
    flags = (*FLAGS, f"-DNCL_LANES={lanes}")
    system = (jaxlib.__version__, compiler, *flags, platform.machine(), *platform.libc_ver(), *features())
    key = hashlib.sha256("|".join((*map(pathlib.Path.read_text, SOURCES), *system)).encode()).hexdigest()[:16]
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    for path in cache.glob(f"kernels-{key}-*.so"):
        if path.stem.endswith(f"-{_digest(path)}"):  # loading a file that was cut short would end the program
            return path
        path.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        output = pathlib.Path(folder) / "kernels.so"
        units = [str(source) for source in SOURCES if source.suffix == ".cc"]
        command = [compiler, *flags, f"-I{jax.ffi.include_dir()}", *units, "-o", str(output)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        # Whole or not at all, whoever else compiles at the same time.
        return output.rename(cache / f"kernels-{key}-{_digest(output)}.so")


def _digest(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def call(target: str, shape: tuple[int, ...], *arrays: jax.Array, **attributes: int) -> jax.Array:
    """A kernel's result, float32 of `shape`; `load` must have succeeded."""
    result = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.ffi.ffi_call(target, result, vmap_method="sequential")(*arrays, **attributes)
