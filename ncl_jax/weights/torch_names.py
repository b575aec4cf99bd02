"""PyTorch weights to ours and back: names, layouts and the experts' stacked axis."""

import re
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ncl_jax.models.experts import Variables

# Where the authors' programs keep their modules; the second has self-supervision, whose projection head they call
# classifier.
SUPERVISED = {"backbone": "backbone", "classifier": "classifier"}
SELF_SUPERVISED = {"backbone": "backbone", "classifier_ce": "classifier", "classifier": "projection"}
MOMENTUM_ENCODER = {"backbone_MA": "backbone", "classifier_MA": "projection"}

HEADS = ("fc.", "classifier.", "head.")  # of ImageNet's classes, in the files of torchvision and timm

_BATCH_STATS = {"running_mean": "mean", "running_var": "var"}
_PROJECTION_LAYERS = {"0": "hidden", "2": "out"}
_SHORTCUT = {"downsample_0": "downsample_conv", "downsample_1": "downsample_bn"}


def renamer(*table: tuple[str, str]) -> Callable[[str], str]:
    """What brings the names of other writers to one's: patterns and what takes their place, one after the other."""
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in table]

    def renamed(name: str) -> str:
        for pattern, replacement in compiled:
            name = pattern.sub(replacement, name)
        return name

    return renamed


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
    return nest(stacked)


def from_torchvision(tensors: Mapping[str, np.ndarray]) -> Variables:
    """Converts a state dictionary of torchvision's or timm's ResNets, without its classifier (`HEADS`).

    Returns:
      `{"params": {"backbone": ...}, "batch_stats": {"backbone": ...}}` of one expert, float32, kernels HWIO.

    Raises:
      ValueError: a tensor has a name or a number of dimensions that no such network has.
    """

    def convert(name: str, value: np.ndarray) -> tuple[str, tuple[str, ...], np.ndarray]:
        collection, path, array = _convert(name, value)
        if len(path) == 1:
            raise ValueError(f"the tensor {name} is of no network that is known here")
        return collection, path, array

    return backbone_of(tensors, HEADS, convert)


def backbone_of(
    tensors: Mapping[str, np.ndarray],
    heads: tuple[str, ...],
    convert: Callable[[str, np.ndarray], tuple[str, tuple[str, ...], np.ndarray]],
) -> Variables:
    """The variables of one network's backbone: all tensors but those of its `heads` and the counters.

    `convert` gives a tensor's collection, path and array in our layout, or raises ValueError.
    """
    flat = {}
    for name, value in tensors.items():
        if not name.startswith(heads) and not name.endswith("num_batches_tracked"):
            collection, path, array = convert(name, np.asarray(value))
            flat[(collection, "backbone", *path)] = array
    return nest(flat)


def to_torch(variables: Variables, modules: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The state dictionary of stacked variables under PyTorch's names: undoes `from_torch`.

    Args:
      variables: `{"params", "batch_stats"}`, `[E, ...]`; modules that `modules` does not name are ignored.
      modules: PyTorch's module names to ours, e.g. `SUPERVISED`.
    """
    theirs = {ours: name for name, ours in modules.items()}
    tensors: dict[str, np.ndarray] = {}
    for collection, tree in variables.items():
        for path, leaf in jax.tree.leaves_with_path(tree):
            module, *scopes, last = (entry.key for entry in path)
            for index, value in enumerate(np.asarray(leaf)) if module in theirs else ():
                prefix = ".".join([theirs[module], str(index), *(_torch_scope(scope) for scope in scopes)])
                tensors |= _torch_tensors(prefix, collection, last, value)
    return tensors


def to_torchvision(variables: Variables, expert: int, head: str) -> dict[str, np.ndarray]:
    """One expert's state dictionary in torchvision's names, with `head` for the classifier: `fc` of a linear one."""
    names = {"backbone": "backbone", head: "classifier"}
    one = jax.tree.map(lambda leaf: np.asarray(leaf)[expert : expert + 1], variables)
    found = to_torch(one, names)
    return {name.removeprefix("backbone.0.").replace(f"{head}.0.", f"{head}."): value for name, value in found.items()}


def _torch_scope(scope):
    inner = {ours: theirs for theirs, ours in _SHORTCUT.items()} | {v: k for k, v in _PROJECTION_LAYERS.items()}
    return inner.get(scope, scope).replace("_", ".")


def _torch_tensors(prefix, collection, leaf, value):
    """One array of ours as PyTorch's tensor, and the counter that every running mean of its has beside it."""
    if collection == "batch_stats":
        name = next(theirs for theirs, ours in _BATCH_STATS.items() if ours == leaf)
        counter = {f"{prefix}.num_batches_tracked": np.zeros((), np.int64)} if leaf == "mean" else {}
        return {f"{prefix}.{name}": value} | counter
    axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[value.ndim]
    return {f"{prefix}.{'bias' if leaf == 'bias' else 'weight'}": np.ascontiguousarray(value.transpose(axes))}


def left_out(tensors: Mapping[str, np.ndarray]) -> list[str]:
    """The tensors that are not the backbone's."""
    return [name for name in tensors if name.startswith(HEADS)]


def network(tensors: Mapping[str, np.ndarray]) -> tuple[str, int, int] | None:
    """The backbone, depth and width that a state dictionary of torchvision's or timm's is of; None if unknown."""
    stem = tensors.get("conv1.weight")
    blocks = {name.rpartition(".conv1.weight")[0] for name in tensors if name.endswith(".conv1.weight")}
    if stem is None or stem.ndim != 4 or not blocks:
        return None
    per_block = 3 if "layer1.0.conv3.weight" in tensors else 2
    inner = tensors.get("layer1.0.conv2.weight", stem)
    kind = "resnext" if per_block == 3 and inner.ndim == 4 and inner.shape[1] < inner.shape[0] else "resnet"
    return kind if stem.shape[-1] == 7 else "cifar_resnet", per_block * len(blocks) + 2, stem.shape[0]


def check_same_structure(converted: Variables, expected: Variables) -> None:
    """Raises ValueError naming the first few leaves whose name or shape differs from `expected`'s, or that are not
    numbers with a point."""

    def shapes(tree):
        leaves = jax.tree.leaves_with_path(tree)
        return {
            jax.tree_util.keystr(path): leaf.shape if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.dtype
            for path, leaf in leaves
        }

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
            if not path:
                raise ValueError(f"the tensor {rest} is of no network that is known here")
            path[-1] = _SHORTCUT.get(f"{path[-1]}_{scope}", f"{path[-1]}_{scope}")
        else:
            path.append(scope)
    collection, last, array = tensor(rest, leaf, value)
    return collection, (*path, last), array


def tensor(name: str, leaf: str, value: np.ndarray) -> tuple[str, str, np.ndarray]:
    """PyTorch's `leaf` of a module as ours: its collection, its name and its array, float32, kernels HWIO or [in, out].

    Raises:
      ValueError: no such leaf has this number of dimensions; `name` is the whole tensor's, for the message.
    """
    if leaf in _BATCH_STATS:
        return "batch_stats", _BATCH_STATS[leaf], value.astype(np.float32)
    if leaf == "bias":
        return "params", "bias", value.astype(np.float32)
    layouts = {4: ("kernel", (2, 3, 1, 0)), 2: ("kernel", (1, 0)), 1: ("scale", (0,))}
    if value.ndim not in layouts:
        raise ValueError(f"the tensor {name} of shape {value.shape} is of no network that is known here")
    ours, axes = layouts[value.ndim]
    return "params", ours, value.transpose(axes).astype(np.float32)


def _check(experts, modules, tensors):
    found = {path[1] for paths in experts.values() for path in paths}
    missing = [theirs for theirs, ours in modules.items() if ours not in found]
    if missing:
        first = ", ".join(sorted(tensors)[:3])
        raise ValueError(f"no tensors of the modules {missing} among {len(tensors)} (the first: {first})")
    if sorted(experts) != list(range(len(experts))) or len({frozenset(p) for p in experts.values()}) != 1:
        raise ValueError(f"the experts {sorted(experts)[:20]} do not all have the same tensors")


def nest(flat: Mapping[tuple[str, ...], np.ndarray]) -> Variables:
    """Arrays by path as a tree."""
    tree: Variables = {}
    for path, value in flat.items():
        node = tree
        for name in path[:-1]:
            node = node.setdefault(name, {})
            if not isinstance(node, dict):
                raise ValueError(f"the tensor {'.'.join(path)} has a name that begins with the whole name of another")
        node[path[-1]] = value
    return tree
