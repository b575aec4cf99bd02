"""A tiny data set and configuration, on the one-layer backbone, for tests of the training step."""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import one_layer
from programs import ROOT

from ncl_jax.config import plan as plans
from ncl_jax.data import dataset, sources
from ncl_jax.data.feeds.feed import Batch
from ncl_jax.data.feeds.resident import epoch_order
from ncl_jax.data.types import Request

FACTS = dataset.Facts("tiny", (8, 8, 3), ("a", "b", "c", "d"), (9, 6, 3, 2), "0")
RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.integers(0, 256, (20, 8, 8, 3)), jnp.uint8)
LABELS = jnp.asarray(np.repeat(range(4), FACTS.class_counts), jnp.int32)


assert one_layer.OneLayer  # imported for the backbone that it adds


def load_source(name, directory, download=True):
    """A data set by name."""
    return sources.load(Request(name, pathlib.Path(directory), download))


def load_config(name, arguments=None, **fields):
    """A configuration file's result, with fields like `optim__batch_size=32`."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(arguments)
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config


def tiny(arguments, **fields):
    """The quickstart's configuration, shrunk to the one-layer backbone."""
    fields = {"model__num_experts": 2, "optim__batch_size": 4, "loss__num_hard": 2} | fields
    fields = {"model__backbone": "one_layer", "contrast__queue": 6, "contrast__dim": 3} | fields
    fields = {"data__augment": "none", "contrast__augment": "none"} | fields  # most of a step's compilation
    return load_config("quickstart", arguments, **fields)


def order(epoch=0):
    """The order of an epoch over the tiny data set."""
    return epoch_order(plans.keys(0).order, epoch, 20)


def batch(step=0, size=4):
    """The batch of a step."""
    rows = order(step * size // 20)[step * size % 20 :][:size]
    return Batch(IMAGES[rows][:, None], LABELS[rows])


def same(left, right):
    """Whether two trees are equal to the bit."""
    return all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), left, right)))
