"""The command `ncl-jax import`: a checkpoint of the authors' PyTorch program as a run.

ncl-jax import --checkpoint=FILE.pth --config=CONFIG [--workdir=DIR] [--config.FIELD=VALUE ...]

The configuration says what the checkpoint was trained on and with. The run then stands at its end: it is evaluated at
once, can be loaded and exported, and `ncl-jax train` with the same --config, --workdir and --extend=N goes on with it.
"""

import contextlib
import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from absl import flags

from ncl_jax import build, checks, config_file, console, convert, evaluate, inputs, report, startup, steps, weights
from ncl_jax.checkpoint import Checkpoints
from ncl_jax.config import expand
from ncl_jax.data.pipeline import Facts
from ncl_jax.errors import ConfigError
from ncl_jax.momentum import KeyQueue
from ncl_jax.rundir import RunDir
from ncl_jax.training import help_if_asked, parse


def import_checkpoint(config: ml_collections.ConfigDict, checkpoint: str | pathlib.Path, workdir: str) -> dict:
    """Makes a run's directory of a checkpoint, and returns the content of its `results.json`.

    Args:
      config: what the checkpoint was trained with.
      checkpoint: the file, see `weights.read`.
      workdir: the run's directory, which must hold no run.

    Raises:
      ConfigError: a bad value, a directory that is taken, or weights that are not those of the configuration's model.
      DataError: the file or the data cannot be read.
      WriteError, CheckpointError: the run cannot be written.
    """
    config, directory = ml_collections.ConfigDict(config.to_dict()), RunDir(workdir)
    inputs.absolute_paths(config)
    checks.validate(config)
    if directory.config.exists():
        raise ConfigError(f"{directory} holds a run already: give another --workdir")
    file = expand("--checkpoint", checkpoint)
    tensors = weights.read(file)
    data = inputs.data(config)
    checks.check_against_data(config, data.facts.num_train, data.facts.num_classes)
    state = make_state(config, data.facts, tensors, file)
    progress = {
        "seconds": 0.0, "images_per_second": [], "best_on_test": None, "config": config.to_dict() | {"extend": 0},
        "pretrained": {"name": str(file), "sha256": weights.digest(file)},
    }  # fmt: skip
    with directory.locked():
        directory.begin(config, data)
        with contextlib.closing(Checkpoints(directory.path)) as checkpoints:
            checkpoints.save(state, progress)
            checkpoints.wait()
    return evaluate.finish(directory.path)


def make_state(
    config: ml_collections.ConfigDict, facts: Facts, tensors: dict[str, np.ndarray], file: pathlib.Path
) -> steps.TrainState:
    """The state at the run's end with the checkpoint's weights, key encoders and queues. Raises ConfigError."""
    # What does not start at 0 is in the checkpoint.
    shapes = jax.eval_shape(lambda: build.initial_state(config, facts))
    blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    has_contrast = any(name.startswith("classifier_ce.") for name in tensors)
    if config.contrast.weight and not has_contrast:
        raise ConfigError(f"{file} has no self-supervision: import it with method=ncl_supervised")
    modules = dict(convert.SELF_SUPERVISED if has_contrast else convert.SUPERVISED)
    if has_contrast and not config.contrast.weight:
        del modules["classifier"]  # their name of the projection
    found = _fitting(tensors, modules, {"params": blank.params, "batch_stats": blank.batch_stats}, file)
    number = np.int32(config.epochs * build.steps_per_epoch(config, facts))
    state = blank._replace(step=number, **found, opt_state=optax.tree.set(blank.opt_state, count=number))
    if not config.contrast.weight:
        return jax.device_put(state)
    encoder = optax.tree.get(blank.opt_state, "encoder")
    keys = _fitting(tensors, convert.MOMENTUM_ENCODER, {"params": encoder}, file)["params"]
    state = state._replace(opt_state=optax.tree.set(state.opt_state, encoder=keys))
    return jax.device_put(state._replace(memory=state.memory | {"contrast": _queue(tensors, state, file)}))


def _fitting(tensors, modules, expected, file) -> Any:
    """The tensors of some modules as ours. Raises ConfigError where they are not those of the configuration."""
    try:
        found = convert.from_torch(tensors, modules)
        found = {kind: found[kind] for kind in expected}
        convert.check_same_structure(found, expected)
    except ValueError as error:
        raise ConfigError(f"{file} does not fit the configuration's model: {error}") from error
    return found


def _queue(tensors, state, file) -> KeyQueue:
    """The queues of all experts. Raises ConfigError where they are of another length or dimension."""
    wanted = state.memory["contrast"].keys.shape  # [E, Q, dim]
    try:
        keys = np.stack([tensors[f"MOCO.{e}.queue"].T for e in range(wanted[0])])
        position = tensors["MOCO.0.queue_ptr"].item()
    except KeyError as error:
        raise ConfigError(f"{file} lacks {error}") from error
    if keys.shape != wanted:
        raise ConfigError(
            f"{file} has queues of {keys.shape[1]} keys of {keys.shape[2]} numbers: set contrast.queue={keys.shape[1]} "
            f"and contrast.dim={keys.shape[2]}"
        )
    return KeyQueue(jnp.asarray(keys), jnp.int32(position))


def main(argv: list[str]) -> None:
    """The command."""
    values = flags.FlagValues()
    flags.DEFINE_string("checkpoint", None, "the authors' checkpoint", flag_values=values)
    flags.DEFINE_string("workdir", None, "the run's directory", flag_values=values)
    help_if_asked(argv, __doc__ or "")
    name, config = parse(argv, values, "import")
    if not values.checkpoint:
        raise ConfigError("--checkpoint is missing: give the file of the authors' checkpoint")
    startup.prepare()
    workdir = values.workdir or f"runs/{config_file.run_name(name)}-imported"
    results = import_checkpoint(config, values.checkpoint, workdir)
    console.say(f"{values.checkpoint} is now the run {workdir}\n{report.table(results)}")


if __name__ == "__main__":
    from ncl_jax import cli

    cli.run("import", sys.argv[1:])
