"""Networks of one expert: a backbone, a classifier on its features and, for momentum contrast, a projection head."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ncl_jax.models.cifar_resnet import CifarResNet
from ncl_jax.models.heads import CosineClassifier, Linear, Projection
from ncl_jax.models.resnet import STAGES, ResNet


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
        return self.projection(self.backbone(images, True))


_BACKBONES = {"cifar_resnet": CifarResNet, "resnet": ResNet}


def check_depth(backbone: str, depth: int) -> None:
    """Raises ValueError for an unknown backbone, and for a depth that it does not come in."""
    if backbone not in _BACKBONES:
        raise ValueError(f"backbone={backbone!r} must be one of: {', '.join(_BACKBONES)}")
    if backbone == "resnet" and depth not in STAGES:
        raise ValueError(f"depth={depth} must be, for a resnet, one of: {', '.join(map(str, STAGES))}")
    if backbone == "cifar_resnet" and ((depth - 2) % 6 or depth < 8):
        raise ValueError(f"depth={depth} must be, for a cifar_resnet, 6 n + 2: 8, 14, 20, 26, 32, 44, 56, 110")


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
) -> Network:
    """Builds one expert's network: a "cifar_resnet" or "resnet" with a "linear" or "cosine" classifier.

    `projection_dim` 0 leaves the projection head out; `precision` "float32" or "bfloat16" is the backbone's compute
    type (parameters, statistics and logits stay float32). Raises ValueError for an unknown backbone or classifier and
    for a depth that the backbone does not come in.
    """
    check_depth(backbone, depth)
    heads = {"linear": lambda: Linear(num_classes), "cosine": lambda: CosineClassifier(num_classes, cosine_scale)}
    if classifier not in heads:
        raise ValueError(f"classifier={classifier!r} must be one of: {', '.join(heads)}")
    return Network(
        backbone=_BACKBONES[backbone](depth, width, jnp.dtype(precision)),
        classifier=heads[classifier](),
        projection=Projection(projection_dim) if projection_dim else None,
    )
