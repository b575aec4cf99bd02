"""Devices: the mesh of a run and where its arrays live."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


def make_mesh(data: int = 0, expert: int = 1) -> Mesh:
    """A mesh `('data', 'expert')` of `data * expert` devices; `data` 0 takes all devices.

    Raises:
      ValueError: if there are not that many devices.
    """
    devices = jax.devices()
    data = data or len(devices) // expert
    if not 1 <= data * expert <= len(devices):
        raise ValueError(f"a mesh of {data} x {expert} devices does not fit the {len(devices)} that there are")
    # Explicit axes, jax's default, refuse a vmapped convolution.
    axis_types = (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh((data, expert), ("data", "expert"), axis_types, devices=devices[: data * expert])


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, P())


def constrain_batch(mesh: Mesh | None) -> Callable[[jax.Array], jax.Array]:
    """A function for use under `jit`: splits an array's leading axis, the batch, over the mesh's data axis."""
    if mesh is None:
        return lambda batch: batch
    return lambda batch: jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, P("data")))


def state_shardings(mesh: Mesh, state: Any, num_experts: int) -> Any:
    """Where each leaf of a `TrainState` of shapes lives: stacked leaves `[E, ...]` over the mesh's expert axis.

    Stacked are the parameters, the running statistics, all of the optimizer's state that is not a scalar, and the
    queue's keys; everything else is on every device.
    """

    def place(path, leaf):
        stacked = path[0].name not in ("step", "history") and leaf.ndim > 0 and leaf.shape[0] == num_experts
        return NamedSharding(mesh, P("expert") if stacked else P())

    return jax.tree_util.tree_map_with_path(place, state)
