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
