"""Trains: `ncl-jax train --config=quickstart[:ARGUMENTS] [--workdir=DIR] [--config.FIELD=VALUE]`.

Giving the same command again continues the run. On several hosts start it once on each, with the same --workdir on a
file system that all share, and `--distributed` where the cluster's environment names the hosts, or else
`--coordinator=HOST:PORT --num_processes=N --process_id=I`.
"""

import os
import pathlib
import sys

import jax
from absl import flags
from ml_collections import config_flags

from ncl_jax import startup
from ncl_jax._version import __version__
from ncl_jax.config import base_config, describe_fields, flatten
from ncl_jax.errors import ConfigError, Interrupted, NclError
from ncl_jax.methods import METHODS
from ncl_jax.train import train

_CONFIG = config_flags.DEFINE_config_file("config", None, "configuration file, with its arguments after a colon")
_WORKDIR = flags.DEFINE_string("workdir", None, "the run's directory; runs/<configuration and arguments> if not given")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "join the other processes that the cluster's environment names")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, for a run of several processes")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "with --coordinator: how many processes there are")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "with --coordinator: this process's number, from 0")

CONFIGS = pathlib.Path(__file__).parent / "configs"
FLAGS = (_WORKDIR, _DISTRIBUTED, _COORDINATOR, _NUM_PROCESSES, _PROCESS_ID)


def usage() -> str:
    """The text of `--help`."""
    options = [f"  --{flag.name:<15}{flags.FLAGS[flag.name].help}" for flag in FLAGS]
    configs = ", ".join(sorted(path.stem for path in CONFIGS.glob("*.py")))
    return "\n".join([
        "usage: ncl-jax train --config=CONFIG[:ARGUMENT=VALUE,...] [--workdir=DIR] [--config.FIELD=VALUE ...]",
        "       (python -m ncl_jax.main does the same)",
        f"\n{__doc__.partition('Giving')[2] and 'Giving' + __doc__.partition('Giving')[2]}",
        f"  --config         {configs} (installed), or a file such as configs/cifar100lt.py",
        *options,
        "\narguments of the installed configurations: method, semantics (official, equations), epochs, seed, imbalance",
        "\nmethods:", *(f"  {name:<18}{method.description}" for name, method in METHODS.items()),
        "\nfields, with their defaults before the configuration changes them:",
        *(f"  {name} = {value}  # {comment}" for name, value, comment in describe_fields()),
    ])  # fmt: skip


def find_config(path: str) -> str:
    """The file of a configuration: `path` itself, or the installed one of this name; arguments after a colon stay.

    Raises:
      ConfigError: there is neither.
    """
    name, colon, arguments = path.partition(":")
    installed = CONFIGS / f"{name}.py"
    if pathlib.Path(name).is_file():
        return path
    if pathlib.Path(name).name == name and installed.is_file():
        return f"{installed}{colon}{arguments}"
    known = ", ".join(sorted(path.stem for path in CONFIGS.glob("*.py")))
    raise ConfigError(f"the configuration file {name!r} does not exist; installed are: {known}")


def run_name(config_path: str) -> str:
    """The name of a run's directory: `configs/cifar100lt.py:imbalance=50` gives `cifar100lt-imbalance=50`."""
    path, _, arguments = config_path.partition(":")
    return "-".join(filter(None, [pathlib.Path(path).stem, arguments]))


def check_field(name: str) -> None:
    """Raises ConfigError for a field that no configuration has, where absl shows a traceback."""
    valid = list(flatten(base_config()))
    if name not in valid and not name.startswith("loss.own."):
        section = name.rpartition(".")[0]
        listed = [v for v in valid if v.rpartition(".")[0] == section] or valid
        raise ConfigError(f"unknown field {name!r}; there are: {', '.join(listed)}")


def parse(argv: list[str]) -> None:
    """Reads the flags. Raises ConfigError for a bad one; ends the program for `--help` and `--version`."""
    if {"-h", "-help", "--help", "--helpfull"} & set(argv):
        print(usage())
        raise SystemExit(0)
    if "--version" in argv:
        print(f"ncl-jax {__version__}")
        raise SystemExit(0)
    arguments = []
    for argument in argv:
        name, equals, value = argument.lstrip("-").partition("=")
        if name.startswith("config."):
            check_field(name.removeprefix("config."))
        arguments.append(f"--config={find_config(value)}" if name == "config" and equals else argument)
    try:
        unexpected = flags.FLAGS(["ncl-jax train", *arguments])[1:]
    except flags.Error as error:
        raise ConfigError(f"{error}; --help shows all") from error
    if unexpected:
        raise ConfigError(f"unexpected arguments {unexpected}; fields are set by --config.FIELD=VALUE")
    if _CONFIG.value is None:
        raise ConfigError("--config is missing: give --config=quickstart, or see --help")


def connect() -> None:
    """Joins the run's other processes, if the flags ask for it. Raises ConfigError for a bad combination."""
    flag_values = (_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    given = [value is not None for value in flag_values]
    if any(given) and not all(given):
        raise ConfigError("--coordinator, --num_processes and --process_id belong together: give all three")
    if _DISTRIBUTED.value or all(given):
        try:
            startup.connect(*flag_values)
        except (ValueError, RuntimeError) as error:
            raise ConfigError(f"the processes did not find each other: {error}") from error


def end(message: str, code: int) -> None:
    """Ends the program with a message. One of several processes does not wait for the others, who may wait for it."""
    print(message, file=sys.stderr if code == 1 else sys.stdout, flush=True)
    if jax.process_count() > 1:
        os._exit(code)
    sys.exit(code)


def main(argv: list[str] | None = None) -> None:
    """The command: only reads the flags, see `train.train`."""
    try:
        parse(sys.argv[1:] if argv is None else argv)
        connect()
    except NclError as error:
        raise SystemExit(f"error: {error}") from None
    startup.prepare()
    workdir = _WORKDIR.value or f"runs/{run_name(config_flags.get_config_filename(flags.FLAGS['config']))}"
    try:
        train(_CONFIG.value, workdir)
    except Interrupted as message:
        end(str(message), 143)
    except NclError as error:
        end(f"error: {error}", 1)
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
    main()
