"""Trains: `python -m ncl_jax.main --config=configs/quickstart.py[:ARGUMENTS] [--workdir=DIR] [--config.FIELD=VALUE]`.

Giving the same command again continues the run.
"""

import pathlib
import sys

from absl import app, flags
from ml_collections import config_flags

from ncl_jax import startup
from ncl_jax.checkpoint import CheckpointError
from ncl_jax.config import ConfigError, base_config, flatten
from ncl_jax.data.sources import DataError
from ncl_jax.train import Diverged, Interrupted, train

_CONFIG = config_flags.DEFINE_config_file("config", None, "configuration file, with its arguments after a colon")
_WORKDIR = flags.DEFINE_string("workdir", None, "the run's directory; runs/<configuration and arguments> if not given")
flags.mark_flag_as_required("config")


def run_name(config_path: str) -> str:
    """The name of a run's directory: `configs/cifar100lt.py:imbalance=50` gives `cifar100lt-imbalance=50`."""
    path, _, arguments = config_path.partition(":")
    return "-".join(filter(None, [pathlib.Path(path).stem, arguments]))


def check_arguments(argv: list[str]) -> None:
    """Raises ConfigError for a configuration file or field that does not exist, where absl shows a traceback."""
    valid = list(flatten(base_config()))
    for argument in argv[1:]:
        name, equals, value = argument.lstrip("-").partition("=")
        if name == "config" and equals and not pathlib.Path(value.partition(":")[0]).is_file():
            raise ConfigError(f"the configuration file {value.partition(':')[0]!r} does not exist")
        field = name.removeprefix("config.")
        if field != name and field not in valid:
            section = field.rpartition(".")[0]
            listed = [v for v in valid if v.rpartition(".")[0] == section] or valid
            raise ConfigError(f"unknown field {field!r}; there are: {', '.join(listed)}")


def parse_flags(argv: list[str]) -> list[str]:
    """Reads the flags; a bad configuration ends the program with one line."""
    try:
        check_arguments(argv)
        return app.parse_flags_with_usage(argv)
    except ConfigError as error:
        raise SystemExit(f"error: {error}") from None


def main(argv: list[str]) -> None:
    """The command: only reads the flags, see `train.train`."""
    if len(argv) > 1:
        raise SystemExit(f"error: unexpected arguments {argv[1:]}; fields are set by --config.FIELD=VALUE")
    startup.prepare()
    workdir = _WORKDIR.value or f"runs/{run_name(config_flags.get_config_filename(flags.FLAGS['config']))}"
    try:
        train(_CONFIG.value, workdir)
    except (ConfigError, DataError, CheckpointError, Diverged) as error:
        raise SystemExit(f"error: {error}") from None
    except Interrupted as message:
        print(message)
        sys.exit(143)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
