"""Values that fields of the configuration must refuse, from what their declarations say."""

import math

from ncl_jax.config.fields import fields
from ncl_jax.field import LARGEST

HUGE, TINY = 1e308, 1e-320  # infinite and 0 in float32


def outside(field):
    """The values next to a field's bounds, numbers that are none, and those that float32 does not have."""
    if field.choices is not None:
        return ["no_such_choice"]
    kind = type(field.default)
    if kind not in (int, float):
        return []
    step = 1 if kind is int else 0.1
    bounds = [(field.at_least, -step), (field.above, 0), (field.at_most, step), (field.below, 0)]
    found = [kind(bound + change) for bound, change in bounds if bound is not None]
    if kind is int:
        return [*found, 2**64] if field.at_most is not None else [*found, LARGEST + 1, 2**64]
    nothing = [-0.0, TINY] if field.above == 0 else []  # 0 as the devices have it
    return [*found, *nothing, HUGE, -HUGE, math.inf, -math.inf, math.nan]


ROWS = [(name, value) for name, field in fields().items() for value in outside(field)]
