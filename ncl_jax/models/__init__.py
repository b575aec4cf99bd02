"""Networks of one expert: a backbone, a classifier on its features and, for momentum contrast, a projection head."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ncl_jax.models.cifar_resnet import CifarResNet
from ncl_jax.models.heads import CosineClassifier, Linear, Projection


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


def make_network(
    *,
    depth: int,
    width: int,
    classifier: str,
    cosine_scale: float,
    num_classes: int,
    projection_dim: int,
    precision: str,
) -> Network:
    """Builds one expert's network: a CIFAR ResNet with a "linear" or "cosine" classifier.

    `projection_dim` 0 leaves the projection head out; `precision` "float32" or "bfloat16" is the backbone's compute
    type (parameters, statistics and logits stay float32). Raises ValueError for a depth that is not 6 n + 2 and for an
    unknown classifier.
    """
    if (depth - 2) % 6 or depth < 8:
        raise ValueError(f"depth={depth} must be 6 n + 2: 8, 14, 20, 26, 32, 44, 56, 110")
    heads = {"linear": lambda: Linear(num_classes), "cosine": lambda: CosineClassifier(num_classes, cosine_scale)}
    if classifier not in heads:
        raise ValueError(f"classifier={classifier!r} must be one of: {', '.join(heads)}")
    return Network(
        backbone=CifarResNet(depth, width, jnp.dtype(precision)),
        classifier=heads[classifier](),
        projection=Projection(projection_dim) if projection_dim else None,
    )
