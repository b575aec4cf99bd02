"""Experts: networks of one architecture whose variables are stacked on a leading axis `[E, ...]`."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

Variables = Any  # a pytree of arrays [E, ...]
STRATEGIES = ("unroll", "vmap", "packed")


def init_experts(model: nn.Module, key: jax.Array, num_experts: int, images: jax.Array) -> Variables:
    """Independent initial variables of `num_experts` experts, each leaf `[E, ...]`; see `own_variables`.

    The initialisation is vmapped over keys: drawing a stacked kernel directly would get its fan-in wrong.

    Args:
      model: a network called as `model(images, train)`.
      key: random key; each expert gets its own part.
      num_experts: E, at least 1.
      images: `[B, H, W, 3]` float32, for the shapes only.
    """
    if num_experts < 1:
        raise ValueError(f"num_experts={num_experts} must be at least 1")
    keys = jax.random.split(key, num_experts)
    return jax.jit(jax.vmap(lambda k: own_variables(model, model.init(k, images, False))))(keys)


def own_variables(model: nn.Module, variables: Variables) -> Variables:
    """One expert's variables without the parameters of a frozen backbone, which all experts share: those that a
    backbone with adapters does not train (`vit.VisionTransformer.trains`)."""
    trains = getattr(getattr(model, "backbone", None), "trains", None)
    if trains is None or "backbone" not in variables.get("params", {}):
        return variables
    own = {path: leaf for path, leaf in flatten_dict(variables["params"]["backbone"]).items() if trains(path)}
    return variables | {"params": variables["params"] | {"backbone": unflatten_dict(own)}}


def with_shared(variables: Variables, shared: Variables | None) -> Variables:
    """One expert's variables with those of the frozen backbone `shared` that it has no own ones for."""
    if shared is None:
        return variables
    params = variables["params"]
    whole = flatten_dict(shared["params"]) | flatten_dict(params.get("backbone", {}))
    return variables | {"params": params | {"backbone": unflatten_dict(whole)}}


def take_expert(variables: Variables, index: int) -> Variables:
    """The variables of one expert, without the leading axis."""
    return jax.tree.map(lambda leaf: leaf[index], variables)


def apply_experts(
    apply: Callable[..., tuple[Any, Any]],
    variables: Variables,
    rows: jax.Array,
    shared: Variables | None = None,
    *,
    strategy: str,
    mesh: Mesh | None = None,
) -> tuple[Any, Any]:
    """Applies every expert to the same rows and stacks the results on a leading axis.

    Equivalent to `jax.vmap(apply, in_axes=(0, None))(variables, rows)` for every strategy:
    "vmap" turns XLA's convolutions into grouped ones; "packed" is the same of networks that `models.packed` has a form
    of; "unroll" applies the experts one after the other inside one program (docs/accelerators.md says what wins where).

    Args:
      apply: `(one expert's variables, rows) -> (results by row [B, ...], others)`; called with `shared`, too, if there
        is any.
      variables: pytree of arrays `[E, ...]`.
      rows: `[B, ...]`.
      shared: variables that all experts use as they are, once on every device.
      strategy: one of `STRATEGIES`.
      mesh: where its axis "expert" has several devices, each applies its own experts; the axis must divide E. Batch
        statistics are those of the whole batch.
    """
    if mesh is not None and _manual_axes(strategy, mesh):
        return _apply_spread(apply, variables, rows, shared, strategy, mesh)
    given = (rows,) if shared is None else (rows, shared)
    if strategy in ("vmap", "packed"):
        return jax.vmap(lambda v: apply(v, *given))(variables)
    if strategy != "unroll":
        raise ValueError(f"strategy={strategy!r} must be one of {STRATEGIES}")
    num_experts = len(jax.tree.leaves(variables)[0])
    results = [apply(take_expert(variables, i), *given) for i in range(num_experts)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)


def _manual_axes(strategy, mesh):
    """The mesh's axes along which every device does its own part, rather than what the compiler thinks of: it gathers
    the whole batch's activations on every device for a vmapped convolution."""
    names = ("expert",) if strategy == "unroll" else ("data", "expert")
    return {name for name in names if mesh.shape[name] > 1}


def _apply_spread(apply, variables, rows, shared, strategy, mesh):
    local, axes = functools.partial(apply_experts, apply, strategy=strategy), _manual_axes(strategy, mesh)
    expert, data = [name if name in axes else None for name in ("expert", "data")]
    places, results = (P(expert), P(data), P()), (P(expert, data), P(expert))
    spread = jax.shard_map(local, mesh=mesh, axis_names=axes, in_specs=places, out_specs=results)
    return spread(variables, rows, shared)


def make_apply(model: nn.Module, strategy: str, mesh: Mesh | None = None) -> Callable:
    """Makes `apply(variables, images [B, H, W, 3], train) -> (outputs [E, ...], new batch_stats [E, ...])`.

    Args:
      model: one expert's network; `variables` holds `params` and `batch_stats`, stacked, and under "trunk" what
        the experts share of a frozen backbone, if they do.
      strategy, mesh: see `apply_experts`.
    """

    def apply(variables: Variables, images: jax.Array, train: bool) -> tuple[dict[str, jax.Array], Variables]:
        def one(variables, x, shared=None):
            return model.apply(with_shared(variables, shared), x, train, mutable=["batch_stats"])

        own, shared = without_trunk(variables), variables.get("trunk")
        outputs, updates = apply_experts(one, own, images, shared, strategy=strategy, mesh=mesh)
        return outputs, updates.get("batch_stats", {})

    return apply


def without_trunk(variables: Variables) -> Variables:
    """The experts' own variables, without those of a frozen backbone, which stand under the name "trunk"."""
    return {name: tree for name, tree in variables.items() if name != "trunk"}


def on_trunk(trunk: nn.Module, apply: Callable, *, shared: bool = False) -> Callable:
    """What `make_apply` makes for experts on the features of a frozen backbone, from images; see `without_trunk`.

    `shared`: whether the experts see its variables as well: `trunk` is its first blocks, and theirs are the others.
    """

    def whole(variables: Variables, images: jax.Array, train: bool) -> tuple[dict[str, jax.Array], Variables]:
        own = variables if shared else without_trunk(variables)
        with jax.named_scope("trunk"):
            seen = trunk.apply(variables["trunk"], images, False)
        return apply(own, seen, train)

    return whole
