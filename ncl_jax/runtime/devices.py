"""Devices: the mesh of a run and where its arrays live."""

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ncl_jax.errors import ConfigError, one_line


def devices() -> list[jax.Device]:
    """All devices. Raises ConfigError where JAX finds none."""
    try:
        return jax.devices()
    except RuntimeError as error:
        raise ConfigError(
            f"JAX finds no devices ({one_line(error)}): change or unset JAX_PLATFORMS="
            f"{os.environ.get('JAX_PLATFORMS', '')}, or install JAX for them: "
            "pip install 'jax[cuda12]', 'jax[cuda13]' or 'jax[tpu]'"
        ) from error


def make_mesh(data: int = 0, expert: int = 1) -> Mesh:
    """A mesh `('data', 'expert')` of `data * expert` devices; `data` 0 takes all devices.

    Raises:
      ConfigError: JAX finds no devices.
      ValueError: if there are not that many devices.
    """
    found = devices()
    data = data or len(found) // expert
    if not 1 <= data * expert <= len(found):
        raise ValueError(f"a mesh of {data} x {expert} devices does not match the {len(found)} available")
    return _mesh(data, expert, found[: data * expert])


def own_mesh() -> Mesh:
    """A mesh of one device of this process. Raises ConfigError where JAX finds no devices."""
    devices()
    return _mesh(1, 1, jax.local_devices()[:1])


def _mesh(data, expert, found):
    # Explicit axes, jax's default, refuse a vmapped convolution.
    axis_types = (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh((data, expert), ("data", "expert"), axis_types, devices=found)


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, P())


def put_rows(mesh: Mesh, array: np.ndarray, axis: int = 0) -> jax.Array:
    """Spreads an array's `axis`, filled up with zeros, over the mesh's data axis; a process puts only its own part."""
    padding = [(0, 0)] * array.ndim
    padding[axis] = (0, -array.shape[axis] % mesh.shape["data"])
    array = np.pad(array, padding)
    place = NamedSharding(mesh, P(*[None] * axis, "data"))
    return jax.make_array_from_callback(array.shape, place, lambda part: array[part])


def like_rows(mesh: Mesh, array: np.ndarray) -> jax.ShapeDtypeStruct:
    """The shape and the place of what `put_rows` makes of an array."""
    rows = len(array) + -len(array) % mesh.shape["data"]
    return jax.ShapeDtypeStruct((rows, *array.shape[1:]), array.dtype, sharding=NamedSharding(mesh, P("data")))


def take_rows(mesh: Mesh | None) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """A function for use under `jit`: `take(images [N, ...], rows [B]) -> [B, ...]`, from what `put_rows` spread.

    Every device picks the batch's rows that it holds; their sum, in which all others are 0, is left spread over the
    batch. That moves one batch of uint8, where the compiler's own choice could be to gather the whole data set.
    """
    if mesh is None or mesh.shape["data"] == 1:
        return lambda images, rows: images[rows]

    def local(images, rows):
        own = rows - jax.lax.axis_index("data") * len(images)
        held = (own >= 0) & (own < len(images))
        picked = jnp.where(held.reshape(-1, *[1] * (images.ndim - 1)), images[jnp.where(held, own, 0)], 0)
        return jax.lax.psum_scatter(picked, "data", tiled=True)

    return jax.shard_map(local, mesh=mesh, in_specs=(P("data"), P()), out_specs=P("data"), axis_names={"data"})


def constrain_batch(mesh: Mesh | None) -> Callable[[jax.Array], jax.Array]:
    """A function for use under `jit`: splits an array's leading axis, the batch, over the mesh's data axis."""
    if mesh is None:
        return lambda batch: batch
    return lambda batch: jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, P("data")))


def state_shardings(mesh: Mesh, state: Any, num_experts: int, memory_spec: Any) -> Any:
    """Where each leaf of a `TrainState` of shapes lives: stacked leaves `[E, ...]` over the mesh's expert axis.

    Stacked are the parameters, the running statistics and all of the optimizer's state that is not a scalar. Of
    the method's state `Objective.memory_spec` decides; everything else is on every device.
    """

    def place(leaf: Any) -> NamedSharding:
        stacked = leaf.ndim > 0 and leaf.shape[0] == num_experts
        return NamedSharding(mesh, P("expert") if stacked else P())

    specs = jax.tree.broadcast(memory_spec, state.memory, is_leaf=lambda x: isinstance(x, P))
    memory = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs, is_leaf=lambda x: isinstance(x, P))
    return jax.tree.map(place, state._replace(memory=()))._replace(memory=memory)
