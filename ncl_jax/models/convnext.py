"""ConvNeXt (Liu et al. 2022): a convolutional network in the manner of a transformer."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from ncl_jax.models.layers import XLA, Dtype, Operations, Parts, Patches, layer_norm, make_block, truncated

STAGES = {18: (3, 3, 9, 3), 36: (3, 3, 27, 3)}  # blocks in each stage, by depth: tiny; small and base
EPSILON = 1e-6


class Spatial(nn.Module):
    """A 7x7 convolution of each channel by itself with a bias: `[B, H, W, D]` to the same."""

    dtype: Dtype = jnp.float32
    operations: Operations = XLA

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", truncated, (7, 7, 1, x.shape[-1]))
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        sides = ((3, 3), (3, 3))
        return self.operations.depthwise(x.astype(self.dtype), kernel.astype(self.dtype), 1, sides) + bias


class Block(nn.Module):
    """A spatial convolution, then two layers for each pixel, scaled and added: float32 `[B, H, W, D]` to the same."""

    dtype: Dtype = jnp.float32
    operations: Operations = XLA

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        width, dense = x.shape[-1], functools.partial(nn.Dense, dtype=self.dtype, kernel_init=truncated)
        y = layer_norm(EPSILON, self.dtype, "norm")(Spatial(self.dtype, self.operations, name="conv_dw")(x))
        y = dense(width, name="fc2")(nn.gelu(dense(4 * width, name="fc1")(y), approximate=False))
        return x + y.astype(jnp.float32) * self.param("scale", nn.initializers.constant(1e-6), (width,))


class ConvNeXt(nn.Module):
    """ConvNeXt of `depth` blocks (`STAGES`): `[B, H, W, channels]` gives features `[B, 8 * width]`; `width` is 96 for
    tiny and small, 128 for base; `freeze`: see `layers.Parts`; `remat`: see `layers.make_block`."""

    depth: int = 18
    width: int = 96
    dtype: Dtype = jnp.float32
    operations: Operations = XLA
    freeze: int = 0
    remat: bool = False

    num_parts = 5  # the stem and four stages

    @staticmethod
    def check_depth(depth: int) -> None:
        """Raises ValueError for a depth that there is not."""
        if depth not in STAGES:
            raise ValueError(f"depth={depth} must be, for a convnext, one of: {', '.join(map(str, STAGES))}")

    @staticmethod
    def check_image_size(size: int) -> None:
        """Raises ValueError for a side of which nothing is left in the end."""
        if size < 32:
            raise ValueError(f"image_size={size} must be at least 32 for a convnext, whose last stage has a 32nd of it")

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        parts, block_type = Parts(self.freeze, train), make_block(Block, self.remat)
        x = Patches(self.width, 4, self.dtype, name="stem_conv")(x)
        x = parts.leave(0, layer_norm(EPSILON, jnp.float32, "stem_norm")(x))
        for stage, blocks in enumerate(STAGES[self.depth], 1):
            if stage > 1:
                x = layer_norm(EPSILON, self.dtype, f"layer{stage}_norm")(x)
                x = Patches(self.width * 2 ** (stage - 1), 2, self.dtype, name=f"layer{stage}_conv")(x)
                x = x.astype(jnp.float32)
            for block in range(blocks):
                x = block_type(self.dtype, self.operations, name=f"layer{stage}_{block}")(x, parts.trains(stage))
            x = parts.leave(stage, x) if stage < len(STAGES[self.depth]) else x
        x = layer_norm(EPSILON, jnp.float32, "layer4_last_norm")(jnp.mean(x, axis=(1, 2)))
        return parts.leave(4, x)
