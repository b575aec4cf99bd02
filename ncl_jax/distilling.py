"""The command `ncl-jax distill`: one network learns from a finished run's ensemble, on the same stream of images.

ncl-jax distill --run=DIR [--workdir=DIR-distilled] [--config.FIELD=VALUE ...]

The student has the run's configuration with one expert and without self-supervision; any field can be changed, for
example --config.model.depth=18 for a smaller network, or --config.epochs=100. Its run directory is one like any other,
and needs the teacher's no more once it has its first checkpoint.
"""

import pathlib
import sys

import ml_collections
from absl import flags

from ncl_jax import startup
from ncl_jax.config import complete, expand
from ncl_jax.errors import ConfigError
from ncl_jax.rundir import RunDir
from ncl_jax.train import train
from ncl_jax.training import help_if_asked, parse_fields

NETWORK = ("backbone", "depth", "width", "classifier", "cosine_scale", "num_experts")


def student(run: str | pathlib.Path) -> ml_collections.ConfigDict:
    """The configuration of a run's student. Raises ConfigError where there is no finished run."""
    directory = RunDir(run)
    stored = directory.read_config().to_dict()
    if directory.read_results() is None:
        raise ConfigError(f"--run={run} has no results yet: let the run end before a student learns from it")
    config = complete({name: value for name, value in stored.items() if name not in ("version", "extend")})
    config.teacher.run = str(directory.path.absolute())
    config.teacher.update({name: config.model[name] for name in NETWORK})
    config.model.update({"num_experts": 1, "pretrained": "", "pretrained_expert": -1})
    config.loss.update({"name": "distilled", "copies": 1})
    config.contrast.weight = 0.0
    return config


def main(argv: list[str]) -> None:
    """The command."""
    values = flags.FlagValues()
    flags.DEFINE_string("run", None, "the teacher's directory", flag_values=values)
    flags.DEFINE_string("workdir", None, "the student's directory", flag_values=values)
    help_if_asked(argv, __doc__ or "")
    run = next((argument.partition("=")[2] for argument in argv if argument.lstrip("-").startswith("run=")), "")
    if not run:
        raise ConfigError("--run is missing: give the directory of the run that the student learns from, --run=DIR")
    config = student(expand("--run", run))
    parse_fields(config, argv, values, "distill")
    startup.prepare()
    train(config, values.workdir or f"{run.rstrip('/')}-distilled")


if __name__ == "__main__":
    from ncl_jax import cli

    cli.run("distill", sys.argv[1:])
