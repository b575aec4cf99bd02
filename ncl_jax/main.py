"""Trains: `python -m ncl_jax.main --config=configs/quickstart.py[:ARGUMENTS] [--workdir=DIR] [--config.FIELD=VALUE]`.

Giving the same command again continues the run. On several hosts start it once on each, with the same --workdir on a
file system that all share, and `--distributed` where the cluster's environment names the hosts, or else
`--coordinator=HOST:PORT --num_processes=N --process_id=I`.
"""

import os
import pathlib
import sys

import jax
from absl import app, flags
from ml_collections import config_flags

from ncl_jax import startup
from ncl_jax.checkpoint import CheckpointError
from ncl_jax.config import ConfigError, base_config, flatten
from ncl_jax.data.sources import DataError
from ncl_jax.train import Diverged, Interrupted, train

_CONFIG = config_flags.DEFINE_config_file("config", None, "configuration file, with its arguments after a colon")
_WORKDIR = flags.DEFINE_string("workdir", None, "the run's directory; runs/<configuration and arguments> if not given")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "join the other processes that the cluster's environment names")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, for a run of several processes")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "with --coordinator: how many processes there are")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "with --coordinator: this process's number, from 0")
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


def connect() -> None:
    """Joins the run's other processes, if the flags ask for it; a bad combination ends the program with one line."""
    flag_values = (_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    given = [value is not None for value in flag_values]
    if any(given) and not all(given):
        raise SystemExit("error: --coordinator, --num_processes and --process_id belong together: give all three")
    if _DISTRIBUTED.value or all(given):
        try:
            startup.connect(*flag_values)
        except (ValueError, RuntimeError) as error:
            raise SystemExit(f"error: the processes did not find each other: {error}") from None


def end(message: str, code: int) -> None:
    """Ends the program with a message. One of several processes does not wait for the others, who may wait for it."""
    print(message, file=sys.stderr if code == 1 else sys.stdout, flush=True)
    if jax.process_count() > 1:
        os._exit(code)
    sys.exit(code)


def main(argv: list[str]) -> None:
    """The command: only reads the flags, see `train.train`."""
    if len(argv) > 1:
        raise SystemExit(f"error: unexpected arguments {argv[1:]}; fields are set by --config.FIELD=VALUE")
    connect()
    startup.prepare()
    workdir = _WORKDIR.value or f"runs/{run_name(config_flags.get_config_filename(flags.FLAGS['config']))}"
    try:
        train(_CONFIG.value, workdir)
    except (ConfigError, DataError, CheckpointError, Diverged) as error:
        end(f"error: {error}", 1)
    except Interrupted as message:
        end(str(message), 143)
    except KeyboardInterrupt:
        sys.exit(130)
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        end(
            f"error: process {jax.process_index()}: {str(error)[:500]}. If that means that another one died: stop what "
            "is left of them and give the same command again in all; the run continues at its last checkpoint",
            1,
        )


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
