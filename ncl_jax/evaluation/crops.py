"""Test-time ensembling: the mean of what a model gives for several crops of an image."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

CROPS = 5  # the corners and the centre


def five_crops(images: jax.Array, size: int) -> jax.Array:
    """The corners and the centre of images `[B, H, W, D]`, one crop of all after the other: `[5 B, size, size, D]`."""
    bottom, right = (side - size for side in images.shape[1:3])
    places = ((0, 0), (0, right), (bottom, 0), (bottom, right), (round(bottom / 2), round(right / 2)))
    return jnp.concatenate([images[:, top : top + size, left : left + size] for top, left in places])


def averaged(apply: Callable, size: int) -> Callable:
    """What `experts.make_apply` makes, for larger images: the mean over the crops of all outputs `[E, B, ...]`."""

    def whole(variables: Any, images: jax.Array, train: bool) -> tuple[dict[str, jax.Array], Any]:
        outputs, stats = apply(variables, five_crops(images, size), train)
        of_crops = lambda x: x.reshape(x.shape[0], CROPS, images.shape[0], *x.shape[2:])  # noqa: E731
        return {name: of_crops(value).mean(1) for name, value in outputs.items()}, stats

    return whole
