"""Text towers' weights by the names of OpenAI, open_clip and Hugging Face, to ours."""

import functools
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from ncl_jax.models.experts import Variables
from ncl_jax.models.text import FORMS, HEAD, HEADS, TextTower
from ncl_jax.weights.torch_names import check_same_structure, nest, renamer, tensor

Tensors = Mapping[str, np.ndarray]
MOST_BLOCKS = 100  # of the largest that are published 36
SCALE = 100.0  # of the cosines, where a file has none: CLIP's at the end of its training
_PREFIXES = {"text.token_embedding.weight": "text.", "text_model.embeddings.token_embedding.weight": "text_model."}
_BESIDE = re.compile(  # of the image tower, of training, and what is computed
    r"(visual|vision_model|visual_projection)\..*|logit_scale|logit_bias|input_resolution|context_length|vocab_size"
    r"|attn_mask|embeddings\.position_ids"
)
_renamed = renamer(
    (r"^embeddings\.", ""),
    (r"^token_embedding\.weight$", "token"),
    (r"^(positional_embedding|position_embedding\.weight)$", "position"),
    (r"^(transformer\.resblocks|encoder\.layers)\.(\d{1,4})\.", r"block_\2."),
    (r"^(ln_final|final_layer_norm)\.", "norm."),
    (r"^text_projection$", "projection.kernel"),
    (r"^(text_projection|head)\.", "projection."),
    (r"\.(ln_|layer_norm)([12])\.", r".norm\2."),
    (r"\.attn\.in_proj_", ".qkv."),
    (r"\.self_attn\.(q|k|v)_proj\.", r".\1."),
    (r"\.(attn|self_attn)\.out_proj\.", ".proj."),
    (r"\.mlp\.(c_fc|fc1)\.", ".fc1."),
    (r"\.mlp\.(c_proj|fc2)\.", ".fc2."),
)
_KNOWN = re.compile(
    r"token|position|projection\.kernel|((block_\d+\.(norm[12]|qkv|proj|fc[12]))|norm|projection)\.(weight|bias)"
)


class TextWeights(NamedTuple):
    """A text tower and what belongs to it."""

    kind: str  # of `models.text.FORMS`
    tower: TextTower
    variables: Variables  # {"params"}
    projection: np.ndarray | None  # float32 [D, d]: from image features to the space of texts; None: they are in it
    scale: float  # by which cosines are multiplied


def knows(tensors: Tensors) -> bool:
    """Whether there is a text tower among the tensors."""
    return any(name in tensors for name in ("token_embedding.weight", *_PREFIXES))


def from_torch(tensors: Tensors) -> TextWeights:
    """The text tower of a state dictionary, which may hold the image tower as well.

    Raises:
      ValueError: there is none, or a tensor is missing, of another shape, or of no such network.
    """
    if not knows(tensors):
        raise ValueError(f"it holds no text tower, but {len(tensors)} tensors ({', '.join(sorted(tensors)[:3])})")
    found = _ours(tensors)
    kind = "siglip" if "projection.bias" in found else "clip"
    tower = _tower(kind, found)
    variables = nest({path: array for name, value in found.items() for path, array in [_convert(name, value)]})
    check_same_structure(variables, _shapes(tower))
    return TextWeights(kind, tower, variables, _image_projection(tensors, kind, tower.features), _scale(tensors))


@functools.cache
def _shapes(tower: TextTower) -> Variables:
    """The shapes of the tower's variables."""
    return jax.eval_shape(lambda: tower.init(jax.random.key(0), np.zeros((1, tower.length), np.int32)))


def _ours(tensors: Tensors) -> dict[str, np.ndarray]:
    """The tower's tensors under names of ours, queries, keys and values together."""
    prefix = next((prefix for name, prefix in _PREFIXES.items() if name in tensors), "")
    found = {}
    for name, value in tensors.items():
        if name.startswith((prefix, "text_projection")):
            own = name.removeprefix(prefix)
            if not _BESIDE.fullmatch(own):
                found[_renamed(own)] = np.asarray(value)
    for module in sorted({name.rpartition(".q.")[0] for name in found if ".q." in name}):
        for kind in ("weight", "bias"):
            parts = [found.pop(f"{module}.{part}.{kind}", None) for part in "qkv"]
            if any(part is None or not part.ndim for part in parts):
                raise ValueError(f"the {kind} of {module} is not there for each of queries, keys and values")
            found[f"{module}.qkv.{kind}"] = np.concatenate([part for part in parts if part is not None])
    if strange := [name for name in found if not _KNOWN.fullmatch(name)]:
        raise ValueError(f"the tensor {strange[0]} is of no text tower that is known here")
    return found


def _tower(kind: str, found: Mapping[str, np.ndarray]) -> TextTower:
    """The network by the tensors' shapes. Raises ValueError where they tell of none."""
    wanted = ["token", "position", "block_0.fc1.weight"]
    wanted += ["projection.weight" if "projection.weight" in found else "projection.kernel"]
    if missing := [name for name in wanted if name not in found or found[name].ndim != 2 or not found[name].size]:
        raise ValueError(f"the text tower's {missing[0]} is missing, or is not a matrix")
    (vocabulary, width), length = found["token"].shape, len(found["position"])
    if width % HEADS.get(width, HEAD):
        raise ValueError(f"the text tower's width {width} is not a multiple of {HEAD}, an attention head")
    blocks = {int(match[1]) for name in found if (match := re.match(r"block_(\d+)\.", name))}
    depth = len(blocks)
    if max(blocks) >= depth or depth > MOST_BLOCKS:
        raise ValueError(f"the text tower's blocks are not 0 to {depth - 1}, or more than {MOST_BLOCKS}")
    projection = found[wanted[-1]]
    features = projection.shape[0 if wanted[-1].endswith("weight") else 1]
    hidden = len(found["block_0.fc1.weight"])
    return TextTower(FORMS[kind], depth, width, hidden, features, vocabulary, length)


def _convert(name: str, value: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """A tensor's path and its array in our layout."""
    module, _, leaf = name.rpartition(".")
    if leaf not in ("weight", "bias"):
        return ("params", *name.split(".")), value.astype(np.float32)
    _, last, array = tensor(name, leaf, value)
    return ("params", *module.split("."), last), array


def _image_projection(tensors: Tensors, kind: str, features: int) -> np.ndarray | None:
    """Raises ValueError where CLIP's is missing or of another shape."""
    if kind != "clip":
        return None
    found = tensors.get("visual.proj")
    if found is None and (transposed := tensors.get("visual_projection.weight")) is not None:
        found = transposed.T
    if found is None or found.ndim != 2 or found.shape[1] != features:
        shape = "nothing" if found is None else found.shape
        raise ValueError(f"visual.proj, the image tower's projection: expected [D, {features}], got {shape}")
    return np.ascontiguousarray(found, np.float32)


def _scale(tensors: Tensors) -> float:
    found: Any = tensors.get("logit_scale")
    if found is None:
        return SCALE
    value = float(np.asarray(found, np.float64).reshape(-1)[0]) if np.size(found) == 1 else math.inf
    if not abs(value) < 20:
        raise ValueError(f"logit_scale={found} is not the logarithm of a factor of cosines")
    return math.exp(value)
