"""How a field of the configuration is declared, by the configuration or by the method that alone reads it."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from ncl_jax.errors import ConfigError, did_you_mean

LARGEST = 2**31 - 1  # of a whole number, if nothing else is declared
LARGEST_FLOAT, SMALLEST_FLOAT = 3.4e38, 1.2e-38  # what the devices compute with, float32, is infinite beyond, 0 below


class Field(NamedTuple):
    """One field: from it follow its default, its check, its line in `--help` and in docs/reference/configuration.md.

    Attributes:
      default: its value in `base_config`; the type of every other value.
      help: what it is, for a reader who knows Python and photographs.
      source: of the default: "authors" (their program), a paper or an arXiv number.
      at_least, above, at_most, below: bounds of a number; numbers are finite in float32 in any case.
      choices: the values of a text.
      words: numbers that the command line has words for.
      developer: a switch for work on ncl_jax itself, which no user needs.
    """

    default: Any
    help: str
    source: str = ""
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    choices: Collection[str] | None = None
    developer: bool = False
    words: Mapping[str, int] = {}

    def check(self, name: str, value: Any) -> None:
        """Raises ConfigError, naming the field, for a value that is not among the choices or outside the bounds."""
        if self.choices is not None:
            one_of(name, value, self.choices)
        elif not isinstance(value, bool) and isinstance(value, int | float):
            self._check_number(name, value)

    def _check_number(self, name, value):
        low = self.above is None or value - self.above >= SMALLEST_FLOAT
        high = self.below is None or value < self.below
        least = self.at_least is None or value >= self.at_least
        finite = isinstance(value, int) or is_finite(value)
        if not (low and high and least and finite):
            words = [self.bounds(), "" if finite else "finite in 32 bits"]
            raise ConfigError(f"{name}={value} must be {' and '.join(filter(None, words))}")
        most = LARGEST if self.at_most is None and isinstance(value, int) else self.at_most
        if most is not None and value > most:
            raise ConfigError(f"{name}={value} must be at most {most}")

    def line(self, name: str) -> str:
        """Its line in `--help`."""
        about = "; ".join(filter(None, [self.bounds(), self.source]))
        return f"{name} = {self.default!r}  # {self.help}" + (f" ({about})" if about else "")

    def bounds(self) -> str:
        """What values it takes, in words; empty for any."""
        if self.choices is not None:
            return f"one of: {', '.join(self.choices)}"
        if self.at_least == 0 and self.below == 1:
            return "in [0, 1)"
        limits = {"at least": self.at_least, "above": self.above, "at most": self.at_most, "below": self.below}
        return " and ".join(f"{word} {limit}" for word, limit in limits.items() if limit is not None)


def is_finite(value: float) -> bool:
    """Whether a number, of any size, is finite as the devices have it: in float32."""
    return abs(value) <= LARGEST_FLOAT


def one_of(name: str, value: Any, valid: Collection[str]) -> None:
    """Raises ConfigError, naming the field, where `value` is none of the valid ones."""
    if value not in valid:
        raise ConfigError(f"{name}={value!r} must be one of: {', '.join(valid)}{did_you_mean(str(value), valid)}")
