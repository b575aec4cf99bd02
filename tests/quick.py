"""Compiling for tests: small arrays, so that the compiler's time is what counts."""

import jax


def quick_jit(function, **options):
    """`jax.jit` without the compiler's expensive passes, and with other `options` of XLA."""
    quick = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(function, compiler_options=quick | options)
