"""Networks of one expert: a backbone, a classifier on its features and, for momentum contrast, a projection head."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ncl_jax.models.cifar_resnet import CifarResNet
from ncl_jax.models.heads import CosineClassifier, Linear, Projection
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


BACKBONES: dict[str, Any] = {"cifar_resnet": CifarResNet, "resnet": ResNet, "resnext": ResNeXt}
# What trains in their place where experts are applied "packed"; others stay as they are.
PACKED: dict[str, Any] = {"cifar_resnet": PackedCifarResNet}
HEADS: dict[str, Any] = {
    "linear": Linear, "cosine": CosineClassifier, "normed": functools.partial(CosineClassifier, use_bias=False),
}  # fmt: skip


def make_network(
    *,
    backbone: str,
    depth: int,
    width: int,
    classifier: str,
    cosine_scale: float,
    num_classes: int,
    projection_dim: int,
    precision: str,
    operations: Operations = XLA,
    freeze: int = 0,
    remat: bool = False,
    packed: bool = False,
) -> Network:
    """Builds one expert's network of a backbone of `BACKBONES` and a classifier of `HEADS`.

    Args:
      backbone, depth, width: see the backbone's class.
      classifier: "linear", "cosine" or "normed", the last two with `cosine_scale`.
      num_classes: C.
      projection_dim: of the projection head; 0 leaves it out.
      precision: "float32" or "bfloat16", the backbone's compute type (parameters, statistics, logits stay float32).
      operations: what computes the costly ones.
      freeze, remat: see `layers.Parts` and `layers.make_block`; for backbones that have such fields.
      packed: whether a backbone of `PACKED` takes its place.

    Raises:
      ValueError: for a depth that the backbone does not come in.
    """
    backbones = BACKBONES | PACKED if packed else BACKBONES
    backbones[backbone].check_depth(depth)
    more = {name: value for name, value in (("freeze", freeze), ("remat", remat)) if value}
    scale = {} if classifier == "linear" else {"scale": cosine_scale}
    return Network(
        backbone=backbones[backbone](depth, width, jnp.dtype(precision), operations, **more),
        classifier=HEADS[classifier](num_classes, **scale),
        projection=Projection(projection_dim) if projection_dim else None,
    )
