"""Backbones that start from known weights: a file, a run, or a model on the Hugging Face hub (docs/pretrained.md)."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
import optax

from ncl_jax.config.plan import Plan, initial_model
from ncl_jax.errors import ConfigError, one_line
from ncl_jax.runs.restore import restore
from ncl_jax.runtime.files import expand
from ncl_jax.storage.directory import RunDir
from ncl_jax.training.steps import TrainState
from ncl_jax.weights import torch_names
from ncl_jax.weights.read import digest, read_weights

HUB_FILE = "model.safetensors"


class Start(NamedTuple):
    """Weights to start from."""

    variables: Any  # {"params", "batch_stats"} of the backbone, [E, ...]; None: random ones
    record: dict  # where they came from, for the run's record
    note: str  # the same, to be shown
    teacher: Any = None  # {"params", "batch_stats"} of the ensemble that a student learns from


def load(config: ml_collections.ConfigDict, plan: Plan) -> Start | None:
    """What `model.pretrained` and `teacher.run` name, None if they name nothing.

    Raises:
      ConfigError: there is no such file, run or model on the hub, or its weights do not fit the backbone.
      DataError: the file is damaged, or holds something else than weights.
    """
    start = _backbones(config, plan) if config.model.pretrained else None
    return _with_teacher(config, plan, start) if config.teacher.run else start


def _with_teacher(config, plan, start) -> Start:
    """Adds the teacher's weights. Raises ConfigError where it knows other classes."""
    found = restore(RunDir(config.teacher.run), None)
    if found.plan.facts.class_names != plan.facts.class_names:
        raise ConfigError(f"teacher.run={config.teacher.run} was trained on other classes than those of the data")
    record = {"teacher": {"run": config.teacher.run, "step": found.step}}
    teacher = {
        kind: {name: tree[name] for name in tree if name != "projection"} for kind, tree in found.variables.items()
    }
    note = f"learning from {config.teacher.run}, step {found.step}, {config.teacher.num_experts} experts"
    if start is None:
        return Start(None, record, note, teacher)
    return Start(start.variables, start.record | record, f"{start.note}\n{note}", teacher)


def _backbones(config, plan) -> Start:
    name = config.model.pretrained
    path = expand("model.pretrained", name)
    if (path / "config.json").is_file():
        return _from_run(config, plan, path)
    file = path if path.is_file() else from_hub(name)
    tensors = read_weights(file)
    record = {"name": name, "file": file.name, "sha256": digest(file)}
    try:
        one = torch_names.from_torchvision(tensors)
    except ValueError as error:
        raise ConfigError(f"model.pretrained={name}: {error}") from error
    stacked = jax.tree.map(lambda leaf: np.stack([leaf] * config.model.num_experts), one)
    _check(config, plan, stacked, f"{name}, {torch_names.describe(tensors)}")
    left_out = sorted(key for key in tensors if key.startswith(torch_names.HEADS))
    return Start(stacked, record, _note(record, stacked, f"left out: {', '.join(left_out) or 'nothing'}"))


def from_hub(name: str) -> Path:
    """The file of a model on the Hugging Face hub, downloaded or from its cache. Raises ConfigError."""
    if name.startswith(("/", ".", "~")) or name.count("/") != 1:
        raise ConfigError(f"model.pretrained={name} is no file, no run's directory and no ORG/NAME of the hub")
    try:
        import huggingface_hub
    except ImportError as error:
        raise ConfigError(
            f"model.pretrained={name} is no file or run here, and to get it from the hub needs a package: pip install "
            '"ncl_jax[hub]", or download its model.safetensors and give the path'
        ) from error
    try:
        return Path(huggingface_hub.hf_hub_download(name, HUB_FILE))
    except Exception as error:  # of many packages below it
        raise ConfigError(
            f"model.pretrained={name} is not available from the hub ({one_line(error)}): download its {HUB_FILE} and "
            "pass the path"
        ) from error


def _from_run(config, plan, path) -> Start:
    """The backbones of a run's experts, or one of them for all."""
    found = restore(RunDir(path), None)
    expert, wanted = config.model.pretrained_expert, config.model.num_experts
    variables = {kind: {"backbone": jax.device_get(tree["backbone"])} for kind, tree in found.variables.items()}
    number = len(jax.tree.leaves(variables)[0])
    if expert >= number or (expert < 0 and number != wanted):
        raise ConfigError(
            f"model.pretrained_expert={expert}: {path} has {number} experts and model.num_experts={wanted}; give the "
            f"one that all start from, 0 to {number - 1}"
        )
    rows = np.arange(wanted) if expert < 0 else np.full(wanted, expert)
    variables = jax.tree.map(lambda leaf: np.asarray(leaf)[rows], variables)
    _check(config, plan, variables, f"{path}, a run")
    record = {"name": str(path), "step": found.step, "expert": expert}
    return Start(variables, record, _note(record, variables, "left out: the classifier"))


def _note(record, variables, left_out):
    where = ", ".join(f"{name} {value}" for name, value in record.items() if name != "name")
    return f"starting from {record['name']} ({where}): {len(jax.tree.leaves(variables))} arrays per expert; {left_out}"


def _check(config, plan, variables, what):
    """Raises ConfigError, naming the first few, where the arrays are not those of the configuration's backbone."""
    start = jax.eval_shape(lambda: initial_model(plan))
    expected = {
        kind: {"backbone": tree["backbone"]}
        for kind, tree in (("params", start.params), ("batch_stats", start.batch_stats))
    }
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
        return tree | {"backbone": _like(tree["backbone"], start.variables[kind]["backbone"])}

    encoder = optax.tree.get(state.opt_state, "encoder")
    if encoder is not None:
        state = state._replace(opt_state=optax.tree.set(state.opt_state, encoder=put(encoder, "params")))
    return state._replace(params=put(state.params, "params"), batch_stats=put(state.batch_stats, "batch_stats"))


def _like(old, new):
    """New arrays in the types and places of the old ones."""
    return jax.tree.map(lambda o, n: jax.device_put(np.asarray(n, o.dtype), o.sharding), old, new)
