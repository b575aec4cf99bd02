"""A network's costly operations on CPU, by C++ kernels that are compiled for the machine (`library`)."""

from ncl_jax.models.cpu.conv import convolve
from ncl_jax.models.cpu.inference import inference
from ncl_jax.models.cpu.library import load
from ncl_jax.models.cpu.pool import max_pool
from ncl_jax.models.cpu.sums import sums
from ncl_jax.models.layers import Operations

__all__ = ["OPERATIONS", "inference", "load"]

OPERATIONS = Operations(convolve, sums, max_pool=max_pool)
