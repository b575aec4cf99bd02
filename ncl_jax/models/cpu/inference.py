"""How backbones are applied outside of training, where there are kernels for that."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from ncl_jax.models.cpu import mobile, residual, transformer

KINDS: tuple[Any, ...] = (mobile, residual, transformer)


def inference(network: nn.Module) -> tuple[Callable[[Any], Any], Callable[[Any, jax.Array], Any]]:
    """How a backbone is applied outside of training on one CPU device: what makes its variables ready, once, and what
    gives the features of images, `(ready variables, images) -> [B, D]`; `library.load` must have succeeded."""
    for kind in KINDS:
        if kind.takes(network):
            return functools.partial(kind.fold, network), functools.partial(kind.features, network)
    return lambda variables: variables, lambda variables, images: network.apply(variables, images, False)
