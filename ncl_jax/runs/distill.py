"""The configuration of a student: one network that learns from a finished run's ensemble."""

import pathlib

import ml_collections

from ncl_jax.config import adapted, build
from ncl_jax.config.fields import base_config
from ncl_jax.errors import ConfigError
from ncl_jax.models import FROZEN
from ncl_jax.runs.resume import own_config
from ncl_jax.storage.directory import RunDir


def student(run: str | pathlib.Path) -> ml_collections.ConfigDict:
    """The configuration of a run's student. Raises ConfigError where there is no finished run."""
    directory = RunDir(run)
    config = own_config(directory)
    if directory.read_results() is None:
        raise ConfigError(f"--run={run} has no results yet: let the run end before a student learns from it")
    config.teacher.run = str(directory.path.absolute())
    config.teacher.update({name: config.model[name] for name in (*build.ARCHITECTURE, *adapted.FIELDS, "num_experts")})
    config.model.update({"num_experts": 1, "pretrained_expert": -1})
    frozen = build.is_frozen(config)  # then the student sees the same features
    config.model.update({"pretrained": config.teacher.run if frozen else "", "freeze": FROZEN if frozen else 0})
    balanced = build.prior_power(directory.read_config(), directory.read_facts()) < 0.5
    config.loss.update({"name": "distilled", "copies": 1, "balanced": balanced, "label_smoothing": 0.0})
    for weight in ("distill_weight", "hard_distill_weight"):  # methods without distillation have 0
        config.loss[weight] = config.loss[weight] or base_config().loss[weight]
    config.contrast.weight, config.optim.backbone_scale, config.run.expert_devices = 0.0, 1.0, 1
    return config


def continued(workdir: RunDir) -> ml_collections.ConfigDict:
    """The configuration of a student whose directory has been trained in, which runs no code that it names.

    Raises:
      ConfigError: the directory holds a run that learned from no other.
    """
    config = own_config(workdir)
    if not config.teacher.run or config.loss.name != "distilled":
        raise ConfigError(
            f"--workdir={workdir} holds a run that learned from no other (loss.name={config.loss.name!r}): choose "
            "another directory"
        )
    return config
