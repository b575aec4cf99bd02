"""EfficientNet-Lite's inference by the kernels of mobile.cc, on weights that batch normalisation is folded into."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ncl_jax.models.cpu.library import call, lanes
from ncl_jax.models.efficientnet import STAGES, EfficientNetLite, same_padding

Folded = dict[str, Any]


def inference(network: nn.Module) -> tuple[Callable[[Any], Any], Callable[[Any, jax.Array], Any]]:
    """How a backbone is applied outside of training on one CPU device: what makes its variables ready, once, and what
    gives the features of images, `(ready variables, images) -> [B, D]`; `library.load` must have succeeded."""
    if isinstance(network, EfficientNetLite) and network.width % 32 == 0 and network.dtype == jnp.float32:
        return fold, functools.partial(features, network)
    return lambda variables: variables, lambda variables, images: network.apply(variables, images, False)


def fold(variables: Any) -> Folded:
    """The weights as the kernels take them, by the names of the network's parts.

    Args:
      variables: `{"params", "batch_stats"}` of an `EfficientNetLite`.
    """
    params, stats = jax.device_get((variables["params"], variables["batch_stats"]))
    folded: Folded = {
        "stem": _panels(*_scaled(params["stem_conv"], params["stem_bn"], stats["stem_bn"])),
        "head": _panels(*_scaled(params["layer8_conv"], params["layer8_bn"], stats["layer8_bn"])),
    }
    for name, block in params.items():
        if "depthwise_conv" in block:
            parts = {
                kind: _scaled(block[f"{kind}_conv"], block[f"{kind}_bn"], stats[name][f"{kind}_bn"])
                for kind in ("expand", "depthwise", "project")
                if f"{kind}_conv" in block
            }
            kernel, bias = parts["depthwise"]
            nothing = np.zeros(0, np.float32), np.zeros(0, np.float32)
            expand = _panels(*parts["expand"]) if "expand" in parts else nothing
            folded[name] = (*expand, kernel[:, :, 0], bias, *_panels(*parts["project"]))
    return folded


def _scaled(conv, norm, stats):
    """A convolution's kernel, and the bias that its batch normalisation adds in inference."""
    factor = norm["scale"] / np.sqrt(stats["var"] + 1e-3)
    return conv["kernel"] * factor, norm["bias"] - stats["mean"] * factor


def _panels(kernel, bias):
    """A kernel [h, w, I, O] as panels of columns, filled up with zeros, and its bias; see mobile.cc."""
    panel, flat = 2 * lanes(), kernel.reshape(-1, kernel.shape[-1])
    fill = -flat.shape[1] % panel
    flat, bias = np.pad(flat, ((0, 0), (0, fill))), np.pad(bias, (0, fill))
    return np.ascontiguousarray(flat.reshape(len(flat), -1, panel).transpose(1, 0, 2)), bias


def features(network: EfficientNetLite, folded: Folded, images: jax.Array) -> jax.Array:
    """Equivalent to `network.apply(variables, images, False)`, for use under `jit` on one CPU device.

    `library.load` must have succeeded.

    Args:
      network: of a width that is a multiple of 32, in float32.
      folded: see `fold`.
      images: float32 `[B, H, W, 3]`.
    """
    (height, before_y), (width, before_x) = (_placed(side, 3, 2) for side in images.shape[1:3])
    padding = {"before_y": before_y, "before_x": before_x}
    x = call("NclStem", (len(images), height, width, network.width), images, *folded["stem"], **padding)
    for number, stage in enumerate(STAGES[network.depth], 1):
        for block in range(stage.blocks):
            stride, outputs = stage.stride if block == 0 else 1, stage.features * network.width // 32
            placed = [_placed(side, stage.kernel_size, stride) for side in x.shape[1:3]]
            (height, before_y), (width, before_x) = placed
            shape = (len(x), height, width, outputs)
            attributes = {"stride": stride, "before_y": before_y, "before_x": before_x, "adds": int(shape == x.shape)}
            x = call("NclInverted", shape, x, *folded[f"layer{number}_{block}"], **attributes)
    return call("NclPooled", (len(x), 1280 * network.width // 32), x, *folded["head"])


def _placed(side, kernel_size, stride):
    """The number of results along a side, and the zeros before it."""
    return -(-side // stride), same_padding(side, kernel_size, stride)[0]
