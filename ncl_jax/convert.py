"""PyTorch weights to ours: names, layouts and the experts' stacked axis."""

from collections.abc import Mapping

import jax
import numpy as np

from ncl_jax.experts import Variables

# Where the authors' programs keep their modules; the second has self-supervision, whose projection head they call
# classifier.
SUPERVISED = {"backbone": "backbone", "classifier": "classifier"}
SELF_SUPERVISED = {"backbone": "backbone", "classifier_ce": "classifier", "classifier": "projection"}
MOMENTUM_ENCODER = {"backbone_MA": "backbone", "classifier_MA": "projection"}

_BATCH_STATS = {"running_mean": "mean", "running_var": "var"}
_PROJECTION_LAYERS = {"0": "hidden", "2": "out"}


def from_torch(tensors: Mapping[str, np.ndarray], modules: Mapping[str, str]) -> Variables:
    """Converts a PyTorch state dictionary of a NCL model to stacked variables.

    Args:
      tensors: names such as `backbone.1.layer2.0.conv1.weight` (module, expert, rest) to arrays; convolutions OIHW,
        linear layers [out, in]. Names of other modules are ignored.
      modules: PyTorch's module names to ours, e.g. `SUPERVISED`.

    Returns:
      `{"params": ..., "batch_stats": ...}` of float32 NumPy arrays `[E, ...]`, kernels HWIO and [in, out].

    Raises:
      ValueError: if a module is missing, or the experts do not have the same tensors.
    """
    experts: dict[int, dict] = {}
    for name, value in tensors.items():
        module, _, rest = name.partition(".")
        if module in modules and not name.endswith("num_batches_tracked"):
            index, _, rest = rest.partition(".")
            collection, path, array = _convert(rest, np.asarray(value))
            experts.setdefault(int(index), {})[(collection, modules[module], *path)] = array
    _check(experts, modules, tensors)
    paths = experts[0]
    stacked = {path: np.stack([experts[e][path] for e in range(len(experts))]) for path in paths}
    return _nest(stacked)


def check_same_structure(converted: Variables, expected: Variables) -> None:
    """Raises ValueError naming the first few leaves whose name or shape differs from `expected`'s."""

    def shapes(tree):
        return {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree.leaves_with_path(tree)}

    ours, theirs = shapes(expected), shapes(converted)
    differing = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    if differing:
        lines = [
            f"{name}: expected {ours.get(name, 'nothing')}, got {theirs.get(name, 'nothing')}" for name in differing[:5]
        ]
        raise ValueError(f"{len(differing)} tensors do not fit the model; the first: " + "; ".join(lines))


def _convert(rest, value):
    """One tensor: its collection, path and array in our layout."""
    *scopes, leaf = rest.split(".")
    path: list[str] = []
    for scope in scopes:
        if scope in _PROJECTION_LAYERS and not path:
            path.append(_PROJECTION_LAYERS[scope])
        elif scope.isdigit():
            path[-1] += f"_{scope}"
        else:
            path.append(scope)
    if leaf in _BATCH_STATS:
        return "batch_stats", (*path, _BATCH_STATS[leaf]), value.astype(np.float32)
    if leaf == "bias":
        return "params", (*path, "bias"), value.astype(np.float32)
    layouts = {4: ("kernel", (2, 3, 1, 0)), 2: ("kernel", (1, 0)), 1: ("scale", (0,))}
    name, axes = layouts[value.ndim]
    return "params", (*path, name), value.transpose(axes).astype(np.float32)


def _check(experts, modules, tensors):
    found = {path[1] for paths in experts.values() for path in paths}
    missing = [theirs for theirs, ours in modules.items() if ours not in found]
    if missing:
        first = ", ".join(sorted(tensors)[:3])
        raise ValueError(f"no tensors of the modules {missing} among {len(tensors)} (the first: {first})")
    if sorted(experts) != list(range(len(experts))) or len({frozenset(p) for p in experts.values()}) != 1:
        raise ValueError(f"the experts {sorted(experts)} do not all have the same tensors")


def _nest(flat):
    tree: Variables = {}
    for path, value in flat.items():
        node = tree
        for name in path[:-1]:
            node = node.setdefault(name, {})
        node[path[-1]] = value
    return tree
