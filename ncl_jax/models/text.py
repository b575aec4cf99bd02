"""The text towers of CLIP (Radford et al. 2021) and SigLIP (Zhai et al. 2023): token numbers to one vector."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ncl_jax.models.layers import layer_norm, truncated
from ncl_jax.models.vit import gelu


class TextForm(NamedTuple):
    """What tells text towers of one shape apart.

    Attributes:
      causal: whether a token sees only those before it; the text's vector is then that of its end, the largest token
        number, and the projection has no bias. Otherwise it is that of the last token, and the projection has one.
      activation: of `ACTIVATIONS`.
      epsilon: of layer normalisation.
    """

    causal: bool
    activation: str
    epsilon: float


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "quick": lambda x: gelu(x, quick=True),
    "tanh": lambda x: nn.gelu(x, approximate=True),
}
# SigLIP's authors and transformers compute GELU by tanh; open_clip's towers of the same weights by the error function.
FORMS = {"clip": TextForm(True, "quick", 1e-5), "siglip": TextForm(False, "tanh", 1e-6)}
HEAD, HEADS = 64, {1152: 72}  # numbers of an attention head; by width where it is another


class TextBlock(nn.Module):
    """Attention and two layers, both on normalised inputs and added: `[B, N, D]` to the same."""

    form: TextForm
    hidden: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        form, width = self.form, x.shape[-1]
        y = layer_norm(form.epsilon, jnp.float32, "norm1")(x)
        y = nn.Dense(3 * width, kernel_init=truncated, name="qkv")(y)
        y = y.reshape(*x.shape[:2], 3, -1, HEADS.get(width, HEAD))  # [B, N, 3, heads, D / heads]
        y = jax.nn.dot_product_attention(y[:, :, 0], y[:, :, 1], y[:, :, 2], is_causal=form.causal)
        x = x + nn.Dense(width, kernel_init=truncated, name="proj")(y.reshape(x.shape))
        y = layer_norm(form.epsilon, jnp.float32, "norm2")(x)
        y = ACTIVATIONS[form.activation](nn.Dense(self.hidden, kernel_init=truncated, name="fc1")(y))
        return x + nn.Dense(width, kernel_init=truncated, name="fc2")(y)


class TextTower(nn.Module):
    """Token numbers int32 `[B, N]` to text features `[B, features]`, not normalised, in float32.

    N is `length` or, where the form is causal, at least that of the longest text with its end: what follows the end
    changes nothing.
    """

    form: TextForm
    depth: int
    width: int
    hidden: int
    features: int
    vocabulary: int
    length: int

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        form, number = self.form, tokens.shape[1]
        embedding = self.param("token", truncated, (self.vocabulary, self.width))
        position = self.param("position", truncated, (self.length, self.width))
        x = jnp.take(embedding, tokens, 0) + position[:number]
        for block in range(self.depth):
            x = TextBlock(form, self.hidden, name=f"block_{block}")(x)
        x = layer_norm(form.epsilon, jnp.float32, "norm")(x)
        end = tokens.argmax(1) if form.causal else jnp.full(len(tokens), number - 1)
        x = jnp.take_along_axis(x, end[:, None, None], 1)[:, 0]
        return nn.Dense(self.features, use_bias=not form.causal, kernel_init=truncated, name="projection")(x)
