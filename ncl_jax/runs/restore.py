"""A run's checkpoint, restored for use."""

import contextlib
from typing import Any, Literal, NamedTuple

import jax
import ml_collections

from ncl_jax.config import build, saved
from ncl_jax.config.crops import with_crops
from ncl_jax.config.fields import differences
from ncl_jax.config.plan import Plan, initial_model
from ncl_jax.data.dataset import Facts
from ncl_jax.errors import CheckpointError, ConfigError, one_line
from ncl_jax.models.experts import without_trunk
from ncl_jax.runs import trunk
from ncl_jax.runtime.devices import own_mesh, replicated
from ncl_jax.storage.checkpoint import Checkpoints
from ncl_jax.storage.directory import RunDir
from ncl_jax.training.steps import ModelState


class Loaded(NamedTuple):
    """A checkpoint of a run."""

    directory: RunDir
    config: ml_collections.ConfigDict
    plan: Plan
    variables: Any  # {"params", "batch_stats"}: [E, ...], and {"trunk": {"params", "batch_stats"}} of a frozen backbone
    step: int
    progress: dict  # the run's host-side record at that step
    skipped: list[str]  # a line for every later checkpoint that could not be used

    @property
    def experts(self) -> Any:
        """The experts' own variables, without a frozen backbone's."""
        return without_trunk(self.variables)


def restore(directory: RunDir, step: int | Literal["best"] | None, crops: int = 1) -> Loaded:
    """A run's checkpoint, with what its model is used with; `step` as for `load`, `crops`: see `crops.with_crops`.

    Raises:
      ConfigError: the directory holds no run, or another number of crops.
      CheckpointError: there is no checkpoint, or it is damaged.
    """
    config, facts = directory.read_config(), directory.read_facts()
    plan, target = _planned(directory, config, facts)
    cropped = with_crops(plan, crops)
    with contextlib.closing(Checkpoints(directory.path, read_only=True)) as checkpoints:
        wanted = best_step(checkpoints) if step == "best" else step
        try:
            restored = checkpoints.restore(target, wanted)
        except CheckpointError as error:
            raise CheckpointError(_contradiction(directory, config, checkpoints.peek()) + str(error)) from error
    if restored is None:
        raise CheckpointError(f"{directory} holds no checkpoint yet")
    variables = {"params": restored.state.params, "batch_stats": restored.state.batch_stats}
    if plan.trunk is not None:
        frozen = trunk.read(directory, restored.progress.get("trunk", ""), plan)
        assert plan.mesh is not None
        variables["trunk"] = jax.device_put(frozen, replicated(plan.mesh))
    return Loaded(directory, config, cropped, variables, restored.step, restored.progress, restored.skipped)


def _contradiction(directory: RunDir, config: ml_collections.ConfigDict, progress: dict | None) -> str:
    """Where `config.json` is not what the newest checkpoint was saved with: the fault may be there."""
    try:
        differing = differences(saved.read((progress or {})["config"]), config)
    except (KeyError, ValueError, TypeError, ConfigError):  # nothing that can be compared
        return ""
    if not differing:
        return ""
    return (
        f"{directory.config} is not what the newest checkpoint was saved with ({'; '.join(differing)}): restore it "
        "from a backup. Else: "
    )


def _planned(directory: RunDir, config: ml_collections.ConfigDict, facts: Facts) -> tuple[Plan, ModelState]:
    """The plan, and the shapes of its weights with their places. Raises ConfigError where there is no such model."""
    mesh = own_mesh()
    place = replicated(mesh)
    try:
        plan = build.make_plan(config, facts, mesh)
        target: ModelState = jax.eval_shape(lambda: initial_model(plan))
    except (ValueError, TypeError, ArithmeticError) as error:
        raise ConfigError(
            f"{directory.config} and {directory.facts} describe no model that can be built ({one_line(error)}): "
            "restore them from a backup"
        ) from error
    return plan, jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), target)


def best_step(checkpoints: Checkpoints) -> int:
    """The step of the checkpoint that was best on the test set. Raises CheckpointError where none was evaluated."""
    best = (checkpoints.peek() or {}).get("best")
    if not best:
        raise CheckpointError(f"{checkpoints.path} holds no checkpoint that was evaluated: leave step='best' out")
    return best["step"]
