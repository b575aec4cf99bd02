"""Pretrained backbones in a configuration: the fields that follow from a name of the table `models.named`."""

import importlib.util
import pathlib
import re

import ml_collections

from ncl_jax.errors import ConfigError, did_you_mean
from ncl_jax.models import FROZEN
from ncl_jax.models.named import DEFAULT, NAMED, Named

NONE = "none"  # of the argument `pretrained`: random weights
BATCH = 128
# What trains heads on frozen features; chosen on held-out training images (docs/features.md).
ON_FEATURES = {
    "model.freeze": FROZEN, "model.standardize": False, "model.head_start": "class_mean",
    "model.classifier": "cosine", "model.cosine_scale": 20.0, "model.adapter": 0,
    "optim.name": "adamw", "optim.learning_rate": 1e-3, "optim.weight_decay": 1e-2, "optim.batch_size": BATCH,
    "optim.schedule": "cosine", "optim.warmup_epochs": 0, "optim.milestones": (), "loss.ramp_steps": 0,
}  # fmt: skip


# What trains a pretrained backbone too, each expert its own.
FINE_TUNED = {"data.augment": "imagenet", "optim.learning_rate": 0.02, "optim.backbone_scale": 0.1}


def use(
    config: ml_collections.ConfigDict, name: str, *, pretrained: str = "", image_size: int = 0, freeze: str = "all"
) -> None:
    """Sets the fields of a named backbone: its network, its preprocessing and its weights.

    With weights it is frozen and heads are trained on its features, unless `freeze` says otherwise.

    Args:
      config: of a recipe.
      name: of `NAMED`.
      pretrained: weights to start from, as for model.pretrained; empty for the name's own; "none" for random weights.
      image_size: in pixels; 0 for the name's own.
      freeze: "all", or how many parts of it are not trained, see model.freeze.

    Raises:
      ConfigError: there is no such backbone, or a bad value of `freeze`.
    """
    if freeze != "all" and not freeze.isdecimal():
        raise ConfigError(f"freeze={freeze!r} must be all, or the number of the backbone's parts that are not trained")
    if name not in NAMED:
        raise ConfigError(f"backbone={name!r} must be one of: {', '.join(NAMED)}{did_you_mean(name, NAMED)}")
    named = NAMED[name]
    size = image_size or named.image_size
    config.update_from_flattened_dict({
        "model.backbone": named.backbone, "model.depth": named.depth, "model.width": named.width,
        "model.pretrained": "" if pretrained == NONE else pretrained or name,
        "data.image_size": size, "data.resize": round(size * named.resize / named.image_size),
        "data.interpolation": named.interpolation, "data.mean": named.mean, "data.std": named.std,
    })  # fmt: skip
    if pretrained != NONE:
        heads = freeze == "all"
        config.update_from_flattened_dict(ON_FEATURES if heads else FINE_TUNED | {"model.freeze": int(freeze)})


def is_installed(named: Named) -> bool:
    """Whether the weights come with a package that is installed; those of the hub are not asked for."""
    return bool(named.sha256) and importlib.util.find_spec(named.weights.partition("/")[0]) is not None


def installing(named: Named) -> str:
    """How the words begin that tell how to use a backbone: with the installation of its weights, where they are not."""
    return "" if is_installed(named) else f"{named.install}, then "


def on_features(text: str) -> str:
    """The `--config` of own images `text` with the default backbone, at its own image size; empty where it is of other
    data, or chooses a backbone or its weights itself."""
    name, _, arguments = text.partition(":")
    if pathlib.PurePath(name).stem not in ("folder", "list") or re.search("(^|,)(backbone|pretrained)=", arguments):
        return ""
    kept = re.sub(r"(^|,)image_size=\d+", "", arguments)
    return f"{name}:{kept},backbone={DEFAULT}"
