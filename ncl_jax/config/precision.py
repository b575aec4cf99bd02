"""The number format that backbones compute in."""

import jax
import ml_collections

from ncl_jax.config.adapted import on_features


def of(config: ml_collections.ConfigDict) -> str:
    """The number format that the backbone computes in. Features of a frozen one have no gradient: an
    accelerator, whose matrix units are made for bfloat16, computes them so."""
    if config.precision != "auto":
        return config.precision
    return "bfloat16" if on_features(config.model) and jax.default_backend() != "cpu" else "float32"


def as_begun(config: ml_collections.ConfigDict, stored: ml_collections.ConfigDict | None) -> ml_collections.ConfigDict:
    """The configuration with the precision that a run has, on whatever it continues; `stored`: its configuration, None:
    none has begun."""
    found = config.copy_and_resolve_references()
    if config.precision == "auto":
        found.precision = of(stored or config)
    return found
