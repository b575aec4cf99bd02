"""Configurations: fields, methods by name, recipes, checks; from them the pieces of a run."""

from ncl_jax.config import recipes
from ncl_jax.config.arguments import parse_arguments
from ncl_jax.config.choose import choose_method
from ncl_jax.config.fields import base_config
from ncl_jax.config.recipes import cifar_long_tailed, scale_schedule, shorten

__all__ = [
    "base_config", "choose_method", "cifar_long_tailed", "parse_arguments", "recipes", "scale_schedule", "shorten",
]  # fmt: skip
