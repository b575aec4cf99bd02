"""State dictionaries of one network, by the architecture that they are of."""

from collections.abc import Mapping

import numpy as np

from ncl_jax.models.experts import Variables
from ncl_jax.weights import efficientnet_names, torch_names

HEADS = torch_names.HEADS + efficientnet_names.HEADS  # of ImageNet's classes


def from_torch(tensors: Mapping[str, np.ndarray]) -> Variables:
    """`{"params": {"backbone": ...}, "batch_stats": {"backbone": ...}}` of one network, without its classifier.

    Raises:
      ValueError: a tensor has a name or a number of dimensions that no network here has.
    """
    if efficientnet_names.knows(tensors):
        return efficientnet_names.from_torch(tensors)
    return torch_names.from_torchvision(tensors)


def describe(tensors: Mapping[str, np.ndarray]) -> str:
    """What network a state dictionary is of, in our fields; for messages."""
    return efficientnet_names.describe(tensors) if efficientnet_names.knows(tensors) else torch_names.describe(tensors)
