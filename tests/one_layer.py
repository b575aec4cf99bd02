"""A backbone of one convolution, "one_layer", which is traced and compiled in a fraction of a ResNet's time.

As a program it is `ncl-jax train` with that backbone and blank pictures:
`python tests/one_layer.py --config=... --config.FIELD=VALUE`.
"""

import sys

import flax.linen as nn
import jax.numpy as jnp

from ncl_jax import cli, models
from ncl_jax.models.layers import BatchNorm, Conv, Dtype


class OneLayer(nn.Module):
    """One convolution of four channels."""

    depth: int
    width: int
    dtype: Dtype
    operations: object

    @staticmethod
    def check_depth(depth):
        """Any will do."""

    @nn.compact
    def __call__(self, x, train):
        x = BatchNorm(name="bn1")(Conv(4, stride=2, name="conv1")(x), train)
        return jnp.mean(nn.relu(x), axis=(1, 2))


models.BACKBONES["one_layer"] = OneLayer

if __name__ == "__main__":
    import blank  # beside this file, where a program finds it

    blank.leave_blank()
    cli.run("train", sys.argv[1:])
