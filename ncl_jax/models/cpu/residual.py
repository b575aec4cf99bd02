"""A ResNet's inference by the kernels of folded.cc: batch normalisation is in the weights, and a convolution with its
shortcut and ReLU is one call."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from ncl_jax.models.cpu.folded import RELU, Weights, convolve, filters, panels, scaled, transformed
from ncl_jax.models.cpu.library import call
from ncl_jax.models.resnet import STAGES, ResNet

Folded = dict[str, dict[str, Weights]]


def takes(network: Any) -> bool:
    """Whether a network is one that this file computes."""
    plain = isinstance(network, ResNet) and network.groups == 1
    return plain and network.width % 32 == 0 and network.dtype == jnp.float32


def _blocks(network: ResNet) -> Iterator[tuple[str, int]]:
    """Name and stride of each."""
    for stage, number in enumerate(STAGES[network.depth], 1):
        for block in range(number):
            yield f"layer{stage}_{block}", 2 if stage > 1 and block == 0 else 1


def fold(network: ResNet, variables: Any) -> Folded:
    """The weights as the kernels take them, by the names of the network's parts."""
    params, stats = jax.device_get((variables["params"], variables["batch_stats"]))
    strided = ("conv1" if network.depth < 50 else "conv2", "downsample_conv")
    folded = {"stem": {"conv1": _folded(params, stats, "conv1", 2)}}
    for name, stride in _blocks(network):
        convs = [part for part in params[name] if "conv" in part]
        strides = {part: stride if part in strided else 1 for part in convs}
        folded[name] = {part: _folded(params[name], stats[name], part, strides[part]) for part in convs}
    return folded


def _folded(params, stats, conv, stride):
    norm = conv.replace("conv", "bn")
    kernel, bias = scaled(params[conv], params[norm], stats[norm], 1e-5)
    return transformed(kernel, bias) if filters(kernel, stride) else panels(kernel, bias)


def features(network: ResNet, folded: Folded, images: jax.Array) -> jax.Array:
    """Equivalent to `network.apply(variables, images, False)`, for use under `jit` on one CPU device.

    `library.load` must have succeeded.

    Args:
      network: one that this file `takes`.
      folded: see `fold`.
      images: float32 `[B, H, W, 3]`.
    """
    rows, columns = (-(-side // 4) for side in images.shape[1:3])
    x = call("NclStem", (len(images), rows, columns, network.width), images, *folded["stem"]["conv1"], kernel_size=7)
    for name, stride in _blocks(network):
        parts = folded[name]
        shortcut = convolve(x, parts["downsample_conv"], stride) if "downsample_conv" in parts else x
        if "conv3" in parts:
            y = convolve(x, parts["conv1"], most=RELU)
            y, last = convolve(y, parts["conv2"], stride, most=RELU), parts["conv3"]
        else:
            y, last = convolve(x, parts["conv1"], stride, most=RELU), parts["conv2"]
        x = convolve(y, last, add=shortcut, most=RELU)
    return jnp.mean(x, axis=(1, 2))
