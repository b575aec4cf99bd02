"""Backbones that start from known weights: a file, a run, or a model on the Hugging Face hub (docs/pretrained.md)."""

import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
import optax

from ncl_jax.config.plan import Plan, initial_model
from ncl_jax.errors import ConfigError, did_you_mean, one_line
from ncl_jax.evaluation.class_vectors import ClassVectors
from ncl_jax.models import shapes_of
from ncl_jax.models.named import NAMED
from ncl_jax.runs.restore import restore
from ncl_jax.runtime import extras
from ncl_jax.runtime.files import expand
from ncl_jax.storage.directory import RunDir
from ncl_jax.training.steps import TrainState
from ncl_jax.weights import names, torch_names, vit_names
from ncl_jax.weights.read import digest, read_weights

HUB_FILE = "model.safetensors"


class Start(NamedTuple):
    """Weights to start from."""

    variables: Any  # {"params", "batch_stats"} of the backbone, [E, ...]; None: random ones
    record: dict  # where they came from, for the run's record
    note: str  # the same, to be shown
    teacher: Any = None  # {"params", "batch_stats"} of the ensemble that a student learns from
    trunk: Any = None  # {"params", "batch_stats"} of the frozen backbone of all experts
    vectors: ClassVectors | None = None  # of the classes' names


def load(config: ml_collections.ConfigDict, plan: Plan) -> Start | None:
    """What `model.pretrained` and `teacher.run` name, None if they name nothing.

    Raises:
      ConfigError: there is no such file, run or model on the hub, or its weights do not fit the backbone.
      DataError: the file is damaged, or holds something else than weights.
    """
    start = _backbones(config, plan) if config.model.pretrained else None
    return _with_teacher(config, plan, start) if config.teacher.run else start


def trunk_shapes(plan: Plan) -> Any:
    """The shapes of the variables of the frozen backbone, under the name "backbone" of each kind."""
    assert plan.trunk is not None
    _, shapes = shapes_of(plan.trunk, plan.facts.image_shape)
    return {kind: {"backbone": tree} for kind, tree in shapes.items()}


def _with_teacher(config, plan, start) -> Start:
    """Adds the teacher's weights. Raises ConfigError where it knows other classes."""
    found = restore(RunDir(config.teacher.run), None)
    if found.plan.facts.class_names != plan.facts.class_names:
        raise ConfigError(f"teacher.run={config.teacher.run} was trained on other classes than those of the data")
    record = {"teacher": {"run": config.teacher.run, "step": found.step}}
    teacher = {
        kind: {name: tree[name] for name in tree if name != "projection"} for kind, tree in found.experts.items()
    }
    note = f"learning from {config.teacher.run}, step {found.step}, {config.teacher.num_experts} experts"
    if start is None:
        return Start(None, record, note, teacher)
    return start._replace(record=start.record | record, note=f"{start.note}\n{note}", teacher=teacher)


def _backbones(config, plan) -> Start:
    name = config.model.pretrained
    path = expand("model.pretrained", name)
    if (path / "config.json").is_file():
        return _from_run(config, plan, path)
    file = path if path.is_file() else find(name)
    tensors = read_weights(file)
    license = {"license": NAMED[name].license} if name in NAMED else {}
    record = {"name": name, "file": file.name, "sha256": digest(file), **license}
    try:
        one = names.from_torch(tensors)
    except ValueError as error:
        raise ConfigError(f"model.pretrained={name}: {error}") from error
    without = f"left out: {names.left_out(tensors)}"
    return _started(config, plan, one, record, f"{name}, {names.describe(tensors)}", without)


def _started(config, plan, one, record, what, without) -> Start:
    """The same weights for every expert, or for the frozen backbone of all, at the run's image size."""
    form = getattr(plan.trunk or plan.network.backbone, "form", None)
    try:
        one = vit_names.at_grid(one, plan.facts.image_shape[0] // form.patch) if form else one
    except ValueError as error:
        raise ConfigError(f"model.pretrained={what}: {error}") from error
    if plan.trunk is not None:
        _check(config, trunk_shapes(plan), one, what)
        bare = {kind: tree["backbone"] for kind, tree in one.items()}
        return Start(None, record, _note(record, one, without), trunk=bare)
    stacked = jax.tree.map(lambda leaf: np.stack([leaf] * config.model.num_experts), one)
    _check(config, _backbone_shapes(plan), stacked, what)
    return Start(stacked, record, _note(record, stacked, without))


def find(name: str) -> Path:
    """The file of a name of `NAMED` or of the hub. Raises ConfigError where there is none, saying how to get it."""
    if name not in NAMED:
        return from_hub(name)
    named = NAMED[name]
    if not named.sha256:
        return from_hub(named.weights)
    package, _, path = named.weights.partition("/")
    found = importlib.util.find_spec(package)
    file = Path(*(found and found.submodule_search_locations) or [package]) / path
    if not file.is_file():
        raise ConfigError(f"model.pretrained={name}: its weights are not installed; {named.install} installs them")
    if (found_digest := digest(file)) != named.sha256:
        raise ConfigError(
            f"model.pretrained={name}: {file} has the SHA-256 {found_digest}, not {named.sha256}: it is damaged or of "
            f"another version; {named.install} --force-reinstall installs the right one"
        )
    return file


def from_hub(name: str) -> Path:
    """The file of a model on the Hugging Face hub, downloaded or from its cache. Raises ConfigError."""
    if name.startswith(("/", ".", "~")) or name.count("/") not in (1, 2):
        near = did_you_mean(name, NAMED)
        raise ConfigError(f"model.pretrained={name} is not a file, a run's directory or ORG/NAME of the hub{near}")
    organisation, model, *file = name.split("/")
    wanted = file[0] if file else HUB_FILE
    address = f"https://huggingface.co/{organisation}/{model}/resolve/main/{wanted}"
    try:
        import huggingface_hub
    except ImportError as error:
        raise ConfigError(
            f"model.pretrained={name} is not a file or a run, and the hub needs a package: {extras.install('hub')}; "
            f"or download {address} and pass the file: pretrained=FILE"
        ) from error
    try:
        return Path(huggingface_hub.hf_hub_download(f"{organisation}/{model}", wanted))
    except Exception as error:  # of many packages below it
        raise ConfigError(
            f"model.pretrained={name} is not available from the hub ({one_line(error)}): download {address} and pass "
            "the file: pretrained=FILE"
        ) from error


def _from_run(config, plan, path) -> Start:
    """The backbones of a run's experts, or one of them for all."""
    found = restore(RunDir(path), None)
    expert, wanted = config.model.pretrained_expert, config.model.num_experts
    record = {"name": str(path), "step": found.step, "expert": expert}
    if trunk := found.variables.pop("trunk", None):
        one = {kind: {"backbone": tree} for kind, tree in jax.device_get(trunk).items()}
        return _started(config, plan, one, record, f"{path}, a run", "left out: the heads")
    variables = {
        kind: {"backbone": jax.device_get(tree["backbone"])}
        for kind, tree in found.variables.items()
        if "backbone" in tree
    }
    number = len(jax.tree.leaves(variables)[0])
    if expert >= number or (expert < 0 and (number != wanted or plan.trunk is not None)):
        raise ConfigError(
            f"model.pretrained_expert={expert}: {path} has {number} experts and model.num_experts={wanted}; pass the "
            f"one that all start from, 0 to {number - 1}"
        )
    if expert >= 0:
        one = jax.tree.map(lambda leaf: np.asarray(leaf)[expert], variables)
        return _started(config, plan, one, record, f"{path}, a run", "left out: the classifier")
    _check(config, _backbone_shapes(plan), variables, f"{path}, a run")
    return Start(variables, record, _note(record, variables, "left out: the classifier"))


def _note(record, variables, left_out):
    if record["name"] in NAMED:  # whose file and checksum `results.json` names
        return f"starting from {record['name']} (license {record['license']})"
    where = ", ".join(f"{name} {value}" for name, value in record.items() if name != "name")
    return f"starting from {record['name']} ({where}): {len(jax.tree.leaves(variables))} arrays; {left_out}"


def _backbone_shapes(plan):
    start = jax.eval_shape(lambda: initial_model(plan))
    kinds = {"params": start.params, "batch_stats": start.batch_stats}
    return {kind: {"backbone": tree["backbone"]} for kind, tree in kinds.items() if "backbone" in tree}


def _check(config, expected, variables, what):
    """Raises ConfigError, naming the first few, where the arrays are not those of the configuration's backbone."""
    try:
        torch_names.check_same_structure(variables, expected)
    except ValueError as error:
        section = config.model
        raise ConfigError(
            f"model.pretrained={what}, does not fit model.backbone={section.backbone} model.depth={section.depth} "
            f"model.width={section.width}: {error}"
        ) from error


def apply(state: TrainState, start: Start) -> TrainState:
    """The state with the backbones, their statistics and their key encoders from `start`, where they were, and with
    the teacher's weights in the memory."""
    if start.teacher is not None:
        state = state._replace(memory={"teacher": _like(state.memory["teacher"], start.teacher)})
    if start.variables is None:
        return state

    def put(tree, kind):
        """The tree of a kind; a network without batch normalisation has no running statistics."""
        return tree | {name: _like(tree[name], found) for name, found in start.variables.get(kind, {}).items()}

    encoder = optax.tree.get(state.opt_state, "encoder")
    if encoder is not None:
        state = state._replace(opt_state=optax.tree.set(state.opt_state, encoder=put(encoder, "params")))
    return state._replace(params=put(state.params, "params"), batch_stats=put(state.batch_stats, "batch_stats"))


def _like(old, new):
    """New arrays in the types and places of the old ones."""
    return jax.tree.map(lambda o, n: jax.device_put(np.asarray(n, o.dtype), o.sharding), old, new)
