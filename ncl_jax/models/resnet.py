"""Networks for large images: the ResNet (He et al. 2016, table 1), of basic blocks up to 34 layers and bottleneck
blocks, with the stride in their 3x3 convolution, above; and the ResNeXt (Xie et al. 2017, table 1), 32 groups of 4."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from ncl_jax.models.layers import XLA, BatchNorm, Conv, Dtype, Operations, Parts, make_block

STAGES = {
    18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3),
}  # blocks in each stage, by depth  # fmt: skip


class Basic(nn.Module):
    """Two 3x3 convolutions and a shortcut: `[B, H, W, I]` gives `[B, H / stride, W / stride, features]`."""

    features: int
    stride: int = 1
    conv: Callable[..., Conv] = Conv
    norm: Callable[..., BatchNorm] = BatchNorm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = self.conv(self.features, 3, self.stride, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y, train))
        y = self.norm(name="bn2")(self.conv(self.features, 3, name="conv2")(y), train)
        return nn.relu(y + shortcut(x, y.shape, self, train))


def shortcut(x: jax.Array, shape: tuple[int, ...], block: "Basic | Bottleneck", train: bool) -> jax.Array:
    """`x` itself if it has the block's shape, else a 1x1 convolution of it (option B). In its compact method."""
    if x.shape == shape:
        return x
    x = block.conv(shape[-1], 1, block.stride, name="downsample_conv")(x)
    return block.norm(name="downsample_bn")(x, train)


def bordered_max_pool(x: jax.Array) -> jax.Array:
    """`layers.max_pool` outside of training.

    A border that never wins comes first: jax2onnx knows Flax's pooling alone, drops a padding in
    numbers without a word, and takes the arguments by name. Such a border costs a TPU a pass over the largest
    activations, which training does without (docs/accelerators.md).
    """
    sides = ((0, 0), (1, 1), (1, 1), (0, 0))
    return nn.max_pool(jnp.pad(x, sides, constant_values=-jnp.inf), window_shape=(3, 3), strides=(2, 2))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut: `[B, H, W, I]` gives `[B, H / stride, W / stride, 4 features]`."""

    features: int
    stride: int = 1
    conv: Callable[..., Conv] = Conv
    norm: Callable[..., BatchNorm] = BatchNorm
    groups: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        outputs, inner = 4 * self.features, self.features if self.groups == 1 else 2 * self.features
        y = self.conv(inner, 1, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y, train))
        y = self.conv(inner, 3, self.stride, self.groups, name="conv2")(y)
        y = nn.relu(self.norm(name="bn2")(y, train))
        y = self.norm(name="bn3")(self.conv(outputs, 1, name="conv3")(y), train)
        return nn.relu(y + shortcut(x, y.shape, self, train))


class ResNet(nn.Module):
    """ResNet-`depth` (`STAGES`): `[B, H, W, channels]` gives features `[B, 32 * width]`, up to 34 layers `[B, 8 *
    width]`; `width` is 64 in the paper; `freeze`: see `layers.Parts`; `remat`: see `layers.make_block`."""

    depth: int = 50
    width: int = 64
    dtype: Dtype = jnp.float32
    operations: Operations = XLA
    freeze: int = 0
    remat: bool = False

    groups = 1
    num_parts = 5  # the stem and four stages

    @staticmethod
    def check_depth(depth: int) -> None:
        """Raises ValueError for a depth that there is not."""
        if depth not in STAGES:
            raise ValueError(f"depth={depth} must be, for a resnet, one of: {', '.join(map(str, STAGES))}")

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv = functools.partial(Conv, dtype=self.dtype, convolve=self.operations.convolve)
        norm = functools.partial(BatchNorm, sums=self.operations.sums)
        parts, block_type = Parts(self.freeze, train), make_block(Basic if self.depth < 50 else Bottleneck, self.remat)
        groups = {} if self.groups == 1 else {"groups": self.groups}
        x = conv(self.width, 7, 2, name="conv1")(x)
        x = nn.relu(norm(name="bn1")(x, parts.trains(0)))
        x = parts.leave(0, self.operations.max_pool(x) if train else bordered_max_pool(x))
        for stage, blocks in enumerate(STAGES[self.depth]):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                name = f"layer{stage + 1}_{block}"
                block_module = block_type(self.width * 2**stage, stride, conv, norm, name=name, **groups)
                x = block_module(x, parts.trains(stage + 1))
            x = parts.leave(stage + 1, x)
        return jnp.mean(x.astype(jnp.float32), axis=(1, 2))


class ResNeXt(ResNet):
    """ResNeXt-50 (32x4d): as the ResNet, with bottlenecks of twice the inner width in 32 groups; `width` must be a
    multiple of 16."""

    groups = 32

    @staticmethod
    def check_width(width: int) -> None:
        """Raises ValueError for a width that the groups do not divide."""
        if width % 16:
            raise ValueError(f"width={width} must be a multiple of 16 for a resnext, which has groups")

    @staticmethod
    def check_depth(depth: int) -> None:
        """Raises ValueError for a depth that there is not."""
        if depth != 50:
            raise ValueError(f"depth={depth} must be, for a resnext, 50")
