"""What a method computes: one function of the experts' outputs, with a memory of its own if it needs one."""

import hashlib
import importlib
import importlib.util
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import PartitionSpec as P

from ncl_jax.errors import ConfigError

Outputs = Mapping[str, Any]
Parts = dict[str, jax.Array]
Memory = Any


def no_memory(key: jax.Array, outputs: Outputs) -> Memory:
    """The memory of an objective that has none."""
    return ()


class Objective(NamedTuple):
    """The training objective of a method.

    Attributes:
      compute: `(outputs, labels [N * B], step, memory) -> (parts, new memory)`. `outputs` holds, for all experts,
        `features [E, N * B, D]`, `logits [E, N * B, C]` and, with self-supervision, `projection [E, B, dim]` and the
        momentum encoder's `keys [E, B, dim]`. `parts` are weighted scalars by name; their sum is the loss.
      init_memory: `(random key, shapes of the outputs) -> memory` at step 0, a pytree of arrays.
      prior_power: the power of the class counts that the raw scores' prior is proportional to: 0 where they are meant
        for classes that are equally likely, 1 for the training images' shares. Priors at test time start from it.
      memory_spec: where the memory lives on the mesh ("data", "expert"): a pytree of PartitionSpec whose leaves may
        stand for whole branches; the default keeps a copy on every device.
      fields: the fields of the configuration that make a loss term what it is, `{"nil": ("loss.margin",)}`: named where
        the term is not finite.
    """

    compute: Callable[[Outputs, jax.Array, jax.Array, Memory], tuple[Parts, Memory]]
    init_memory: Callable[[jax.Array, Outputs], Memory] = no_memory
    memory_spec: Any = P()
    prior_power: float = 0.0
    fields: Mapping[str, Sequence[str]] = {}


def together(**objectives: Objective) -> Objective:
    """The sum of several objectives; its memory holds each one's under its name.

    All memories start from the same random key.
    """

    def compute(outputs: Outputs, labels: jax.Array, step: jax.Array, memory: Memory) -> tuple[Parts, Memory]:
        results = {name: one.compute(outputs, labels, step, memory[name]) for name, one in objectives.items()}
        parts = {part: value for values, _ in results.values() for part, value in values.items()}
        return parts, {name: new for name, (_, new) in results.items()}

    def init_memory(key: jax.Array, outputs: Outputs) -> Memory:
        return {name: one.init_memory(key, outputs) for name, one in objectives.items()}

    specs = {name: one.memory_spec for name, one in objectives.items()}
    fields = {term: names for one in objectives.values() for term, names in one.fields.items()}
    return Objective(compute, init_memory, specs, sum(one.prior_power for one in objectives.values()), fields)


def find_own(name: str) -> Callable[..., Objective]:
    """The function that `FILE.py:FUNCTION` or `package.module:FUNCTION` names, for methods outside this package.

    Raises:
      ConfigError: there is no such file, module or function.
    """
    place, _, function = name.rpartition(":")
    try:
        return getattr(_import(place), function)
    except (ImportError, OSError, AttributeError, SyntaxError, ValueError) as error:
        raise ConfigError(f"loss.name={name!r} names no function FILE.py:FUNCTION ({error})") from error


def file_digest(name: str) -> str | None:
    """The SHA-256 of the file that `FILE.py:FUNCTION` names; None for any other name."""
    place = name.rpartition(":")[0]
    return hashlib.sha256(pathlib.Path(place).read_bytes()).hexdigest() if place.endswith(".py") else None


def _import(place: str) -> Any:
    if not place.endswith(".py"):
        return importlib.import_module(place)
    spec = importlib.util.spec_from_file_location(pathlib.Path(place).stem, place)
    if spec is None or spec.loader is None:
        raise ImportError(f"{place} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
