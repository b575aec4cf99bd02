"""What sits on the features: adapters, linear and cosine classifiers, and the projection head of momentum contrast."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ncl_jax.losses import l2_normalize


def uniform_fan_in(fan_in: int) -> nn.initializers.Initializer:
    """PyTorch's default for weights and biases of a linear layer: uniform in +-1/sqrt(fan_in)."""

    def init(key, shape, dtype=jnp.float32):
        bound = fan_in**-0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def _matmul(x, kernel):
    # Accelerators round a float32 product's factors to fewer bits unless told otherwise; heads are cheap.
    return jnp.matmul(x, kernel, precision="highest")


class Linear(nn.Module):
    """`x [B, D]` gives `x @ kernel [D, features] + bias [features]` in float32, initialised as PyTorch does."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = uniform_fan_in(x.shape[-1])
        kernel = self.param("kernel", init, (x.shape[-1], self.features))
        return _matmul(x.astype(jnp.float32), kernel) + self.param("bias", init, (self.features,))


class CosineClassifier(nn.Module):
    """`scale * cos(x, weights) + bias`: `x [B, D]` gives `[B, num_classes]`; both sides L2-normalised in float32.

    Without a bias it is the normalised classifier of LDAM and DBM-NCL.
    """

    num_classes: int
    scale: float = 16.0
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = uniform_fan_in(x.shape[-1])
        kernel = self.param("kernel", init, (x.shape[-1], self.num_classes))
        # The weights of a class are a column: normalise each over the features.
        scores = self.scale * _matmul(l2_normalize(x.astype(jnp.float32)), l2_normalize(kernel.T).T)
        return scores + self.param("bias", init, (self.num_classes,)) if self.use_bias else scores


class FeatureInput(nn.Module):
    """An expert's part before its classifier where a frozen backbone's features `[B, D]` come in: standardised by the
    training set's means and deviations if asked, then a residual adapter `x + s * relu(LN(x) V) U` of `adapter` hidden
    units (0: none), which begins as the identity because U is 0."""

    adapter: int = 0
    standardize: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x, shape = x.astype(jnp.float32), (x.shape[-1],)
        if self.standardize:
            mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
            deviation = self.variable("batch_stats", "deviation", jnp.ones, shape)
            x = (x - mean.value) / deviation.value
        if self.adapter:
            normed = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name="norm")(x)
            down = self.param("down", uniform_fan_in(shape[0]), (*shape, self.adapter))
            up = self.param("up", nn.initializers.zeros, (self.adapter, *shape))
            scale = self.param("scale", nn.initializers.ones, ())
            x = x + scale * _matmul(nn.relu(_matmul(normed, down)), up)
        return x


class Projection(nn.Module):
    """Two-layer MLP of momentum contrast, D -> D -> dim with ReLU and biases (NCL's self-supervision), in float32."""

    dim: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        hidden = nn.relu(Linear(x.shape[-1], name="hidden")(x))
        return Linear(self.dim, name="out")(hidden)
