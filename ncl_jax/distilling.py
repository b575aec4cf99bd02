"""The command `ncl-jax distill`: one network learns from a finished run's ensemble, on the same stream of images.

ncl-jax distill --run=DIR [--workdir=DIR-distilled] [--extend=N] [--tracker=NAME] [--config.FIELD=VALUE ...]

The student has the run's configuration with one expert, from random weights, without self-supervision; any field can be
changed, for example --config.model.depth=18 for a smaller network, or --config.model.pretrained=FILE. Its run directory
is one like any other, and needs the teacher's no more once it has its first checkpoint.
"""

import pathlib
import sys

import ml_collections
from absl import flags

from ncl_jax import build, startup
from ncl_jax.config import base_config, complete, expand
from ncl_jax.errors import ConfigError
from ncl_jax.rundir import RunDir
from ncl_jax.train import train
from ncl_jax.training import help_if_asked, parse_fields


def student(run: str | pathlib.Path) -> ml_collections.ConfigDict:
    """The configuration of a run's student. Raises ConfigError where there is no finished run."""
    directory = RunDir(run)
    config = _read(directory)
    if directory.read_results() is None:
        raise ConfigError(f"--run={run} has no results yet: let the run end before a student learns from it")
    config.teacher.run = str(directory.path.absolute())
    config.teacher.update({name: config.model[name] for name in (*build.ARCHITECTURE, "num_experts")})
    config.model.update({"num_experts": 1, "pretrained": "", "pretrained_expert": -1, "freeze": 0})
    balanced = build.prior_power(config, directory.read_facts()) < 0.5
    config.loss.update({"name": "distilled", "copies": 1, "balanced": balanced, "label_smoothing": 0.0})
    for weight in ("distill_weight", "hard_distill_weight"):  # methods without distillation have 0
        config.loss[weight] = config.loss[weight] or base_config().loss[weight]
    config.contrast.weight, config.optim.backbone_scale, config.run.expert_devices = 0.0, 1.0, 1
    return config


def _read(directory: RunDir) -> ml_collections.ConfigDict:
    """A run's configuration, without what belongs to the run alone."""
    stored = directory.read_config().to_dict()
    return complete({name: value for name, value in stored.items() if name not in ("version", "extend")})


def main(argv: list[str]) -> None:
    """The command."""
    values = flags.FlagValues()
    flags.DEFINE_string("run", None, "the teacher's directory", flag_values=values)
    flags.DEFINE_string("workdir", None, "the student's directory", flag_values=values)
    flags.DEFINE_integer("extend", 0, "see ncl-jax train", flag_values=values)
    flags.DEFINE_string("tracker", "", "see ncl-jax train", flag_values=values)
    help_if_asked(argv, __doc__ or "")
    run = _given(argv, "run")
    if not run:
        raise ConfigError("--run is missing: give the directory of the run that the student learns from, --run=DIR")
    workdir = RunDir(_given(argv, "workdir") or f"{run.rstrip('/')}-distilled")
    config = _read(workdir) if workdir.has_checkpoints() else student(expand("--run", run))
    if not config.teacher.run:
        raise ConfigError(f"--workdir={workdir} holds a run that learned from no other: give another directory")
    parse_fields(config, argv, values, "distill")
    startup.prepare()
    train(config, workdir.path, extend=values.extend, tracker=values.tracker)


def _given(argv: list[str], name: str) -> str:
    """The value of --NAME=VALUE, which decides what the fields' defaults are."""
    return next((a.partition("=")[2] for a in argv if a.lstrip("-").startswith(f"{name}=")), "")


if __name__ == "__main__":
    from ncl_jax import cli

    cli.run("distill", sys.argv[1:])
