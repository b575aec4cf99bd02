"""A field's declaration: its bounds in words, and what it refuses."""

import math

import pytest

from ncl_jax.errors import ConfigError
from ncl_jax.field import LARGEST, Field


@pytest.mark.parametrize(
    ("field", "words", "good", "bad"),
    [
        (Field(1, "", at_least=1), "at least 1", (1, LARGEST), (0, LARGEST + 1)),
        (Field(0, "", at_least=0, at_most=2**32 - 1), "at least 0 and at most 4294967295", (0, 2**32 - 1), (-1, 2**32)),
        (Field(0.5, "", at_least=0, below=1), "in [0, 1)", (0.0, 0.99), (1.0, -0.1, math.nan)),
        (Field(0.1, "", above=0), "above 0", (1e-30, 5.0), (0.0, -1.0, math.inf)),
        (Field(0.1, ""), "", (-1e30,), (math.inf, math.nan)),
        (Field("a", "", choices=("a", "b")), "one of: a, b", ("a",), ("c", "")),
        (Field(False, ""), "", (True, False), ()),
    ],
)
def test_bounds_are_said_and_held(field, words, good, bad):
    assert field.bounds() == words
    for value in good:
        field.check("x.y", value)
    for value in bad:
        with pytest.raises(ConfigError, match=r"^x\.y='?.*'? must be"):
            field.check("x.y", value)


def test_a_line_of_help_has_all_of_it():
    line = Field(3, "experts", "NCL", at_least=1).line("model.num_experts")
    assert line == "model.num_experts = 3  # experts (at least 1; NCL)"
