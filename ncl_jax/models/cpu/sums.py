"""The sums of batch normalisation by the kernel of sums.cc, which reads the activations once for both."""

import jax

from ncl_jax.models import layers
from ncl_jax.models.cpu.library import call, lanes


def sums(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`layers.sums` by the kernel where it applies, by XLA otherwise; `library.load` must have succeeded."""
    if a.shape[-1] % lanes() or not a.size:
        return layers.sums(a, b)
    both = call("NclSums", (2, a.shape[-1]), a, b)
    return both[0], both[1]
