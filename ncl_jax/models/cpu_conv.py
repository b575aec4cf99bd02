"""3x3 convolutions on CPU through the C++ kernels of cpu_conv.cc, several times as fast in training as XLA's own.

They are compiled for the machine when first needed, into the user's cache directory; without a C++ compiler the
networks take XLA's convolution. docs/benchmarks.md has the measurements.
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
from ncl_jax.models import layers

SOURCE = pathlib.Path(__file__).with_suffix(".cc")
ARCHITECTURE = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
FLAGS = ("-std=c++17", "-O3", ARCHITECTURE, "-ffp-contract=fast", "-fPIC", "-shared", "-w")
TARGETS = ("NclConv", "NclConvGradient")
LANES = 8  # kLanes: the kernels want a multiple of this many output channels
MOST_CHANNELS = 128  # the most that was timed: 1.5 times as fast as XLA there, or more


@functools.cache
def load() -> str:
    """Makes the kernels available; returns why they are not, or an empty text."""
    compiler = os.environ.get("CXX") or "c++"
    try:
        library = ctypes.CDLL(str(_build(compiler)))
        for name in TARGETS:
            jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    except subprocess.CalledProcessError as error:
        return f"{compiler} could not compile {SOURCE}: {error.stderr.strip()[:500]}"
    except (OSError, RuntimeError) as error:
        if shutil.which(compiler) is None:
            return f"no C++ compiler was found ({compiler}: c++, or what the environment variable CXX names)"
        return f"the compiled kernels could not be kept or loaded: {error}"
    return ""


def _build(compiler: str) -> pathlib.Path:
    """The compiled kernels, of this source and for this machine; compiled now if they are not in the cache."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else [platform.processor()]
    features = sorted({line for line in lines if line.startswith(("flags", "Features"))}) or lines[:1]
    system = (jaxlib.__version__, compiler, *FLAGS, platform.machine(), *platform.libc_ver(), *features)
    key = hashlib.sha256("|".join((SOURCE.read_text(), *system)).encode()).hexdigest()[:16]
    cache = startup.cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    for path in cache.glob(f"cpu_conv-{key}-*.so"):
        if path.stem.endswith(f"-{_digest(path)}"):  # loading a file that was cut short would end the program
            return path
        path.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        output = pathlib.Path(folder) / "cpu_conv.so"
        command = [compiler, *FLAGS, f"-I{jax.ffi.include_dir()}", str(SOURCE), "-o", str(output)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        # Whole or not at all, whoever else compiles at the same time.
        return output.rename(cache / f"cpu_conv-{key}-{_digest(output)}.so")


def _digest(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def supports(x: jax.Array, kernel: jax.Array, padding: int) -> bool:
    """Whether `conv` computes this convolution; what is wrong with it is left to XLA to say."""
    height, width, inputs, outputs = kernel.shape
    usual = (height, width, padding) == (3, 3, 1) and x.dtype == kernel.dtype == jnp.float32
    small = outputs % LANES == 0 and max(inputs, outputs) <= MOST_CHANNELS
    return usual and small and x.shape[-1] == inputs and min(*x.shape, outputs) > 0


def convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """`layers.convolve` by the kernels where they apply, by XLA otherwise; `load` must have succeeded."""
    return conv(x, kernel, stride) if supports(x, kernel, padding) else layers.convolve(x, kernel, stride, padding)


def _forward(x, kernel, stride):
    height, width = (-(-side // stride) for side in x.shape[1:3])
    shape = jax.ShapeDtypeStruct((len(x), height, width, kernel.shape[-1]), x.dtype)
    return jax.ffi.ffi_call("NclConv", shape, vmap_method="sequential")(x, kernel, stride=stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Equivalent to `layers.convolve` with a padding of 1, where `supports` says so; for reverse mode, once.

    Args:
      x: `[B, H, W, I]` float32.
      kernel: `[3, 3, I, O]` float32.
      stride: of both dimensions.
    """
    return _forward(x, kernel, stride)


def _conv_forward(x, kernel, stride):
    return _forward(x, kernel, stride), (x, kernel)


def _conv_backward(stride, residuals, gradient):
    x, kernel = residuals
    shape = jax.ShapeDtypeStruct(kernel.shape, kernel.dtype)
    dkernel = jax.ffi.ffi_call("NclConvGradient", shape, vmap_method="sequential")(x, gradient, stride=stride)
    if stride == 1 and kernel.shape[2] % LANES == 0:
        return _forward(gradient, kernel[::-1, ::-1].swapaxes(2, 3), 1), dkernel
    (dx,) = jax.linear_transpose(lambda x: layers.convolve(x, kernel, stride, 1), x)(gradient)
    return dx, dkernel


conv.defvjp(_conv_forward, _conv_backward)
