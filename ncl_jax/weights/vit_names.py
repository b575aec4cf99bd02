"""Vision transformers' weights by the names of timm, OpenAI and open_clip, Meta and Hugging Face, to ours.

Every writer's names become timm's first; positions are brought to an image size once they are ours (`at_grid`).
"""

import math
import re
from collections.abc import Mapping

import numpy as np
from PIL import Image

from ncl_jax.models.experts import Variables
from ncl_jax.models.vit import STAGES
from ncl_jax.weights.torch_names import nest, renamer, tensor

Tensors = dict[str, np.ndarray]
_TOWERS = ("visual.trunk.", "visual.", "vision_model.")  # a file with one of them has a text tower beside it
_WRAPPERS = re.compile(r"(vit|dinov2|dinov2_with_registers|dinov3_vit)\.(?=embeddings|encoder|layer|norm)")
_LEFT_OUT = re.compile(  # classifiers, projections, what training alone needs, and what is computed
    r"(head|head_dist|classifier|pooler\.dense|visual_projection)\.(weight|bias)|proj|mask_token|embeddings\.mask_token"
    r"|embeddings\.position_ids|rope_embed\.periods|rope_embeddings\..*|rope\..*|.*\.bias_mask|.*\.k_bias"
)
_renamed = renamer(
    (r"^embeddings\.", ""),
    (r"^(conv1|patch_embeddings\.projection|patch_embeddings|patch_embedding)\.", "patch_embed.proj."),
    (r"^class_embedding$", "cls_token"),
    (r"^(register_tokens|storage_tokens)$", "reg_token"),
    (r"^(positional_embedding|position_embeddings|position_embedding\.weight)$", "pos_embed"),
    (r"^(ln_pre|pre_layrnorm)\.", "norm_pre."),
    (r"^(ln_post|post_layernorm|layernorm)\.", "norm."),
    (r"^(transformer\.resblocks|encoder\.layers?|layer)\.", "blocks."),
    (r"^head\.probe$", "attn_pool.latent"),
    (r"^head\.attention\.in_proj_", "attn_pool.qkv."),
    (r"^head\.attention\.out_proj\.", "attn_pool.proj."),
    (r"^head\.layernorm\.", "attn_pool.norm."),
    (r"^head\.mlp\.", "attn_pool.mlp."),
    (r"\.(ln_|layer_norm)([12])\.", r".norm\2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.in_proj_", ".qkv."),
    (r"\.(attention\.attention|self_attn|attention)\.(q|k|v)(_proj|uery|ey|alue)\.", r".attn.\2."),
    (r"\.(attention\.output\.dense|attention\.o_proj|self_attn\.out_proj|attn\.out_proj)\.", ".attn.proj."),
    (r"\.(intermediate\.dense|mlp\.c_fc|mlp\.up_proj)\.", ".mlp.fc1."),
    (r"\.(output\.dense|mlp\.c_proj|mlp\.down_proj)\.", ".mlp.fc2."),
    (r"\.(layer_scale|gamma_)([12])(\.lambda1)?$", r".ls\2.gamma"),
    (r"\.attn\.(q|v)_bias$", r".attn.\1.bias"),
)
_OUTSIDE = {
    "patch_embed.proj": "patch", "norm_pre": "first_norm", "norm": f"layer{STAGES}_norm",
    **{f"attn_pool.{name}": f"layer{STAGES}_pool.{name}" for name in ("q", "kv", "proj", "norm")},
    **{f"attn_pool.mlp.{name}": f"layer{STAGES}_pool.{name}" for name in ("fc1", "fc2")},
}  # fmt: skip
_INSIDE = {
    "norm1": "norm1", "attn.qkv": "qkv", "attn.proj": "proj", "norm2": "norm2", "mlp.fc1": "fc1", "mlp.fc2": "fc2",
}  # fmt: skip


def knows(tensors: Mapping[str, np.ndarray]) -> bool:
    """Whether the names are those of a vision transformer."""
    return any(re.match(r"blocks\.\d+\.(norm1|attn)\.", name) for name in map(_renamed, _tower(tensors)))


def left_out(tensors: Mapping[str, np.ndarray]) -> list[str]:
    """The tensors that are not the backbone's: of a text tower, of classifiers and of the training."""
    prefix = _prefix(tensors)
    return [name for name in tensors if not name.startswith(prefix) or _LEFT_OUT.fullmatch(name.removeprefix(prefix))]


def from_torch(tensors: Mapping[str, np.ndarray]) -> Variables:
    """Converts a state dictionary of a vision transformer, or of its image tower beside one of text.

    Returns:
      `{"params": {"backbone": ...}}`, float32, with the position embedding of the file's grid (see `at_grid`).

    Raises:
      ValueError: a tensor has a name or a number of dimensions that no such network has.
    """
    found = _timm(tensors)
    depth, flat = _depth(found), {}
    for name, value in {**_absent(found), **found}.items():
        path, array = _convert(name, value, depth)
        flat["params", "backbone", *path] = array
    return nest(flat)


def network(tensors: Mapping[str, np.ndarray]) -> tuple[str, int, int] | None:
    """The backbone, depth and width that a state dictionary is of, as far as its tensors show; None if unknown."""
    try:
        found = _timm(tensors)
    except ValueError:
        return None
    patch = found.get("patch_embed.proj.weight")
    if patch is None or patch.ndim != 4:
        return None
    large = patch.shape[-1] == 14
    if "attn_pool.latent" in found:
        kind = "siglip_so400m" if large else "siglip"
    elif "norm_pre.weight" in found:
        kind = "clip_patch14" if large else "clip_patch16"
    elif "pos_embed" not in found:
        kind = "dinov3"
    elif "blocks.0.ls1.gamma" in found:
        kind = "dinov2_reg4" if "reg_token" in found else "dinov2"
    else:
        kind = "vit"
    return kind, _depth(found), patch.shape[0]


def at_grid(variables: Variables, side: int) -> Variables:
    """One network's variables with the position embedding for a grid of `side` times `side` patches: scaled by bicubic
    interpolation with antialiasing (Pillow's), as timm and DINOv2 do. Others as they are.

    Raises:
      ValueError: the embedding is of no square grid.
    """
    backbone = variables.get("params", {}).get("backbone", {})
    position = backbone.get("position")
    if not isinstance(position, np.ndarray) or position.ndim != 2:
        return variables
    old = math.isqrt(len(position))
    if old**2 != len(position) or not position.size:
        raise ValueError(f"the position embedding has {len(position)} positions, which is not a square number")
    if old == side:
        return variables
    grid = np.moveaxis(position.astype(np.float32).reshape(old, old, -1), -1, 0)
    scaled = [np.asarray(Image.fromarray(part).resize((side, side), Image.Resampling.BICUBIC)) for part in grid]
    backbone = backbone | {"position": np.stack(scaled, -1).reshape(side * side, -1)}
    return variables | {"params": variables["params"] | {"backbone": backbone}}


def _prefix(tensors: Mapping[str, np.ndarray]) -> str:
    """What stands before the image tower's names; empty where there is nothing else."""
    return next((prefix for prefix in _TOWERS if any(name.startswith(prefix) for name in tensors)), "")


def _tower(tensors: Mapping[str, np.ndarray]) -> Tensors:
    """The image tower's tensors alone, without what stands before their names."""
    prefix = _prefix(tensors)
    own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    return {_WRAPPERS.sub("", name, count=1): value for name, value in own.items()}


def _timm(tensors: Mapping[str, np.ndarray]) -> Tensors:
    """The tensors under timm's names, queries, keys and values together; the class token with its position."""
    masked = any(name.endswith(".bias_mask") for name in tensors)
    own = {name: value for name, value in _tower(tensors).items() if not _LEFT_OUT.fullmatch(name)}
    found = {_renamed(name): np.array(value, np.float32) for name, value in own.items()}
    for module in {name.rpartition(".q.")[0] for name in found if ".attn.q." in name}:
        _join(found, module)
    for name in [name for name in found if masked and name.endswith(".attn.qkv.bias")]:
        third = found[name].size // 3
        found[name].reshape(-1)[third : 2 * third] = 0  # of the keys: kept in the file, and not used
    for kind in ("weight", "bias"):
        if (joined := found.pop(f"attn_pool.qkv.{kind}", None)) is not None:
            third = len(joined := np.atleast_1d(joined)) // 3
            found[f"attn_pool.q.{kind}"], found[f"attn_pool.kv.{kind}"] = joined[:third], joined[third:]
    _place_class_token(found)
    return found


def _join(found: Tensors, module: str) -> None:
    """Puts queries, keys and values together; the keys may have no bias, which changes nothing."""
    for kind in ("weight", "bias"):
        parts = {part: found.pop(f"{module}.{part}.{kind}") for part in "qkv" if f"{module}.{part}.{kind}" in found}
        if kind == "bias" and "q" in parts:
            parts.setdefault("k", np.zeros_like(parts["q"]))
        if parts.keys() not in ({"q", "k", "v"}, set()):
            raise ValueError(f"the {kind} of {module} is not there for each of queries, keys and values")
        if parts:
            found[f"{module}.qkv.{kind}"] = np.concatenate([parts[part] for part in "qkv"])


def _place_class_token(found: Tensors) -> None:
    """Adds the class token's own position to it, where the file has one, so that the grid's positions remain."""
    token, position = found.get("cls_token"), found.get("pos_embed")
    if position is None or not position.ndim:
        return
    position = position.reshape(-1, position.shape[-1])
    has_own = math.isqrt(len(position)) ** 2 != len(position)
    if has_own and token is not None and token.shape[-1:] == position.shape[-1:]:
        found["cls_token"], position = token.reshape(-1, token.shape[-1]) + position[:1], position[1:]
    found["pos_embed"] = position


def _absent(found: Tensors) -> Tensors:
    """The biases that some networks are trained without, as zeros: of CLIP's patches, of DINOv3's attention."""
    without = ["patch_embed.proj"] if "norm_pre.weight" in found else []
    if "pos_embed" not in found:
        without += [name.removesuffix(".weight") for name in found if name.endswith(".attn.qkv.weight")]
    weights = {f"{module}.bias": found.get(f"{module}.weight") for module in without}
    return {name: np.zeros(len(w), np.float32) for name, w in weights.items() if w is not None and w.ndim and w.size}


def _depth(found: Tensors) -> int:
    numbers = [int(match[1]) for name in found if (match := re.match(r"blocks\.(\d{1,4})\.", name))]
    return max(numbers, default=-1) + 1


def _convert(name: str, value: np.ndarray, depth: int) -> tuple[tuple[str, ...], np.ndarray]:
    """One tensor under timm's name: its path and its array in our layout."""
    tokens = {"cls_token": "class_token", "reg_token": "registers", "pos_embed": "position",
              "attn_pool.latent": f"layer{STAGES}_pool.latent"}  # fmt: skip
    if name in tokens and value.ndim:
        return tuple(tokens[name].split(".")), value.reshape(-1, value.shape[-1])
    module, _, leaf = name.rpartition(".")
    if match := re.fullmatch(r"blocks\.(\d{1,4})\.(.+)", module):
        block = f"layer{1 + int(match[1]) * STAGES // depth}_{int(match[1])}"
        if leaf == "gamma" and match[2] in ("ls1", "ls2"):
            return (block, f"scale{match[2][-1]}"), value
        module = f"{block}.{_INSIDE[match[2]]}" if match[2] in _INSIDE else ""
    else:
        module = _OUTSIDE.get(module, "")
    if not module or leaf not in ("weight", "bias"):
        raise ValueError(f"the tensor {name} is of no network that is known here")
    _, last, array = tensor(name, leaf, value)
    return (*module.split("."), last), array
