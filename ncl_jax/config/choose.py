"""Methods by name: the fields that make one up, and the method that a configuration has."""

from typing import Any

import ml_collections

from ncl_jax import methods
from ncl_jax.config.fields import METHOD_FILE, base_config, flatten
from ncl_jax.field import one_of


def choose_method(config: ml_collections.ConfigDict, method: str, semantics: str = "official") -> None:
    """Sets all fields that make up a method of `methods.METHODS`, in the authors' or the equations' semantics.

    Choosing a method after another one equals choosing it alone, but for what the other wants of the recipe
    (`methods.Method`); change single fields afterwards.

    Raises:
      ConfigError: for an unknown method or semantics.
    """
    one_of("method", method, methods.METHODS)
    one_of("semantics", semantics, methods.SEMANTICS)
    config.update_from_flattened_dict(_method_fields(method, semantics) | dict(methods.METHODS[method].wants))


def _method_fields(method: str, semantics: str) -> dict[str, Any]:
    """Every field that any method sets, as this one has it."""
    defaults = flatten(base_config())
    reset = {name: defaults[name] for name in methods.all_fields() if name in defaults}
    return reset | methods.fields(method, semantics)


def method_of(config: ml_collections.ConfigDict) -> str:
    """The name of the first method whose loss a configuration has, with any number of experts; else its loss's name."""
    given = flatten(config)
    for semantics in methods.SEMANTICS:
        for method in methods.METHODS:
            fields = flatten(ml_collections.ConfigDict(_method_fields(method, semantics), allow_dotted_keys=True))
            if all(given[name] == value for name, value in fields.items() if name != "model.num_experts"):
                return method if semantics == "official" else f"{method} ({semantics})"
    return given["loss.name"]


def note_method(config: ml_collections.ConfigDict) -> None:
    """Notes the content of a method's own file, which is a part of what the run is; its path is not."""
    if (digest := methods.file_digest(config.loss.name)) is not None:
        config[METHOD_FILE] = digest
