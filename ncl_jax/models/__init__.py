"""Networks of one expert: a backbone, a classifier on its features and, for momentum contrast, a projection head."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ncl_jax.models import vit
from ncl_jax.models.cifar_resnet import CifarResNet
from ncl_jax.models.convnext import ConvNeXt
from ncl_jax.models.efficientnet import EfficientNetLite
from ncl_jax.models.heads import CosineClassifier, FeatureInput, Linear, Projection
from ncl_jax.models.layers import XLA, Operations
from ncl_jax.models.packed import PackedCifarResNet
from ncl_jax.models.resnet import ResNet, ResNeXt


class Network(nn.Module):
    """One expert: images `[B, H, W, 3]` give a dictionary of `features [B, D]`, `logits [B, C]` and, with a projection
    head, `projection [B, dim]`, all float32."""

    backbone: nn.Module
    classifier: nn.Module
    projection: nn.Module | None = None

    def __call__(self, images: jax.Array, train: bool) -> dict[str, jax.Array]:
        features = self.backbone(images, train)
        outputs = {"features": features, "logits": self.classifier(features)}
        if self.projection is not None:
            outputs["projection"] = self.projection(features)
        return outputs

    def project(self, images: jax.Array) -> jax.Array:
        """`[B, dim]`: the projected features under the batch's own statistics, for the key encoder."""
        assert self.projection is not None
        return self.projection(self.backbone(images, True))


BACKBONES: dict[str, Any] = {
    "cifar_resnet": CifarResNet, "resnet": ResNet, "resnext": ResNeXt, "efficientnet_lite": EfficientNetLite,
    "convnext": ConvNeXt, "vit": vit.VisionTransformer, "dinov2": vit.DinoV2, "dinov2_reg4": vit.DinoV2Registers,
    "dinov3": vit.DinoV3, "clip_patch16": vit.Clip16, "clip_patch14": vit.Clip14, "siglip": vit.Siglip,
    "siglip_so400m": vit.SiglipSo400m,
}  # fmt: skip
# What trains in their place where experts are applied "packed"; others stay as they are.
PACKED: dict[str, Any] = {"cifar_resnet": PackedCifarResNet}
HEADS: dict[str, Any] = {
    "linear": Linear, "cosine": CosineClassifier, "normed": functools.partial(CosineClassifier, use_bias=False),
}  # fmt: skip


def check(backbone: str, name: str, value: int) -> None:
    """Asks a backbone of `BACKBONES` whether it comes in a depth, a width or an image size, as `name` says; one without
    such a check comes in all.

    Raises:
      ValueError: it does not; the text begins with `name=`.
    """
    getattr(BACKBONES[backbone], f"check_{name}", lambda value: None)(value)


FROZEN = -1  # `freeze` of a backbone that is frozen as a whole: one copy serves all experts, which are heads


def make_backbone(
    *,
    backbone: str,
    depth: int,
    width: int,
    precision: str,
    operations: Operations = XLA,
    packed: bool = False,
    **fields: Any,
) -> nn.Module:
    """Builds a backbone of `BACKBONES`, `(images [B, H, W, 3], train) -> features [B, D]` float32.

    Args:
      backbone, depth, width: see the backbone's class.
      precision: "float32" or "bfloat16", its compute type (parameters and statistics stay float32).
      operations: what computes the costly ones.
      packed: whether a backbone of `PACKED` takes its place.
      fields: `freeze`, `remat`: see `layers.Parts` and `layers.make_block`; for backbones that have such fields.

    Raises:
      ValueError: for a depth that the backbone does not come in.
    """
    backbones = BACKBONES | PACKED if packed else BACKBONES
    backbones[backbone].check_depth(depth)
    more = {name: value for name, value in fields.items() if value}
    return backbones[backbone](depth, width, jnp.dtype(precision), operations, **more)


def with_operations(backbone: nn.Module, operations: Operations) -> nn.Module:
    """A backbone with other operations, if it has any: its initial variables and all its shapes are the same."""
    return backbone.clone(operations=operations) if hasattr(backbone, "operations") else backbone


def shapes_of(backbone: nn.Module, image_shape: tuple[int, ...]) -> tuple[jax.ShapeDtypeStruct, Any]:
    """The shapes of a backbone's features of one image `[1, ...]`, and of its variables."""
    features, variables = _traced(with_operations(backbone, XLA), tuple(image_shape))
    return features, jax.tree.map(lambda leaf: leaf, variables)


@functools.lru_cache(maxsize=8)
def _traced(backbone: nn.Module, image_shape: tuple[int, ...]) -> tuple[jax.ShapeDtypeStruct, Any]:
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    shapes: tuple[jax.ShapeDtypeStruct, Any] = jax.eval_shape(
        lambda x: backbone.init_with_output(jax.random.key(0), x, False), image
    )
    return shapes


def make_network(
    *, classifier: str, cosine_scale: float, num_classes: int, projection_dim: int, **backbone: Any
) -> Network:
    """Builds one expert's network of a backbone of `BACKBONES` and a classifier of `HEADS`.

    Args:
      classifier: "linear", "cosine" or "normed", the last two with `cosine_scale`.
      num_classes: C.
      projection_dim: of the projection head; 0 leaves it out.
      backbone: the arguments of `make_backbone`.

    Raises:
      ValueError: for a depth that the backbone does not come in.
    """
    head = {"classifier": classifier, "cosine_scale": cosine_scale, "num_classes": num_classes}
    return _with_heads(make_backbone(**backbone), projection_dim=projection_dim, **head)


def make_heads(
    *,
    adapter: int,
    standardize: bool,
    classifier: str,
    cosine_scale: float,
    num_classes: int,
    projection_dim: int,
) -> Network:
    """One expert's network on the features `[B, D]` of a frozen backbone; `adapter`, `standardize`: see
    `heads.FeatureInput`, the others as for `make_network`."""
    head = {"classifier": classifier, "cosine_scale": cosine_scale, "num_classes": num_classes}
    return _with_heads(FeatureInput(adapter, standardize), projection_dim=projection_dim, **head)


def _with_heads(backbone, *, classifier, cosine_scale, num_classes, projection_dim):
    scale = {} if classifier == "linear" else {"scale": cosine_scale}
    return Network(
        backbone=backbone,
        classifier=HEADS[classifier](num_classes, **scale),
        projection=Projection(projection_dim) if projection_dim else None,
    )
