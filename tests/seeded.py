"""Weights and images from seeds: NumPy alone, so that tools for other frameworks can make the same."""

import zlib

import numpy as np


def tensor(name, shape):
    """A ResNet's tensor, from its name in torchvision: scaled so that activations stay near 1."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        return rng.uniform(0.5, 2, shape).astype(np.float32)
    if name.endswith(("running_mean", "bias")):
        return rng.normal(0, 0.2, shape).astype(np.float32)
    if len(shape) == 1:  # of batch normalisation; small, or residual sums would grow
        return rng.uniform(0.2, 0.6, shape).astype(np.float32)
    return (rng.normal(0, 1, shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)


def images(side):
    """Two images [2, side, side, 3]."""
    return np.random.default_rng(side).normal(0, 1, (2, side, side, 3)).astype(np.float32)


def uint8_images(number, side):
    """Images uint8 [number, side, side, 3]."""
    return np.random.default_rng(number).integers(0, 256, (number, side, side, 3), np.uint8)


def vit_tensors(depth, width, patch, side):
    """A vision transformer's tensors by timm's names, for images of a side; twice as many hidden units as numbers of a
    token."""
    shapes = {"cls_token": (1, 1, width), "pos_embed": (1, 1 + (side // patch) ** 2, width),
              "patch_embed.proj.weight": (width, 3, patch, patch), "patch_embed.proj.bias": (width,),
              "norm.weight": (width,), "norm.bias": (width,)}  # fmt: skip
    of_block = {"norm1": (width,), "attn.qkv": (3 * width, width), "attn.proj": (width, width), "norm2": (width,),
                "mlp.fc1": (2 * width, width), "mlp.fc2": (width, 2 * width)}  # fmt: skip
    for number in range(depth):
        for name, shape in of_block.items():
            shapes |= {f"blocks.{number}.{name}.weight": shape, f"blocks.{number}.{name}.bias": shape[:1]}
    return {name: np.ascontiguousarray(tensor(name, shape)) for name, shape in shapes.items()}
