"""The arguments of a configuration file, which follow its name and a colon."""

import re
from typing import Any

import ml_collections

from ncl_jax.errors import ConfigError, did_you_mean

QUOTED = re.compile(r'"(?:[^"]|"")*"')  # a value of an argument
PART = re.compile(rf'([^,="]+={QUOTED.pattern}(?=,|$)|[^,]*)(?:,|$)')  # what stands between two commas


def parse_arguments(text: str | None, **defaults: Any) -> ml_collections.ConfigDict:
    """Reads the arguments of a configuration file, `imbalance=50,method=ncl`, each in its default's type.

    Commas separate them; one that begins no argument belongs to the text before it, `dir=red,green`. A text with any
    commas and equals signs needs double quotes, `dir="a,b=c"`, in which a quote is written twice.

    Raises:
      ConfigError: for an unknown argument (listing the valid ones), a repeated one or a value of another type.
    """
    values: dict[str, Any] = {}
    for item in _items(text or "", defaults):
        name, equals, value = item.partition("=")
        if name not in defaults or not equals:
            valid = ", ".join(f"{key}={value}" for key, value in defaults.items())
            raise ConfigError(
                f"unknown argument {item!r}{did_you_mean(name, defaults)}; the arguments with their defaults are: "
                f"{valid}. Commas separate them"
            )
        if name in values:
            raise ConfigError(f"argument {name!r} appears twice")
        try:
            values[name] = type(defaults[name])(_unquoted(name, value))
        except ValueError as error:
            kind = type(defaults[name]).__name__
            raise ConfigError(f"argument {name}={value!r} is not a number of type {kind}") from error
    return ml_collections.ConfigDict(defaults | values)


def _unquoted(name, value):
    """A value without the quotes around it. Raises ConfigError where they are not closed."""
    if not value.startswith('"'):
        return value
    if not QUOTED.fullmatch(value):
        raise ConfigError(f"argument {name}={value}: the double quotes must be closed before a comma or the end")
    return value[1:-1].replace('""', '"')


def _items(text, defaults):
    """The arguments, `name=value` each: a part without an equals sign continues the text before it."""
    items: list[str] = []
    for part in (match[1] for match in PART.finditer(text)):
        if items and "=" not in part and isinstance(defaults.get(items[-1].partition("=")[0]), str):
            items[-1] += f",{part}"
        else:
            items.append(part)
    return [item.rstrip(",") for item in items if item.strip(",")]
