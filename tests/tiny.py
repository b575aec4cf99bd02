"""A tiny data set and a one-layer network that stands in for the ResNet, for tests of the training step."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_train import load_config

from ncl_jax import build, steps
from ncl_jax.data import pipeline
from ncl_jax.models import Network
from ncl_jax.models.heads import Linear, Projection
from ncl_jax.models.layers import BatchNorm, Conv

FACTS = pipeline.Facts("tiny", (8, 8, 3), ("a", "b", "c", "d"), (9, 6, 3, 2), "0")
RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.integers(0, 256, (20, 8, 8, 3)), jnp.uint8)
LABELS = jnp.asarray(np.repeat(range(4), FACTS.class_counts), jnp.int32)


class OneLayer(nn.Module):
    """One convolution, which compiles in a second."""

    @nn.compact
    def __call__(self, x, train):
        x = BatchNorm(name="bn1")(Conv(4, stride=2, name="conv1")(x), train)
        return jnp.mean(nn.relu(x), axis=(1, 2))


def network(config, num_classes):
    """Takes the place of `build.network`."""
    projection = Projection(config.contrast.dim) if config.contrast.weight else None
    return Network(OneLayer(), Linear(num_classes), projection)


@pytest.fixture(scope="module", autouse=True)
def one_layer():
    """Import it where every test of a module is to use the one-layer network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "network", network)
        yield


def tiny(arguments, **fields):
    """The quickstart's configuration, shrunk."""
    fields = {"model__num_experts": 2, "optim__batch_size": 4, "loss__num_hard": 2} | fields
    return load_config("quickstart", arguments, contrast__queue=6, contrast__dim=3, **fields)


def order(epoch=0):
    """The order of an epoch over the tiny data set."""
    return steps.epoch_order(build.keys(0).order, epoch, 20)


def same(left, right):
    """Whether two trees are equal to the bit."""
    return all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), left, right)))
