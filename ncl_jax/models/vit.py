"""Vision transformers (Dosovitskiy et al. 2021): ViT itself, DINOv2 without and with registers, DINOv3, the image
towers of CLIP and SigLIP. What tells them apart at one depth and width is a `Form`."""

import functools
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ncl_jax.models.adapters import ADAPTERS, NONE
from ncl_jax.models.layers import XLA, Dtype, Operations, Parts, Patches, layer_norm, make_block, truncated

Rotation = tuple[np.ndarray, np.ndarray]  # cosines and sines, float32 [N, d] both
STAGES = 4  # that the blocks are divided into, for `freeze`


class Form(NamedTuple):
    """What tells vision transformers of one depth and width apart."""

    patch: int = 16  # side of a patch, in pixels
    head: int = 64  # numbers of an attention head
    hidden: float = 4.0  # hidden units for each of the width
    registers: int = 0  # tokens beside the class's
    layer_scale: bool = False  # a factor for every feature of a residual branch
    rotary: bool = False  # positions by rotating queries and keys, not by adding an embedding
    first_norm: bool = False  # a layer normalisation before the first block
    quick: bool = False  # x * sigmoid(1.702 x) for GELU
    pools: bool = False  # attention pooling in place of a class token
    epsilon: float = 1e-6  # of layer normalisation


def rotation(rows: int, columns: int, size: int, prefix: int) -> Rotation:
    """DINOv3's rotary positions of `prefix` tokens that have none and of a grid of patches, for heads of `size`.

    Coordinates are the patches' centres in [-1, 1]; the periods grow from 1 to 100 (exclusive) over a quarter of the
    numbers, for rows and columns each; both halves of a head have the same angles.
    """
    periods = 100 ** (np.arange(size // 4) * 4 / size)
    centres = [(np.arange(side) + 0.5) / side * 2 - 1 for side in (rows, columns)]
    grid = np.stack(np.meshgrid(*centres, indexing="ij"), -1).reshape(-1, 2, 1)
    angles = np.tile((2 * np.pi * grid / periods).reshape(rows * columns, size // 2), 2)
    angles = np.concatenate([np.zeros((prefix, size)), angles])
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def unturned(by: Rotation, number: int) -> Rotation:
    """The positions with a number of tokens before them that have none."""
    return tuple(
        np.concatenate([np.full((number, part.shape[1]), value, np.float32), part])
        for part, value in zip(by, (1, 0), strict=True)
    )  # type: ignore[return-value]


def rotate(x: jax.Array, by: Rotation) -> jax.Array:
    """Queries or keys `[B, N, heads, d]` with their positions."""
    first, second = jnp.split(x.astype(jnp.float32), 2, -1)
    cosine, sine = (part[:, None] for part in by)
    turned = jnp.concatenate([-second, first], -1)
    return (jnp.concatenate([first, second], -1) * cosine + turned * sine).astype(x.dtype)


def gelu(x: jax.Array, quick: bool) -> jax.Array:
    """GELU by the error function or, `quick`, OpenAI's stand-in."""
    return x * nn.sigmoid(1.702 * x) if quick else nn.gelu(x, approximate=False)


def _dense(features: int, dtype: Dtype, name: str) -> nn.Dense:
    return nn.Dense(features, dtype=dtype, kernel_init=truncated, name=name)


def _mlp(x: jax.Array, hidden: int, quick: bool, dtype: Dtype) -> jax.Array:
    """Two layers, in a module's compact method."""
    return _dense(x.shape[-1], dtype, "fc2")(gelu(_dense(hidden, dtype, "fc1")(x), quick))


def _heads(x: jax.Array, number: int, size: int) -> list[jax.Array]:
    """`[B, N, number * D]`, queries first, as `number` arrays `[B, N, D / size, size]`."""
    x = x.reshape(*x.shape[:2], number, -1, size)
    return [x[:, :, part] for part in range(number)]


class Block(nn.Module):
    """Attention and two layers, both on normalised inputs and added: float32 `[B, N, D]` to the same. Products are in
    `dtype`, sums, normalisations and the softmax in float32. An `adapter` of `ADAPTERS` gives tokens before those of
    the block, what is added to queries, keys and values, or what is added beside the two layers."""

    form: Form
    dtype: Dtype = jnp.float32
    adapter: str = NONE
    adapter_width: int = 0

    def _adapted(self, place: str, x: jax.Array) -> jax.Array | None:
        """What the adapter makes of `x` at a place; None where it has nothing there."""
        kind = ADAPTERS.get(self.adapter)
        if kind is None or kind.module is None or kind.place != place:
            return None
        return kind.module(self.adapter_width, self.dtype, name="adapter")(x)

    def _add(self, x: jax.Array, y: jax.Array, name: str) -> jax.Array:
        y = y.astype(jnp.float32)
        if self.form.layer_scale:
            y = y * self.param(name, nn.initializers.constant(1e-5), x.shape[-1:])
        return x + y

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, positions: Rotation | None = None) -> jax.Array:
        form, dtype, width = self.form, self.dtype, x.shape[-1]
        if (prompts := self._adapted("tokens", x)) is not None:
            x = jnp.concatenate([prompts, x], 1)
            positions = positions and unturned(positions, prompts.shape[1])
        y = layer_norm(form.epsilon, dtype, "norm1")(x)
        together = _dense(3 * width, dtype, "qkv")(y)
        if (more := self._adapted("attention", y)) is not None:
            together = together + more
        queries, keys, values = _heads(together, 3, form.head)
        if positions is not None:
            queries, keys = rotate(queries, positions), rotate(keys, positions)
        y = jax.nn.dot_product_attention(queries, keys, values).reshape(x.shape)
        x = self._add(x, _dense(width, dtype, "proj")(y), "scale1")
        y = layer_norm(form.epsilon, dtype, "norm2")(x)
        y = self._add(x, _mlp(y, int(width * form.hidden), form.quick, dtype), "scale2")
        if (more := self._adapted("layers", x)) is not None:
            y = y + more
        return y if prompts is None else y[:, prompts.shape[1] :]


class Pool(nn.Module):
    """SigLIP's attention pooling: one learned query on all tokens, then two layers: `[B, N, D]` gives `[B, D]`."""

    form: Form
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        form, dtype, width = self.form, self.dtype, x.shape[-1]
        latent = jnp.broadcast_to(self.param("latent", truncated, (1, width)), (x.shape[0], 1, width))
        (queries,) = _heads(_dense(width, dtype, "q")(latent), 1, form.head)
        keys, values = _heads(_dense(2 * width, dtype, "kv")(x), 2, form.head)
        y = jax.nn.dot_product_attention(queries, keys, values).reshape(latent.shape)
        y = _dense(width, dtype, "proj")(y).astype(jnp.float32)
        normed = layer_norm(form.epsilon, dtype, "norm")(y)
        return (y + _mlp(normed, int(width * form.hidden), form.quick, dtype).astype(jnp.float32))[:, 0]


class VisionTransformer(nn.Module):
    """ViT of `depth` blocks: `[B, H, W, channels]` gives features `[B, width]`; `freeze`: see `layers.Parts`; `remat`:
    see `layers.make_block`. A class token's own position is a part of `class_token`.

    Attributes:
      until: the number of blocks after which it gives the tokens, float32 `[B, N, D]`; None: all, and features.
      since: the number of blocks that the input, which is tokens then, has passed; None: it is images.
      adapter, adapter_width: of every block that it has, see `adapters.ADAPTERS`.
    """

    depth: int = 12
    width: int = 768
    dtype: Dtype = jnp.float32
    operations: Operations = XLA
    freeze: int = 0
    remat: bool = False
    until: int | None = None
    since: int | None = None
    adapter: str = NONE
    adapter_width: int = 0

    form = Form()
    num_parts = STAGES + 1  # the patches and four quarters of the blocks

    @staticmethod
    def check_depth(depth: int) -> None:
        """Raises ValueError for a depth that there is not."""
        if depth < 1:
            raise ValueError(f"depth={depth} must be at least 1, for a vision transformer")

    @classmethod
    def check_width(cls, width: int) -> None:
        """Raises ValueError for a width that has no whole number of heads."""
        if width % cls.form.head:
            raise ValueError(f"width={width} must be a multiple of {cls.form.head}, the numbers of an attention head")

    @classmethod
    def check_image_size(cls, size: int) -> None:
        """Raises ValueError for a side that is not a whole number of patches."""
        if size % (patch := cls.form.patch) or not size:
            near = max(size // patch, 1) * patch
            raise ValueError(f"image_size={size} must be a multiple of {patch}, the side of a patch, such as {near}")

    def trains(self, path: tuple[str, ...]) -> bool:
        """Whether a parameter is trained, by its path: with adapters not the rest of their blocks."""
        of_block = path[0].rpartition("_")[2].isdecimal()
        return self.adapter == NONE or (of_block and ADAPTERS[self.adapter].trains(path[1:]))

    def _tokens(self, x: jax.Array) -> tuple[jax.Array, Rotation | None]:
        """The tokens that the blocks see, float32 `[B, N, D]`, and their rotary positions."""
        form, width = self.form, self.width
        prefix = 0 if form.pools else 1 + form.registers
        if self.since is not None:  # of a square
            side = math.isqrt(x.shape[1] - prefix)
            return x, rotation(side, side, form.head, prefix) if form.rotary else None
        x = Patches(width, form.patch, self.dtype, name="patch")(x).astype(jnp.float32)
        batch, rows, columns = x.shape[:3]
        x = x.reshape(batch, rows * columns, width)
        if not form.rotary:
            x = x + self.param("position", truncated, (rows * columns, width))
        own = [] if form.pools else [self.param("class_token", truncated, (1, width))]
        own += [self.param("registers", truncated, (form.registers, width))] if form.registers else []
        x = jnp.concatenate([*(jnp.broadcast_to(token, (batch, *token.shape)) for token in own), x], 1)
        if form.first_norm:
            x = layer_norm(form.epsilon, jnp.float32, "first_norm")(x)
        return x, rotation(rows, columns, form.head, prefix) if form.rotary else None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        form, parts = self.form, Parts(self.freeze, train)
        block = functools.partial(
            make_block(Block, self.remat), form, self.dtype, adapter=self.adapter, adapter_width=self.adapter_width
        )
        x, positions = self._tokens(x)
        x = parts.leave(0, x)
        for number in range(self.since or 0, self.depth if self.until is None else self.until):
            part, following = (1 + place * STAGES // self.depth for place in (number, number + 1))
            x = block(name=f"layer{part}_{number}")(x, parts.trains(part), positions)
            x = parts.leave(part, x) if part != following else x
        if self.until is not None:
            return x
        x = layer_norm(form.epsilon, jnp.float32, f"layer{STAGES}_norm")(x if form.pools else x[:, 0])
        return parts.leave(STAGES, Pool(form, self.dtype, name=f"layer{STAGES}_pool")(x) if form.pools else x)


class DinoV2(VisionTransformer):
    """Oquab et al. 2024."""

    form = Form(patch=14, layer_scale=True)


class DinoV2Registers(VisionTransformer):
    """With four registers (Darcet et al. 2024)."""

    form = Form(patch=14, layer_scale=True, registers=4)


class DinoV3(VisionTransformer):
    """Siméoni et al. 2025."""

    form = Form(layer_scale=True, registers=4, rotary=True, epsilon=1e-5)


class Clip16(VisionTransformer):
    """The image tower of OpenAI's CLIP (Radford et al. 2021), before its projection, with patches of 16 pixels."""

    form = Form(first_norm=True, quick=True, epsilon=1e-5)


class Clip14(VisionTransformer):
    """The same with patches of 14 pixels."""

    form = Form(patch=14, first_norm=True, quick=True, epsilon=1e-5)


class Siglip(VisionTransformer):
    """The image tower of SigLIP (Zhai et al. 2023)."""

    form = Form(pools=True)


class SiglipSo400m(VisionTransformer):
    """The same in the shape of Alabdulmohsin et al. 2023."""

    form = Form(patch=14, head=72, hidden=3.7362, pools=True)
