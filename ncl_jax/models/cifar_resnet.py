"""The CIFAR ResNet (He et al. 2016, section 4.2): three stages, identity shortcuts without parameters (option A)."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from ncl_jax.models.layers import XLA, BatchNorm, Conv, Dtype, Operations, Parts, make_block


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: `[B, H, W, I]` gives `[B, H / stride, W / stride, features]`."""

    features: int
    stride: int = 1
    conv: Callable[..., Conv] = Conv
    norm: Callable[..., BatchNorm] = BatchNorm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = self.conv(self.features, stride=self.stride, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y, train))
        y = self.conv(self.features, name="conv2")(y)
        y = self.norm(name="bn2")(y, train)
        return nn.relu(y + shortcut_a(x, self.features, self.stride))


def shortcut_a(x: jax.Array, features: int, stride: int) -> jax.Array:
    """Option A: every `stride`-th pixel, the missing channels zero, half of them on each side."""
    missing = features - x.shape[-1]
    if stride == 1 and missing == 0:
        return x
    return jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (missing // 2, missing - missing // 2)))


class CifarResNet(nn.Module):
    """ResNet-`depth` for small images: `[B, H, W, channels]` gives features `[B, 4 * width]` after average pooling.

    `depth` is 6 n + 2 (8, 14, 20, 32, 44, 56, 110): n blocks in each stage; `width` the first stage's channels;
    `freeze`: see `layers.Parts`; `remat`: see `layers.make_block`.
    """

    depth: int = 32
    width: int = 16
    dtype: Dtype = jnp.float32
    operations: Operations = XLA
    freeze: int = 0
    remat: bool = False

    num_parts = 4  # the stem and three stages

    @staticmethod
    def check_depth(depth: int) -> None:
        """Raises ValueError for a depth that there is not."""
        if (depth - 2) % 6 or depth < 8:
            raise ValueError(f"depth={depth} must be, for a cifar_resnet, 6 n + 2: 8, 14, 20, 26, 32, 44, 56, 110")

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv = functools.partial(Conv, dtype=self.dtype, convolve=self.operations.convolve)
        norm = functools.partial(BatchNorm, sums=self.operations.sums)
        parts, block_type = Parts(self.freeze, train), make_block(BasicBlock, self.remat)
        x = conv(self.width, name="conv1")(x)
        x = parts.leave(0, nn.relu(norm(name="bn1")(x, parts.trains(0))))
        for stage in range(3):
            for block in range((self.depth - 2) // 6):
                stride = 2 if stage > 0 and block == 0 else 1
                name = f"layer{stage + 1}_{block}"
                x = block_type(self.width * 2**stage, stride, conv, norm, name=name)(x, parts.trains(stage + 1))
            x = parts.leave(stage + 1, x)
        return jnp.mean(x.astype(jnp.float32), axis=(1, 2))
