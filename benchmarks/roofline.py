"""The least time that a training step could take on a device: its arithmetic and its traffic over measured ceilings.

Counted are the convolutions, forward and backward: two operations a product, and every operand read and every result
written once. All else is taken as free, so no program that computes these convolutions directly can be faster than the
larger of the two times. (Minimal filtering, ncl_jax/models/cpu/filtering.h, needs fewer products.)
"""

import math
import time

import jax
import jax.numpy as jnp
from jax.extend.core import jaxprs_in_params


def work(step, arguments):
    """(operations, bytes) of a step's convolutions, which must be XLA's; `arguments` arrays or shapes."""
    return _work(jax.make_jaxpr(step)(*arguments).jaxpr)


def _work(jaxpr):
    operations = moved = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            done, size = _convolution(equation)
        else:
            times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
            inner = [_work(sub) for sub in jaxprs_in_params(equation.params)]
            done, size = (times * sum(part) for part in zip(*inner, strict=True)) if inner else (0, 0)
        operations, moved = operations + done, moved + size
    return operations, moved


def _convolution(equation):
    result, (_, kernel) = equation.outvars[0].aval, (v.aval for v in equation.invars)
    _, inputs, *window = equation.params["dimension_numbers"].rhs_spec
    taps = math.prod(kernel.shape[i] for i in window) * kernel.shape[inputs]
    # Zeros put between the pixels of a strided convolution's gradient are not counted.
    operations = 2 * result.size * taps // math.prod(equation.params["lhs_dilation"])
    arrays = [v.aval for v in (*equation.invars, *equation.outvars)]
    return operations, sum(a.size * a.dtype.itemsize for a in arrays)


def ceilings(precision):
    """(operations a second of a large matrix product, bytes a second of a large copy), the best of ten calls."""
    on_cpu = jax.default_backend() == "cpu"
    side, length = (1024, 2**26) if on_cpu else (8192, 2**30)
    matrix = jnp.ones((side, side), "bfloat16" if precision == "bfloat16" else "float32")
    wanted = {"float32": "float32", "tf32": "tensorfloat32"}.get(precision)
    product = jax.jit(lambda m: jnp.matmul(m, m, precision=wanted))
    array = jnp.ones(length, "float32")
    copy = jax.jit(lambda a: a + 1)
    return 2 * side**3 / _seconds(product, matrix), 2 * array.nbytes / _seconds(copy, array)


def _seconds(function, argument):
    jax.block_until_ready(function(argument))
    seconds = []
    for _ in range(10):
        began = time.perf_counter()
        jax.block_until_ready(function(argument))
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def bound(step, arguments, measured):
    """What `step` must do and the least milliseconds for it, given `ceilings`."""
    operations, moved = work(step, arguments)
    arithmetic, traffic = (1000 * need / rate for need, rate in zip((operations, moved), measured, strict=True))
    return {
        "operations": operations, "bytes": moved, "operations_per_second": measured[0], "bytes_per_second": measured[1],
        "arithmetic_ms": arithmetic, "traffic_ms": traffic, "bound_ms": max(arithmetic, traffic),
    }  # fmt: skip
