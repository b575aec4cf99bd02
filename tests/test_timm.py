"""Our transformers and ConvNeXts under timm's weights give its features (tools/make_timm_figures.py), whoever named the
weights; files that fit nothing say so."""

import re

import jax
import numpy as np
import pytest
import seeded
from programs import ROOT
from quick import quick_jit

from ncl_jax import models
from ncl_jax.models import layers, vit
from ncl_jax.models.named import NAMED
from ncl_jax.weights import names, torch_names, vit_names

NETWORKS = {
    "vit": (4, 128), "dinov2": (4, 128), "dinov2_reg4": (4, 128), "dinov3": (4, 128), "dinov3 with biases": (4, 128),
    "clip_patch16": (4, 128), "clip_patch14": (4, 128), "siglip": (4, 128), "siglip_so400m": (4, 144),
    "convnext": (18, 8),
}  # depth and width  # fmt: skip
TRANSFORMERS = [name for name in NETWORKS if name != "convnext"]


@pytest.fixture(scope="module")
def figures():
    with np.load(ROOT / "tests" / "golden" / "timm.npz") as file:
        return dict(file)


def state_dict(figures, name):
    """The seeded tensors by timm's names."""
    tensors = {}
    for line in figures[f"{name}/names"]:
        key, shape = re.fullmatch(r"(\S+) \((.*)\)", line).groups()
        tensors[key] = seeded.tensor(key, tuple(int(number) for number in shape.replace(",", " ").split()))
    return tensors


def network(name, **fields):
    depth, width = NETWORKS[name]
    return models.make_backbone(
        backbone=name.split()[0], depth=depth, width=width, precision=fields.pop("precision", "float32"), **fields
    )


def sides(figures, name):
    return sorted(int(side) for key in figures if (side := key.removeprefix(f"{name}/")).isdecimal())


def at_size(name, variables, side):
    """The variables for images of a size."""
    return vit_names.at_grid(variables, side // getattr(network(name), "form", vit.Form()).patch)


def features(name, variables, side, **fields):
    """Of the seeded images; the position embedding is brought to their size."""
    own = {kind: tree["backbone"] for kind, tree in at_size(name, variables, side).items()}
    found = network(name, operations=layers.GROUPED, **fields)  # quicker to compile
    return np.asarray(quick_jit(lambda v, x: found.apply(v, x, False))(own, seeded.images(side)))


@pytest.mark.parametrize("name", NETWORKS)
def test_features_are_timms(figures, name):
    tensors = state_dict(figures, name)
    assert names.family(tensors).network(tensors) == (name.split()[0], *NETWORKS[name])
    variables = names.from_torch(tensors)
    for side in sides(figures, name):
        theirs = figures[f"{name}/{side}"]
        assert np.abs(features(name, variables, side) - theirs).max() <= 1e-5 * np.abs(theirs).max(), side


def rename(tensors, rules):
    """By regular expressions, each in turn."""
    for pattern, replacement in rules:
        tensors = {re.sub(pattern, replacement, name): value for name, value in tensors.items()}
    return tensors


def split(tensors, module, parts, ending=""):
    """Queries, keys and values of `module` as tensors of their own, `parts` their names."""
    found = {}
    for name, value in tensors.items():
        match = re.fullmatch(rf"(.*){module}\.(weight|bias)", name)
        pieces = zip(parts, np.split(value, 3), strict=True) if match else ()
        found |= {f"{match[1]}{part}{ending}.{match[2]}": piece for part, piece in pieces} or {name: value}
    return found


def merged_pool(tensors):
    """SigLIP's queries with its keys and values."""
    kinds = {kind: np.concatenate([tensors[f"attn_pool.{part}.{kind}"] for part in ("q", "kv")]) for kind in
             ("weight", "bias")}  # fmt: skip
    rest = {name: value for name, value in tensors.items() if not re.match(r"attn_pool\.(q|kv)\.", name)}
    return rest | {f"head.attention.in_proj_{kind}": value for kind, value in kinds.items()}


def with_class_position(tensors):
    """A position of the class token, which timm adds to it."""
    position = seeded.tensor("position", (1, 1, 128))
    own = {"cls_token": tensors["cls_token"] - position}
    return tensors | own | {"pos_embed": np.concatenate([position, tensors["pos_embed"]], 1)}


TEXT = {
    name: np.ones((2, 2), np.float32)
    for name in ("text_projection", "token_embedding.weight", "transformer.resblocks.0.ln_1.weight", "ln_final.bias")
}
BLOCKS = (r"^blocks\.", "encoder.layer.")
EMBEDDINGS = [
    (r"^cls_token", "embeddings.cls_token"), (r"^pos_embed", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj", "embeddings.patch_embeddings.projection"), (r"^norm\.", "layernorm."),
]  # fmt: skip
CLIP = [(r"^blocks\.", "encoder.layers."), (r"norm([12])", r"layer_norm\1"), (r"attn\.proj", "self_attn.out_proj"),
        (r"^norm\.", "post_layernorm."), (r"^norm_pre", "pre_layrnorm"), (r"^cls_token", "embeddings.class_embedding"),
        (r"^pos_embed", "embeddings.position_embedding.weight"), (r"^(?=patch_embed)", "embeddings."),
        (r"patch_embed\.proj", "patch_embedding"), (r"^", "vision_model.")]  # fmt: skip


def openai(tensors):
    flat = {name: value[0, 0] if name == "cls_token" else value[0] if name == "pos_embed" else value
            for name, value in tensors.items()}  # fmt: skip
    rules = [(r"^blocks\.", "transformer.resblocks."), (r"norm([12])", r"ln_\1"), (r"attn\.qkv\.", "attn.in_proj_"),
             (r"attn\.proj", "attn.out_proj"), (r"fc1", "c_fc"), (r"fc2", "c_proj"), (r"^norm\.", "ln_post."),
             (r"^norm_pre", "ln_pre"), (r"^cls_token", "class_embedding"), (r"^pos_embed", "positional_embedding"),
             (r"^patch_embed\.proj", "conv1"), (r"^", "visual.")]  # fmt: skip
    return rename(flat, rules) | {"visual.proj": np.ones((128, 2), np.float32)} | TEXT


def hugging_face_clip(tensors):
    return rename(split(tensors, r"attn\.qkv", ["self_attn.q", "self_attn.k", "self_attn.v"], "_proj"), CLIP) | {
        "text_model.encoder.layers.0.layer_norm1.weight": np.ones(3), "visual_projection.weight": np.ones((3, 3)),
        "vision_model.embeddings.position_ids": np.arange(3),
    }  # fmt: skip


def hugging_face_siglip(tensors):
    head = [(r"^attn_pool\.latent", "head.probe"), (r"^attn_pool\.proj", "head.attention.out_proj"),
            (r"^attn_pool\.norm", "head.layernorm"), (r"^attn_pool\.mlp", "head.mlp")]  # fmt: skip
    parts = split(merged_pool(tensors), r"attn\.qkv", ["self_attn.q", "self_attn.k", "self_attn.v"], "_proj")
    flat = parts | {"pos_embed": tensors["pos_embed"][0]}
    return rename(flat, [*head, *CLIP])


def hugging_face_vit(tensors):
    names = [f"attention.attention.{part}" for part in ("query", "key", "value")]
    rules = [(r"norm1", "layernorm_before"), (r"norm2", "layernorm_after"), (r"attn\.proj", "attention.output.dense"),
             (r"mlp\.fc1", "intermediate.dense"), (r"mlp\.fc2", "output.dense"), BLOCKS, *EMBEDDINGS,
             (r"^", "vit.")]  # fmt: skip
    return rename(split(tensors, r"attn\.qkv", names), rules) | {"classifier.weight": np.ones((2, 128), np.float32)}


def hugging_face_dinov2(tensors):
    names = [f"attention.attention.{part}" for part in ("query", "key", "value")]
    rules = [(r"ls([12])\.gamma", r"layer_scale\1.lambda1"), (r"attn\.proj", "attention.output.dense"), BLOCKS,
             (r"^reg_token", "embeddings.register_tokens"), *EMBEDDINGS]  # fmt: skip
    found = rename(split(with_class_position(tensors), r"attn\.qkv", names), rules)
    return found | {"embeddings.mask_token": np.ones((1, 128), np.float32)}


def meta_dinov2(tensors):
    return rename(with_class_position(tensors), [(r"^reg_token", "register_tokens")]) | {
        "mask_token": np.ones((1, 128))
    }


def biases(tensors):
    """DINOv3's biases of queries, keys and values in one."""
    found = {name: value for name, value in tensors.items() if not re.search(r"[qkv]_bias$", name)}
    for name in [name for name in tensors if name.endswith("q_bias")]:
        module = name.removesuffix("q_bias")
        ignored = np.full(128, 7, np.float32)
        found[f"{module}qkv.bias"] = np.concatenate([tensors[name], ignored, tensors[f"{module}v_bias"]])
    return found


def hugging_face_dinov3(tensors):
    names = [f"attention.{part}_proj" for part in "qkv"]
    rules = [(r"gamma_([12])", r"layer_scale\1.lambda1"), (r"attn\.proj", "attention.o_proj"), (r"fc1", "up_proj"),
             (r"fc2", "down_proj"), (r"^blocks\.", "layer."), (r"^(cls_token|patch_embed)", r"embeddings.\1"),
             (r"patch_embed\.proj", "patch_embeddings"), (r"^reg_token", "embeddings.register_tokens")]  # fmt: skip
    found = split(biases(tensors), r"attn\.qkv", names)
    return rename({name: value for name, value in found.items() if "k_proj.bias" not in name}, rules)


def meta_dinov3(tensors):
    rules = [(r"gamma_([12])", r"ls\1.gamma"), (r"^reg_token", "storage_tokens")]
    masks = {f"blocks.{number}.attn.qkv.bias_mask": np.ones(384) for number in range(4)}
    return rename(biases(tensors), rules) | masks | {"rope_embed.periods": np.ones(16), "mask_token": np.ones((1, 128))}


def hugging_face_convnext(tensors):
    rules = [(r"^stem\.0", "embeddings.patch_embeddings"), (r"^stem\.1", "embeddings.layernorm"),
             (r"\.gamma", ".layer_scale_parameter"), (r"conv_dw", "dwconv"), (r"(blocks\.\d+)\.norm", r"\1.layernorm"),
             (r"mlp\.fc", "pwconv"), (r"blocks", "layers"), (r"downsample", "downsampling_layer"),
             (r"^stages", "encoder.stages"), (r"^head\.norm", "layernorm"), (r"^", "convnext.")]  # fmt: skip
    return rename(tensors, rules) | {"classifier.bias": np.ones(3, np.float32)}


def meta_convnext(tensors):
    rules = [(r"^stem\.", "downsample_layers.0."), (r"^stages\.(\d)\.downsample", r"downsample_layers.\1"),
             (r"blocks\.", ""), (r"conv_dw", "dwconv"), (r"mlp\.fc", "pwconv"), (r"^head\.norm", "norm")]  # fmt: skip
    return rename(tensors, rules) | {"head.weight": np.ones((3, 64), np.float32)}


WRITERS = {
    "openai": ("clip_patch16", openai), "hugging_face_clip": ("clip_patch14", hugging_face_clip),
    "hugging_face_siglip": ("siglip", hugging_face_siglip), "hugging_face_vit": ("vit", hugging_face_vit),
    "hugging_face_dinov2": ("dinov2_reg4", hugging_face_dinov2), "meta_dinov2": ("dinov2_reg4", meta_dinov2),
    "hugging_face_dinov3": ("dinov3 with biases", hugging_face_dinov3),
    "meta_dinov3": ("dinov3 with biases", meta_dinov3), "meta_convnext": ("convnext", meta_convnext),
    "hugging_face_convnext": ("convnext", hugging_face_convnext),
    "open_clip": ("siglip", lambda tensors: rename(tensors, [(r"^", "visual.trunk.")]) | TEXT),
}  # fmt: skip


@pytest.mark.parametrize("writer", WRITERS)
def test_every_writers_names_give_the_same_variables(figures, writer):
    name, renamed = WRITERS[writer]
    tensors = state_dict(figures, name)
    others = renamed(tensors)
    assert others.keys() != tensors.keys()
    found, expected = names.from_torch(others), names.from_torch(tensors)
    torch_names.check_same_structure(found, expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, expected)
    assert names.describe(others) == names.describe(tensors)
    shown = names.left_out(others)
    assert (shown == "nothing") == (writer == "hugging_face_siglip" or writer == "hugging_face_dinov3")


@pytest.mark.parametrize("side", [3, 7])
def test_positions_are_scaled_as_timms(figures, side):
    position = seeded.tensor("pos_embed", (1, 26, 3))
    variables = {"params": {"backbone": {"position": position[0, 1:]}}}
    found = vit_names.at_grid(variables, side)["params"]["backbone"]["position"]
    np.testing.assert_allclose(found, figures[f"position/{side}"][0, 1:], atol=1e-5)


def test_positions_of_no_square_are_refused():
    for shape in ((5, 3), (0, 3)):
        with pytest.raises(ValueError, match=f"{shape[0]} positions, which is not a square"):
            vit_names.at_grid({"params": {"backbone": {"position": np.zeros(shape)}}}, 8)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_tensor_counts(figures, name):
    """One that is missing, misshapen or too many is told from the network's own variables."""
    tensors = state_dict(figures, name)
    side = sides(figures, name)[-1]
    found = network(name)
    shapes = jax.eval_shape(lambda: found.init(jax.random.key(0), np.zeros((1, side, side, 3), np.float32), False))
    expected = {kind: {"backbone": tree} for kind, tree in shapes.items()}

    def check(changed):
        torch_names.check_same_structure(at_size(name, names.from_torch(changed), side), expected)

    check(tensors)
    for key in list(tensors)[:: 7 if name == "vit" else 40]:
        for changed in ({**tensors, key: tensors[key][None]}, {**tensors, key: tensors[key][..., :1]},
                        {other: value for other, value in tensors.items() if other != key},
                        {**tensors, f"{key}.more": tensors[key]}, {**tensors, key: np.float32(1)}):  # fmt: skip
            try:
                check(changed)
            except ValueError:
                continue
            left, whole = (at_size(name, names.from_torch(found), side) for found in (changed, tensors))
            assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), left, whole)), (key, changed[key].shape)
            assert changed.keys() == tensors.keys(), key


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("shape", [(), (0,), (2,), (0, 3), (1, 0, 2, 2), (3, 1, 1, 1, 1)])
def test_tensors_of_any_shape_are_refused_in_words(figures, writer, shape):
    name, renamed = WRITERS[writer]
    first = {key: value for key, value in state_dict(figures, name).items() if not re.search(r"\.[1-9]\d*\.", key)}
    tensors = renamed(first)
    expected = names.from_torch(tensors)
    for key in tensors:
        changed = tensors | {key: np.zeros(shape, np.float32)}
        assert names.describe(changed)
        try:
            torch_names.check_same_structure(vit_names.at_grid(names.from_torch(changed), 4), expected)
        except ValueError:
            continue
        assert key in names.family(changed).left_out(changed) or key.endswith("mask"), key


def test_the_table_names_networks_that_there_are():
    for name, row in NAMED.items():
        for field, value in (("depth", row.depth), ("width", row.width), ("image_size", row.image_size)):
            models.check(row.backbone, field, value)
        assert row.resize >= row.image_size and row.license, name
    assert {row.backbone for row in NAMED.values()} == models.BACKBONES.keys() - {
        "cifar_resnet",
        "one_layer",
        "tiny_vit",
    }
    assert [name for name, row in NAMED.items() if row.license == "DINOv3 License"] == ["dinov3_small", "dinov3_base"]


@pytest.mark.parametrize(
    ("backbone", "name", "value"),
    [("vit", "depth", 0), ("vit", "width", 100), ("siglip_so400m", "width", 128), ("dinov2", "image_size", 256),
     ("vit", "image_size", 0), ("convnext", "depth", 12), ("convnext", "image_size", 31), ("resnext", "width", 24)],
)  # fmt: skip
def test_a_network_that_there_is_not(backbone, name, value):
    with pytest.raises(ValueError, match=rf"^{name}={value} must be"):
        models.check(backbone, name, value)


def test_bfloat16_sums_in_float32(figures):
    tensors = state_dict(figures, "dinov3")
    variables = names.from_torch(tensors)
    found = features("dinov3", variables, 64, precision="bfloat16")
    theirs = figures["dinov3/64"]
    assert found.dtype == np.float32 and 1e-5 < np.abs(found - theirs).max() / np.abs(theirs).max() < 0.02
    text = str(jax.make_jaxpr(lambda x: network("dinov3", precision="bfloat16").apply(
        {"params": variables["params"]["backbone"]}, x, False))(seeded.images(64)))  # fmt: skip
    assert not re.search(r"bf16\[[\d,]*\] = (reduce_sum|exp|rsqrt)", text)


def test_frozen_parts_have_no_gradient_and_remat_changes_nothing(figures):
    variables = at_size("vit", names.from_torch(state_dict(figures, "vit")), 32)["params"]["backbone"]

    def gradient(**fields):
        found = network("vit", **fields)
        square = lambda params: (found.apply({"params": params}, seeded.images(32)[:1], True) ** 2).sum()  # noqa: E731
        return quick_jit(jax.grad(square))(variables)

    whole, part = gradient(remat=True), gradient(freeze=3)
    for module, tree in part.items():
        frozen = layers.part_of(module) < 3
        assert all(not leaf.any() if frozen else leaf.any() for leaf in jax.tree.leaves(tree)), module
        if not frozen:
            scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(tree))
            jax.tree.map(lambda a, b, s=scale: np.testing.assert_allclose(a, b, atol=1e-4 * s), tree, whole[module])
