"""A vision transformer's inference by the kernels of dense.cc: five calls a block, with layer normalisation and layer
scale folded into weights."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ncl_jax.models.adapters import NONE
from ncl_jax.models.cpu.folded import Weights, dense, panels
from ncl_jax.models.cpu.library import call
from ncl_jax.models.vit import STAGES, VisionTransformer, rotate, rotation

Folded = dict[str, Any]


def takes(network: Any) -> bool:
    """Whether a network is one that this file computes."""
    if not isinstance(network, VisionTransformer) or network.until is not None or network.since is not None:
        return False
    return network.adapter == NONE and network.dtype == jnp.float32


def _blocks(network: VisionTransformer) -> Iterator[str]:
    return (f"layer{1 + number * STAGES // network.depth}_{number}" for number in range(network.depth))


def fold(network: VisionTransformer, variables: Any) -> Folded:
    """The blocks' weights as the kernels take them, by their names, and under `rest` the other variables."""
    params = jax.device_get(variables["params"])
    blocks = {name: _folded(params[name]) for name in _blocks(network)}
    return blocks | {"rest": {"params": {name: value for name, value in params.items() if name not in blocks}}}


def _folded(params: dict) -> dict[str, Weights]:
    """Of a block: what scales and shifts a normalised input, or scales a branch, is a part of the weights."""
    folded = {}
    for layer, norm in (("qkv", "norm1"), ("fc1", "norm2")):
        kernel, scale, shift = params[layer]["kernel"], params[norm]["scale"], params[norm]["bias"]
        folded[layer] = panels(scale[:, None] * kernel, params[layer]["bias"] + shift @ kernel)
    for layer, scale in (("proj", "scale1"), ("fc2", "scale2")):
        factor = params.get(scale, np.float32(1))
        folded[layer] = panels(params[layer]["kernel"] * factor, params[layer]["bias"] * factor)
    return folded


def features(network: VisionTransformer, folded: Folded, images: jax.Array) -> jax.Array:
    """Equivalent to `network.apply(variables, images, False)`, for use under `jit` on one CPU device.

    `library.load` must have succeeded.

    Args:
      network: one that this file `takes`.
      folded: see `fold`.
      images: float32 `[B, H, W, 3]`.
    """
    form, width = network.form, network.width
    tokens: Callable[..., jax.Array] = network.clone(until=0).apply  # type: ignore[assignment]
    last: Callable[..., jax.Array] = network.clone(since=network.depth).apply  # type: ignore[assignment]
    x = tokens(folded["rest"], images, False)
    positions = None
    if form.rotary:
        rows, columns = (side // form.patch for side in images.shape[1:3])
        positions = rotation(rows, columns, form.head, 1 + form.registers)
    for name in _blocks(network):
        block = folded[name]
        y = dense(x, block["qkv"], 3 * width, epsilon=form.epsilon)
        if positions is not None:
            heads = y.reshape(*y.shape[:2], 3, -1, form.head)
            turned = [rotate(heads[:, :, part], positions) for part in (0, 1)]
            y = jnp.stack([*turned, heads[:, :, 2]], 2).reshape(y.shape)
        y = call("NclAttention", x.shape, y, size=form.head)
        x = dense(y, block["proj"], width, add=x)
        y = dense(
            x, block["fc1"], int(width * form.hidden), epsilon=form.epsilon, act="quick" if form.quick else "gelu"
        )
        x = dense(y, block["fc2"], width, add=x)
    return last(folded["rest"], x, False)
