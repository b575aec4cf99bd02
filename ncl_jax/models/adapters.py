"""Adapters inside the blocks of a frozen vision transformer: the few numbers that are trained while the block stays as
it is. One more kind is a module, or none where a block's own numbers are trained, and a line in `ADAPTERS`."""

import math
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ncl_jax.models.heads import uniform_fan_in
from ncl_jax.models.layers import Dtype, layer_norm

Path = tuple[str, ...]  # names of a parameter within a block
PATCH = 3 * 16**2  # numbers of a patch, by which prompts are drawn
PROMPTS = 10  # tokens of a block


class AdaptFormer(nn.Module):
    """`s * (relu(LN(x) V + b) U + c)` for tokens `x [B, N, D]`, added beside a block's two layers (Chen et al. 2022,
    with the normalisation and the learned factor of LIFT, arXiv 2309.10019); 0 at the start, because U, b and c are."""

    width: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = x.shape[-1]
        normed = layer_norm(1e-5, self.dtype, "norm")(x)
        down = nn.Dense(self.width, dtype=self.dtype, kernel_init=uniform_fan_in(size), name="down")(normed)
        up = nn.Dense(size, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="up")(nn.relu(down))
        return self.param("scale", nn.initializers.ones, ()) * up.astype(jnp.float32)


class LoRA(nn.Module):
    """`x A B / r` for queries and for values (Hu et al. 2022), of normalised tokens `x [B, N, D]`: `[B, N, 3 D]`, added
    to queries, keys and values; 0 at the start, because both B are."""

    width: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        queries, values = (self._product(x, name) for name in ("query", "value"))
        return jnp.concatenate([queries, jnp.zeros_like(queries), values], -1)

    def _product(self, x: jax.Array, name: str) -> jax.Array:
        size = x.shape[-1]
        down = self.param(f"{name}_down", uniform_fan_in(size), (size, self.width)).astype(self.dtype)
        up = self.param(f"{name}_up", nn.initializers.zeros, (self.width, size)).astype(self.dtype)
        return x.astype(self.dtype) @ down @ up / self.width


class Prompts(nn.Module):
    """Learned tokens `[B, P, D]` that a block sees before its own, and whose results are dropped (deep visual prompt
    tuning, Jia et al. 2022, with its initialisation)."""

    width: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        bound = math.sqrt(6 / (PATCH + x.shape[-1]))
        init = lambda key, shape: jax.random.uniform(key, shape, jnp.float32, -bound, bound)  # noqa: E731
        tokens = self.param("tokens", init, (self.width, x.shape[-1]))
        return jnp.broadcast_to(tokens, (x.shape[0], *tokens.shape))


class Kind(NamedTuple):
    """A kind of adapter.

    Attributes:
      place: what its module is given and added to, see `vit.Block`: "tokens", "attention" or "layers"; empty: it has
        none.
      module: made with a width and a number format, and called with what its place says.
      trains: which numbers of a block are trained, by their path in it.
      default_width: the width for C classes and a number of adapted blocks; None: it has no width.
    """

    place: str
    module: Callable[..., nn.Module] | None
    trains: Callable[[Path], bool]
    default_width: Callable[[int, int], int] | None


def lift_width(num_classes: int, blocks: int) -> int:
    """LIFT's rule: the largest power of two for which the adapters have no more numbers than the classifier."""
    return int(2 ** max(0, math.floor(math.log2(num_classes / (2 * blocks)))))


def _own(path: Path) -> bool:
    return path[0] == "adapter"


NONE = "none"
ADAPTERS: dict[str, Kind] = {
    "adaptformer": Kind("layers", AdaptFormer, _own, lift_width),
    "lora": Kind("attention", LoRA, _own, lift_width),
    "vpt": Kind("tokens", Prompts, _own, lambda num_classes, blocks: PROMPTS),
    "bitfit": Kind("", None, lambda path: path[-1] == "bias", None),
    "layernorm": Kind("", None, lambda path: path[0] in ("norm1", "norm2"), None),
}
