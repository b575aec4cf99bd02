"""A run's configuration as its files hold it, whoever wrote them: checked as one from the command line is, and nothing
that it names is imported."""

from typing import Any

import ml_collections

from ncl_jax.config import checks
from ncl_jax.config.fields import METHOD_FILE, NOTES, base_config, complete, fields
from ncl_jax.field import LARGEST
from ncl_jax.runtime import schema

_NOTED = schema.record({}, {
    "version": schema.integer(most=LARGEST), "extend": schema.integer(most=LARGEST),
    "prior_power": schema.maybe(schema.number(-64, 64)), METHOD_FILE: schema.text(), "pixels": schema.anything,
    "scaled": schema.mapping(schema.anything), "split_rule": schema.anything,
    "data_changed": schema.list_of(schema.text(), 0, 10_000), "steps_per_epoch": schema.integer(1, LARGEST),
})  # fmt: skip
_SECTIONS = frozenset(name.partition(".")[0] for name in fields() if "." in name)
# What a model is made of, and sees: a field that is not known there may change what the scores mean.
_KNOWN_WHOLE = ("", "data", "data.columns", "data.list", "model")


def read(stored: Any) -> ml_collections.ConfigDict:
    """The configuration that a run's file holds; a field that it lacks takes its default.

    Raises:
      ValueError, TypeError: it is not a configuration, naming the key.
      ConfigError: a value that no run can have, naming the field.
    """
    _NOTED(stored, "")
    for name in sorted(_SECTIONS & stored.keys()):
        schema.mapping(schema.anything)(stored[name], name)
    if "own" in stored.get("loss", {}):
        schema.mapping(schema.anything)(stored["loss"]["own"], "loss.own")
    _check_names(stored, "")
    config = complete(stored)
    checks.validate_saved(config)
    return config


def _check_names(section: dict, name: str) -> None:
    """Raises ValueError for a key that no field can have."""
    known = _names_in(name)
    for key, value in section.items():
        full = f"{name}.{key}" if name else key
        if not key.isidentifier() or hasattr(ml_collections.ConfigDict, key):
            raise ValueError(f"{full!r} is not the name of a field")
        if name in _KNOWN_WHOLE and key not in known:
            raise ValueError(f"{full} is not a field of this ncl_jax: if a newer one wrote it, update ncl_jax")
        if isinstance(value, dict):
            if full in fields():
                raise ValueError(f"{full} must be a value, not a section")
            _check_names(value, full)


def _names_in(name: str) -> set[str]:
    """The fields and sections of a section, and what is beside them."""
    if not name:
        return {*base_config().keys(), *NOTES}
    prefix = f"{name}."
    return {field.removeprefix(prefix).partition(".")[0] for field in fields() if field.startswith(prefix)}
