"""ConvNeXt's weights by the names of timm, Meta and Hugging Face, to ours."""

import re
from collections.abc import Mapping

import numpy as np

from ncl_jax.models.convnext import STAGES
from ncl_jax.models.experts import Variables
from ncl_jax.weights.torch_names import nest, renamer, tensor

_LEFT_OUT = re.compile(r"(head|head\.fc|classifier)\.(weight|bias)")
_renamed = renamer(
    (r"^convnext\.", ""),
    (r"^embeddings\.patch_embeddings\.", "stem.0."),
    (r"^embeddings\.layernorm\.", "stem.1."),
    (r"^encoder\.stages\.", "stages."),
    (r"^downsample_layers\.0\.", "stem."),
    (r"^downsample_layers\.(\d)\.", r"stages.\1.downsample."),
    (r"\.downsampling_layer\.", ".downsample."),
    (r"^stages\.(\d)\.(layers\.)?(\d+)\.", r"stages.\1.blocks.\3."),
    (r"^(norm|layernorm)\.", "head.norm."),
    (r"\.dwconv\.", ".conv_dw."),
    (r"\.layernorm\.", ".norm."),
    (r"\.pwconv([12])\.", r".mlp.fc\1."),
    (r"\.layer_scale_parameter$", ".gamma"),
)
_OUTSIDE = {"stem.0": "stem_conv", "stem.1": "stem_norm", "head.norm": "layer4_last_norm"} | {
    f"stages.{stage}.downsample.{number}": f"layer{stage + 1}_{kind}"
    for stage in (1, 2, 3) for number, kind in enumerate(("norm", "conv"))
}  # fmt: skip
_INSIDE = {"conv_dw": "conv_dw", "norm": "norm", "mlp.fc1": "fc1", "mlp.fc2": "fc2"}


def knows(tensors: Mapping[str, np.ndarray]) -> bool:
    """Whether the names are those of such a network."""
    return any(re.match(r"stages\.\d\.blocks\.\d+\.conv_dw\.", _renamed(name)) for name in tensors)


def left_out(tensors: Mapping[str, np.ndarray]) -> list[str]:
    """The tensors that are not the backbone's."""
    return [name for name in tensors if _LEFT_OUT.fullmatch(name)]


def from_torch(tensors: Mapping[str, np.ndarray]) -> Variables:
    """Converts a state dictionary of a ConvNeXt, without its classifier.

    Returns:
      `{"params": {"backbone": ...}}` of one network, float32, kernels HWIO.

    Raises:
      ValueError: a tensor has a name or a number of dimensions that no such network has.
    """
    flat = {}
    for name, value in tensors.items():
        if not _LEFT_OUT.fullmatch(name):
            path, array = _convert(_renamed(name), np.asarray(value, np.float32))
            flat["params", "backbone", *path] = array
    return nest(flat)


def network(tensors: Mapping[str, np.ndarray]) -> tuple[str, int, int] | None:
    """The backbone, depth and width that a state dictionary is of, as far as its tensors show; None if unknown."""
    found = {_renamed(name): value for name, value in tensors.items()}
    stem = found.get("stem.0.weight")
    depth = len({name for name in found if re.fullmatch(r"stages\.\d\.blocks\.\d+\.gamma", name)})
    return ("convnext", depth, len(stem)) if stem is not None and stem.ndim and depth in STAGES else None


def _convert(name: str, value: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """One tensor under timm's name: its path and its array in our layout."""
    module, _, leaf = name.rpartition(".")
    path: tuple[str, ...] = ()
    if match := re.fullmatch(r"stages\.([0-3])\.blocks\.(\d{1,3})(\.(.+))?", module):
        block = f"layer{int(match[1]) + 1}_{int(match[2])}"
        if leaf == "gamma" and match[4] is None:
            return (block, "scale"), value
        path = (block, _INSIDE[match[4]]) if match[4] in _INSIDE else ()
    elif module in _OUTSIDE:
        path = (_OUTSIDE[module],)
    if not path or leaf not in ("weight", "bias"):
        raise ValueError(f"the tensor {name} is of no network that is known here")
    _, last, array = tensor(name, leaf, value)
    return (*path, last), array
