"""Adapters in the last blocks of a frozen transformer: from the fields of `model` to the networks of experts that share
it."""

import flax.linen as nn
import ml_collections

from ncl_jax.errors import ConfigError
from ncl_jax.models import BACKBONES, FROZEN, Network
from ncl_jax.models.adapters import ADAPTERS, NONE

FIELDS = ("adapters", "adapted_blocks", "adapter_width")  # of `model` and `teacher`


def is_adapted(model: ml_collections.ConfigDict) -> bool:
    """Whether experts are adapters in the blocks of a frozen backbone, and heads."""
    return model.adapters != NONE


def on_features(model: ml_collections.ConfigDict) -> bool:
    """Whether experts are heads alone, on the features of a frozen backbone."""
    return model.freeze == FROZEN and not is_adapted(model)


def describe(model: ml_collections.ConfigDict) -> str:
    """What is frozen of a backbone that all experts share, in words; empty where each has its own."""
    if model.freeze != FROZEN:
        return ""
    inside = f"; {model.adapters} in the last {blocks(model)} blocks" if is_adapted(model) else ""
    return f" (frozen, one for all{inside})"


def blocks(model: ml_collections.ConfigDict) -> int:
    """The number of blocks, the last ones, that have adapters."""
    return model.adapted_blocks or model.depth


def width(model: ml_collections.ConfigDict, num_classes: int) -> int:
    """The adapters' width: what is configured, or the kind's own for so many classes; 0 of a kind without."""
    kind = ADAPTERS[model.adapters]
    return model.adapter_width or (kind.default_width(num_classes, blocks(model)) if kind.default_width else 0)


def lower(trunk: nn.Module | None, model: ml_collections.ConfigDict) -> nn.Module | None:
    """The blocks of a frozen backbone that no expert changes, images to tokens; None without adapters."""
    return trunk.clone(until=model.depth - blocks(model)) if trunk is not None and is_adapted(model) else None


def upper(network: Network, model: ml_collections.ConfigDict, num_classes: int) -> Network:
    """One expert's network, of images, as the part of it that has adapters, of tokens."""
    fields = {"adapter": model.adapters, "adapter_width": width(model, num_classes)}
    return network.clone(backbone=network.backbone.clone(since=model.depth - blocks(model), **fields))


def check(model: ml_collections.ConfigDict) -> None:
    """Raises ConfigError for adapters that there cannot be, naming the field."""
    check_blocks("model", model)
    if not is_adapted(model):
        return
    if model.freeze != FROZEN:
        raise ConfigError(
            f"model.adapters={model.adapters} needs a frozen backbone: set model.freeze=all, not {model.freeze}, or "
            f"model.adapters={NONE}"
        )
    for name, none in (("adapter", 0), ("standardize", False)):
        if model[name] != none:
            raise ConfigError(
                f"model.{name}={model[name]} is for features that are computed once: with model.adapters="
                f"{model.adapters} set {none}"
            )


def check_blocks(name: str, section: ml_collections.ConfigDict) -> None:
    """What adapters ask of a backbone's blocks, in the section `model` or `teacher`. Raises ConfigError."""
    if not is_adapted(section):
        for field in ("adapted_blocks", "adapter_width"):
            if section[field]:
                raise ConfigError(f"{name}.{field}={section[field]} needs adapters: set {name}.adapters, or 0")
        return
    if not hasattr(BACKBONES[section.backbone], "adapter"):
        raise ConfigError(
            f"{name}.adapters={section.adapters}: the backbone {section.backbone} has no blocks for adapters; vision "
            "transformers have, such as backbone=dinov2_small"
        )
    if section.adapted_blocks > section.depth:
        raise ConfigError(
            f"{name}.adapted_blocks={section.adapted_blocks}: the backbone has {section.depth} blocks; 0 is all"
        )
    if section.adapter_width and ADAPTERS[section.adapters].default_width is None:
        raise ConfigError(
            f"{name}.adapter_width={section.adapter_width}: {section.adapters} has no width, because it trains numbers "
            "of the blocks themselves; set 0"
        )
