"""Recipes for adapters in a frozen transformer: LIFT (Shi et al., ICML 2024, arXiv 2309.10019) and LIFT+ (arXiv
2504.13282) as published, and NCL's losses over such experts. One more is a line in `RECIPES`."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_collections

from ncl_jax import methods
from ncl_jax.config import choose
from ncl_jax.config.backbone import NONE
from ncl_jax.errors import ConfigError
from ncl_jax.field import one_of
from ncl_jax.models import BACKBONES, FROZEN

DEFAULT = "clip_base"  # the backbone of the published figures
RESIZE = 256 / 224  # of a test image, before its centre is cut out
LONG = ("inaturalist2018",)  # data that the recipes take more epochs for
ADAPTED = 4  # last blocks of NCL's experts


class Recipe(NamedTuple):
    """A recipe.

    Attributes:
      description: a line for help texts.
      method: of `methods.METHODS`, unless another is asked for.
      epochs, long_epochs: how many, and for the data of `LONG`.
      fields: what it sets beside.
    """

    description: str
    method: str
    epochs: int
    long_epochs: int
    fields: Mapping[str, Any]


_COMMON = {
    "model.freeze": FROZEN, "model.adapters": "adaptformer", "model.adapted_blocks": 0, "model.num_experts": 1,
    "model.classifier": "normed", "model.cosine_scale": 25.0, "model.head_start": "class_mean",
    "optim.name": "momentum", "optim.momentum": 0.9, "optim.weight_decay": 5e-4, "optim.batch_size": 128,
    "optim.schedule": "annealing", "optim.warmup_epochs": 0, "optim.milestones": (), "loss.ramp_steps": 0,
}  # fmt: skip
_LIFT = {
    **_COMMON, "optim.learning_rate": 0.01, "data.augment": "resized_flip", "data.interpolation": "bilinear"
}  # fmt: skip
_LIFT_PLUS = {
    **_COMMON, "optim.learning_rate": 0.02, "data.augment": "growing_crop", "data.interpolation": "bicubic"
}  # fmt: skip
RECIPES = {
    "lift": Recipe("LIFT: AdaptFormer in every block, logit adjustment", "logit_adjustment", 10, 20, _LIFT),
    "lift_plus": Recipe("LIFT+: half the epochs, crops that grow", "logit_adjustment", 5, 15, _LIFT_PLUS),
    "ncl_adapters": Recipe(
        "NCL's losses over three experts, AdaptFormer in the last four blocks", "ncl_supervised", 10, 20,
        {**_LIFT, "model.num_experts": 3, "model.adapted_blocks": ADAPTED},
    ),
}  # fmt: skip


def epochs(name: str, data: str) -> int:
    """How many epochs a recipe takes for data of a name. Raises ConfigError for a recipe that there is not."""
    one_of("recipe", name, RECIPES)
    return RECIPES[name].long_epochs if data in LONG else RECIPES[name].epochs


def use(config: ml_collections.ConfigDict, name: str, *, pretrained: str, freeze: str) -> None:
    """Sets the fields of a recipe.

    Args:
      config: with its backbone, see `backbone.use`.
      name: of `RECIPES`.
      pretrained, freeze: arguments of the configuration file.

    Raises:
      ConfigError: the backbone has no blocks for adapters, or is to be trained as a whole.
    """
    model = config.model
    if freeze != "all" or pretrained == NONE:
        given = f"freeze={freeze}" if freeze != "all" else f"pretrained={pretrained}"
        raise ConfigError(f"recipe={name} trains adapters in a frozen pretrained backbone: leave out {given}")
    if not hasattr(BACKBONES[model.backbone], "adapter"):
        raise ConfigError(f"recipe={name} needs a vision transformer, not {model.backbone}: backbone={DEFAULT}")
    config.update_from_flattened_dict({**RECIPES[name].fields, "data.resize": round(config.data.image_size * RESIZE)})
    model.adapted_blocks = min(model.adapted_blocks, model.depth)


def choose_method(config: ml_collections.ConfigDict, name: str, method: str, semantics: str) -> None:
    """Sets the fields of a method, the recipe's own if `method` is empty, and keeps the recipe's number of experts
    unless the method has another."""
    recipe = RECIPES[name]
    chosen = method or recipe.method
    choose.choose_method(config, chosen, semantics)
    if "model.num_experts" not in methods.METHODS[chosen].fields:
        config.model.num_experts = recipe.fields["model.num_experts"]
