"""State dictionaries of one network, by the family of networks that they are of."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from ncl_jax.models.experts import Variables
from ncl_jax.models.named import NAMED
from ncl_jax.weights import convnext_names, efficientnet_names, torch_names, vit_names

Tensors = Mapping[str, np.ndarray]


class Family(NamedTuple):
    """Networks whose weights have the same names."""

    knows: Callable[[Tensors], bool]  # whether a state dictionary is of one of them
    from_torch: Callable[[Tensors], Variables]  # see `from_torch`
    network: Callable[[Tensors], tuple[str, int, int] | None]  # its backbone, depth and width; None: of none here
    left_out: Callable[[Tensors], list[str]]  # names that are not the backbone's


FAMILIES = tuple(
    Family(file.knows, file.from_torch, file.network, file.left_out)
    for file in (efficientnet_names, vit_names, convnext_names)
)
RESNETS = Family(lambda _: True, torch_names.from_torchvision, torch_names.network, torch_names.left_out)


def family(tensors: Tensors) -> Family:
    """Which networks a state dictionary's names are those of."""
    return next((found for found in FAMILIES if found.knows(tensors)), RESNETS)


def from_torch(tensors: Tensors) -> Variables:
    """`{"params": {"backbone": ...}, ...}` of one network, without its classifier.

    Raises:
      ValueError: a tensor has a name or a number of dimensions that no network here has.
    """
    return family(tensors).from_torch(tensors)


def left_out(tensors: Tensors) -> str:
    """What is not read of a state dictionary, in words."""
    names = sorted(family(tensors).left_out(tensors))
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") or "nothing"


def describe(tensors: Tensors) -> str:
    """What network a state dictionary is of, in our fields and by its name in the table; for messages."""
    found = family(tensors).network(tensors)
    if found is None:
        return f"of {len(tensors)} tensors ({', '.join(sorted(tensors)[:3])})"
    backbone, depth, width = found
    named = next((name for name, row in NAMED.items() if (row.backbone, row.depth, row.width) == found), "")
    fields = f"of model.backbone={backbone} model.depth={depth} model.width={width}"
    return f"{fields} (backbone={named})" if named else fields
