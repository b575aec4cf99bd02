"""A checkpoint of the authors' PyTorch program as a run."""

import contextlib
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from ncl_jax.config import build, build_data, checks, choose, precision
from ncl_jax.config.fields import without_notes
from ncl_jax.config.plan import TrainingPlan, initial_state
from ncl_jax.data.holdout import RULE
from ncl_jax.errors import ConfigError
from ncl_jax.methods.momentum import KeyQueue
from ncl_jax.runs.evaluate import finish
from ncl_jax.runtime import settings
from ncl_jax.runtime.files import expand
from ncl_jax.storage import records
from ncl_jax.storage.checkpoint import Checkpoints
from ncl_jax.storage.directory import RunDir
from ncl_jax.training import steps
from ncl_jax.weights import torch_names
from ncl_jax.weights.read import digest, read_weights


@settings.holding
def import_checkpoint(config: ml_collections.ConfigDict, checkpoint: str | pathlib.Path, workdir: str) -> dict:
    """Makes a run's directory of a checkpoint, and returns the content of its `results.json`.

    Args:
      config: what the checkpoint was trained with.
      checkpoint: the file, see `read.read_weights`.
      workdir: the run's directory, which must hold no run.

    Raises:
      ConfigError: a bad value, a directory that is taken, or weights that are not those of the configuration's model.
      DataError: the file or the data cannot be read.
      WriteError, CheckpointError: the run cannot be written.
    """
    config, directory = precision.as_begun(without_notes(config), None), RunDir(workdir)
    build_data.absolute_paths(config)
    checks.validate(config)
    choose.note_method(config)
    directory.check_name()
    if directory.config.exists():
        raise ConfigError(f"{directory} holds a run already: pass another --workdir")
    file = expand("--checkpoint", checkpoint)
    tensors = read_weights(file)
    data = build_data.data(config)
    checks.check_against_data(config, data.facts.num_train, data.facts.num_classes)
    by_xla = ml_collections.ConfigDict(config.to_dict())
    by_xla.run.conv = "xla"  # nothing is computed
    plan = build.make_training_plan(by_xla, data.facts)
    state = make_state(plan, tensors, file)
    progress = records.new_progress() | {
        "config": config.to_dict() | {"extend": 0}, "pretrained": {"name": str(file), "sha256": digest(file)},
    }  # fmt: skip
    with directory.locked():
        directory.begin(config, data, {"extend": 0, "prior_power": plan.prior_power(), "split_rule": RULE})
        with contextlib.closing(Checkpoints(directory.path)) as checkpoints:
            checkpoints.save(state, progress)
            checkpoints.wait()
    return finish(directory.path)


def make_state(plan: TrainingPlan, tensors: dict[str, np.ndarray], file: pathlib.Path) -> steps.TrainState:
    """The state at the run's end with the checkpoint's weights, key encoders and queues. Raises ConfigError."""
    # What does not start at 0 is in the checkpoint.
    shapes = jax.eval_shape(lambda: initial_state(plan))
    blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    has_contrast, wants_contrast = any(name.startswith("classifier_ce.") for name in tensors), len(plan.views) > 1
    if wants_contrast and not has_contrast:
        raise ConfigError(f"{file} has no self-supervision: import it with method=ncl_supervised")
    modules = dict(torch_names.SELF_SUPERVISED if has_contrast else torch_names.SUPERVISED)
    if has_contrast and not wants_contrast:
        del modules["classifier"]  # their name of the projection
    found = _fitting(tensors, modules, {"params": blank.params, "batch_stats": blank.batch_stats}, file)
    number = np.int32(len(plan.learning_rates) * plan.steps_per_epoch)
    state = blank._replace(step=number, **found, opt_state=optax.tree.set(blank.opt_state, count=number))
    if not wants_contrast:
        return jax.device_put(state)
    encoder = optax.tree.get(blank.opt_state, "encoder")
    keys = _fitting(tensors, torch_names.MOMENTUM_ENCODER, {"params": encoder}, file)["params"]
    state = state._replace(opt_state=optax.tree.set(state.opt_state, encoder=keys))
    return jax.device_put(state._replace(memory=state.memory | {"contrast": _queue(tensors, state, file)}))


def _fitting(tensors, modules, expected, file) -> Any:
    """The tensors of some modules as ours. Raises ConfigError where they are not those of the configuration."""
    try:
        found = torch_names.from_torch(tensors, modules)
        found = {kind: found.get(kind, {}) for kind in expected}
        torch_names.check_same_structure(found, expected)
    except ValueError as error:
        raise ConfigError(f"{file} does not fit the configuration's model: {error}") from error
    return found


def _queue(tensors, state, file) -> KeyQueue:
    """The queues of all experts. Raises ConfigError where they are of another length or dimension."""
    num_experts, length, dim = state.memory["contrast"].keys.shape
    try:
        queues = [tensors[f"MOCO.{e}.queue"] for e in range(num_experts)]
        position = tensors["MOCO.0.queue_ptr"]
    except KeyError as error:
        raise ConfigError(f"{file} lacks {error}") from error
    for queue in queues:
        if queue.ndim != 2 or queue.shape != queues[0].shape:
            raise ConfigError(f"{file} has a queue of shape {queue.shape}, where all must be matrices of one shape")
    if queues[0].shape != (dim, length):
        their_dim, their_length = queues[0].shape
        raise ConfigError(
            f"{file} has queues of {their_length} keys of {their_dim} numbers: set contrast.queue={their_length} "
            f"and contrast.dim={their_dim}"
        )
    if position.size != 1 or not 0 <= position.item() < length:
        raise ConfigError(f"{file} has a MOCO.0.queue_ptr that is not a position in a queue of {length} keys")
    keys = np.stack([queue.T for queue in queues]).astype(np.float32)
    return KeyQueue(jnp.asarray(keys), jnp.int32(position.item()))
