"""EfficientNet-Lite's weights by the names of its PyTorch originals and of timm, to ours."""

import re
from collections.abc import Mapping

import numpy as np

from ncl_jax.models.efficientnet import STAGES
from ncl_jax.models.experts import Variables
from ncl_jax.weights.torch_names import backbone_of, tensor

HEADS = ("_fc.", "classifier.")  # of ImageNet's classes
_OUTSIDE = {
    "_conv_stem": "stem_conv", "_bn0": "stem_bn", "_conv_head": "layer8_conv", "_bn1": "layer8_bn",
    "conv_stem": "stem_conv", "bn1": "stem_bn", "conv_head": "layer8_conv", "bn2": "layer8_bn",
}  # fmt: skip
_ORIGINAL = {
    "_expand_conv": "expand_conv", "_bn0": "expand_bn", "_depthwise_conv": "depthwise_conv", "_bn1": "depthwise_bn",
    "_project_conv": "project_conv", "_bn2": "project_bn",
}  # fmt: skip
_TIMM = {
    "conv_pw": "expand_conv", "bn1": "expand_bn", "conv_dw": "depthwise_conv", "bn2": "depthwise_bn",
    "conv_pwl": "project_conv", "bn3": "project_bn",
}  # fmt: skip
_TIMM_FIRST = {  # a block without an expansion
    "conv_dw": "depthwise_conv", "bn1": "depthwise_bn", "conv_pw": "project_conv", "bn2": "project_bn",
}  # fmt: skip
_BLOCKS = [f"layer{number}_{block}" for number, stage in enumerate(STAGES[0], 1) for block in range(stage.blocks)]


def from_torch(tensors: Mapping[str, np.ndarray]) -> Variables:
    """Converts a state dictionary of EfficientNet-Lite0, without its classifier (`HEADS`).

    Returns:
      `{"params": {"backbone": ...}, "batch_stats": {"backbone": ...}}` of one network, float32, kernels HWIO.

    Raises:
      ValueError: a tensor has a name or a number of dimensions that no such network has.
    """
    return backbone_of(tensors, HEADS, _convert)


def _convert(name: str, value: np.ndarray) -> tuple[str, tuple[str, ...], np.ndarray]:
    module, _, leaf = name.rpartition(".")
    collection, last, array = tensor(name, leaf, value)
    return collection, (*_path(module, name), last), array


def knows(tensors: Mapping[str, np.ndarray]) -> bool:
    """Whether the names are those of such a network."""
    return "_conv_stem.weight" in tensors or "conv_stem.weight" in tensors


def network(tensors: Mapping[str, np.ndarray]) -> tuple[str, int, int] | None:
    """The backbone, depth and width that a state dictionary is of; None if unknown."""
    stem = tensors.get("_conv_stem.weight", tensors.get("conv_stem.weight"))
    return ("efficientnet_lite", 0, len(stem)) if stem is not None and stem.ndim else None


def left_out(tensors: Mapping[str, np.ndarray]) -> list[str]:
    """The tensors that are not the backbone's."""
    return [name for name in tensors if name.startswith(HEADS)]


def _path(module: str, name: str) -> tuple[str, ...]:
    if module in _OUTSIDE:
        return (_OUTSIDE[module],)
    if found := re.fullmatch(r"_blocks\.(\d+)\.(\w+)", module):
        block, inner = int(found[1]), _ORIGINAL.get(found[2])
        if block < len(_BLOCKS) and inner:
            return _BLOCKS[block], inner
    if found := re.fullmatch(r"blocks\.(\d)\.(\d)\.(\w+)", module):
        block_name, inner = (
            f"layer{int(found[1]) + 1}_{found[2]}",
            (_TIMM_FIRST if found[1] == "0" else _TIMM).get(found[3]),
        )
        if block_name in _BLOCKS and inner:
            return block_name, inner
    raise ValueError(f"the tensor {name} is of no network that is known here")
