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

from ncl_jax import startup

FOLDER = pathlib.Path(__file__).parent
SOURCES = sorted([*FOLDER.glob("*.h"), *FOLDER.glob("*.cc")])
INFO = pathlib.Path("/proc/cpuinfo")
LINES = INFO.read_text().splitlines() if INFO.exists() else [platform.processor()]
FEATURES = sorted({line for line in LINES if line.startswith(("flags", "Features"))}) or LINES[:1]
LANES = 16 if "avx512f" in " ".join(FEATURES).split() else 8  # kLanes: channels come in multiples of it
ARCHITECTURE = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
FLAGS = ("-std=c++17", "-O3", ARCHITECTURE, "-ffp-contract=fast", "-fPIC", "-shared", "-w")
TARGETS = ("NclConv", "NclConvGradient", "NclConvImageGradient", "NclSums")


@functools.cache
def load() -> str:
    """Makes the kernels available; returns why they are not, or an empty text."""
    compiler = os.environ.get("CXX") or "c++"
    try:
        _register(_build(compiler))
    except subprocess.CalledProcessError as error:
        return f"{compiler} could not compile {FOLDER}: {error.stderr.strip()[:500]}"
    except (OSError, RuntimeError) as error:
        if shutil.which(compiler) is None:
            return f"no C++ compiler was found ({compiler}: c++, or what the environment variable CXX names)"
        return f"the compiled kernels could not be kept or loaded: {error}"
    return ""


def _register(path: pathlib.Path, suffix: str = "") -> None:
    library = ctypes.CDLL(str(path))
    for name in TARGETS:
        jax.ffi.register_ffi_target(name + suffix, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")


def _build(compiler: str, lanes: int = LANES) -> pathlib.Path:
    """The compiled kernels, of these sources and for this machine; compiled now if they are not in the cache."""
    flags = (*FLAGS, f"-DNCL_LANES={lanes}")
    system = (jaxlib.__version__, compiler, *flags, platform.machine(), *platform.libc_ver(), *FEATURES)
    key = hashlib.sha256("|".join((*map(pathlib.Path.read_text, SOURCES), *system)).encode()).hexdigest()[:16]
    cache = startup.cache_directory()
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
