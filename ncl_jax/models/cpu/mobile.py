"""EfficientNet-Lite's inference by the kernels of mobile.cc and folded.cc: batch normalisation is in the weights, and
an inverted residual block is one call."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ncl_jax.models.cpu.folded import RELU6, convolve, dense, panels, scaled
from ncl_jax.models.cpu.library import call
from ncl_jax.models.efficientnet import STAGES, EfficientNetLite, same_padding

Folded = dict[str, Any]


def takes(network: Any) -> bool:
    """Whether a network is one that this file computes."""
    return isinstance(network, EfficientNetLite) and network.width % 32 == 0 and network.dtype == jnp.float32


def fold(network: EfficientNetLite, variables: Any) -> Folded:
    """The weights as the kernels take them, by the names of the network's parts.

    Args:
      network: one that this file `takes`.
      variables: its `{"params", "batch_stats"}`.
    """
    params, stats = jax.device_get((variables["params"], variables["batch_stats"]))
    folded: Folded = {
        "stem": panels(*scaled(params["stem_conv"], params["stem_bn"], stats["stem_bn"], 1e-3)),
        "head": panels(*scaled(params["layer8_conv"], params["layer8_bn"], stats["layer8_bn"], 1e-3)),
    }
    for name, block in params.items():
        if "depthwise_conv" in block:
            parts = {
                kind: scaled(block[f"{kind}_conv"], block[f"{kind}_bn"], stats[name][f"{kind}_bn"], 1e-3)
                for kind in ("expand", "depthwise", "project")
                if f"{kind}_conv" in block
            }
            kernel, bias = parts["depthwise"]
            nothing = np.zeros(0, np.float32), np.zeros(0, np.float32)
            expand = panels(*parts["expand"]) if "expand" in parts else nothing
            folded[name] = (*expand, kernel[:, :, 0], bias, *panels(*parts["project"]))
    return folded


def features(network: EfficientNetLite, folded: Folded, images: jax.Array) -> jax.Array:
    """Equivalent to `network.apply(variables, images, False)`, for use under `jit` on one CPU device.

    `library.load` must have succeeded.

    Args:
      network: one that this file `takes`.
      folded: see `fold`.
      images: float32 `[B, H, W, 3]`.
    """
    before_y, before_x = (same_padding(side, 3, 2)[0] for side in images.shape[1:3])
    x = convolve(images, folded["stem"], 2, before=(before_y, before_x), most=RELU6)
    for number, stage in enumerate(STAGES[network.depth], 1):
        for block in range(stage.blocks):
            stride, outputs = stage.stride if block == 0 else 1, stage.features * network.width // 32
            placed = [_placed(side, stage.kernel_size, stride) for side in x.shape[1:3]]
            (height, before_y), (width, before_x) = placed
            shape = (len(x), height, width, outputs)
            attributes = {"stride": stride, "before_y": before_y, "before_x": before_x, "adds": int(shape == x.shape)}
            x = call("NclInverted", shape, x, *folded[f"layer{number}_{block}"], **attributes)
    return jnp.mean(dense(x, folded["head"], most=RELU6), axis=(1, 2))


def _placed(side, kernel_size, stride):
    """The number of results along a side, and the zeros before it."""
    return -(-side // stride), same_padding(side, kernel_size, stride)[0]
