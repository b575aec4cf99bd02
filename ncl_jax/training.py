"""The command `ncl-jax train`.

Giving the same command again continues the run. On several hosts start it once on each, with the same --workdir on a
file system that all share, and `--distributed` where the cluster's environment names the hosts, or else
`--coordinator=HOST:PORT --num_processes=N --process_id=I`.
"""

import sys

import jax
import ml_collections
from absl import flags
from ml_collections import config_flags

from ncl_jax import config_file, startup
from ncl_jax._version import __version__
from ncl_jax.config import describe_fields, flatten
from ncl_jax.errors import ConfigError, NclError, one_line
from ncl_jax.methods import METHODS
from ncl_jax.trackers import TRACKERS
from ncl_jax.train import train


def make_flags() -> flags.FlagValues:
    """The command's flags without the fields, which the configuration file decides."""
    values = flags.FlagValues()
    default = "the run's directory; runs/<configuration and arguments> if not given"
    flags.DEFINE_string("workdir", None, default, flag_values=values)
    longer = "train this many epochs longer than the configuration says, at its last learning rate"
    flags.DEFINE_integer("extend", 0, longer, flag_values=values)
    also = f"where the log goes besides the run's directory: {', '.join(TRACKERS)}"
    flags.DEFINE_string("tracker", "", also, flag_values=values)
    together = "join the other processes that the cluster's environment names"
    flags.DEFINE_bool("distributed", False, together, flag_values=values)
    flags.DEFINE_string(
        "coordinator", None, "HOST:PORT of process 0, for a run of several processes", flag_values=values
    )
    flags.DEFINE_integer("num_processes", None, "with --coordinator: how many processes there are", flag_values=values)
    flags.DEFINE_integer("process_id", None, "with --coordinator: this process's number, from 0", flag_values=values)
    return values


def usage() -> str:
    """The text of `--help`."""
    values = make_flags()
    return "\n".join([
        "usage: ncl-jax train --config=CONFIG[:ARGUMENT=VALUE,...] [--workdir=DIR] [--config.FIELD=VALUE ...]",
        "       (python -m ncl_jax.main does the same)",
        "\n" + (__doc__ or "").partition("\n\n")[2],
        f"  --config         {', '.join(config_file.names())} (installed), or a file such as configs/cifar100lt.py",
        *(f"  --{name:<15}{values[name].help}" for name in values),
        "\nexamples:",
        "  ncl-jax train --config=quickstart",
        "  ncl-jax train --config=cifar100lt:method=nclpp,seed=1 --config.data.dir=DIR --config.optim.batch_size=128",
        "\narguments of the installed configurations: method, semantics (official, equations), epochs, seed, imbalance",
        "\nmethods:", *(f"  {name:<18}{method.description}" for name, method in METHODS.items()),
        "\nfields, with their defaults before the configuration changes them:",
        *(f"  {name} = {value}  # {comment}" for name, value, comment in describe_fields()),
    ])  # fmt: skip


def help_if_asked(argv: list[str], text: str) -> None:
    """Ends the command with an explanation where it is asked for one."""
    if {"-h", "-help", "--help", "--helpfull"} & set(argv):
        print(text)
        raise SystemExit(0)


def take_config(argv: list[str]) -> tuple[str, list[str]]:
    """The value of `--config=...` or `--config ...`, and the other arguments. Raises ConfigError without one."""
    rest, found = [], None
    arguments = iter(argv)
    for argument in arguments:
        name, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name == "config":
            found = value if equals else next(arguments, "")
        else:
            rest.append(argument)
    if not found:
        raise ConfigError("--config is missing: give --config=quickstart for example; --help shows what there is")
    return found, rest


def check_fields(argv: list[str], config: ml_collections.ConfigDict) -> None:
    """Raises ConfigError for a field that the configuration does not have, where absl shows a traceback."""
    valid = list(flatten(config))
    for argument in argv:
        name = argument.lstrip("-").partition("=")[0]
        field = name.removeprefix("config.")
        if field != name and field not in valid:
            section = field.rpartition(".")[0]
            listed = [v for v in valid if v.rpartition(".")[0] == section] or valid
            raise ConfigError(f"unknown field {field!r}; there are: {', '.join(listed)}")


def parse(argv: list[str], values: flags.FlagValues, command: str) -> tuple[str, ml_collections.ConfigDict]:
    """The configuration's name and the configuration; reads a command's other flags into `values`.

    Raises:
      ConfigError: for a bad argument.
    """
    name, rest = take_config(argv)
    config = config_file.load(name)
    parse_fields(config, rest, values, command)
    return name, config


def parse_fields(config: ml_collections.ConfigDict, rest: list[str], values: flags.FlagValues, command: str) -> None:
    """Reads fields into a configuration, and a command's other flags into `values`. Raises ConfigError."""
    check_fields(rest, config)
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=["", *rest])
        unexpected = values([f"ncl-jax {command}", *rest])[1:]
    except (flags.Error, TypeError, ValueError) as error:
        raise ConfigError(f"{' '.join(str(error).split())}; --help shows all") from error
    if unexpected:
        raise ConfigError(f"unexpected arguments {unexpected}; fields are set by --config.FIELD=VALUE")


def connect(values: flags.FlagValues) -> None:
    """Joins the run's other processes, if the flags ask for it. Raises ConfigError for a bad combination."""
    together = (values.coordinator, values.num_processes, values.process_id)
    given = [value is not None for value in together]
    if any(given) and not all(given):
        raise ConfigError("--coordinator, --num_processes and --process_id belong together: give all three")
    if not (values.distributed or all(given)):
        return
    if all(given):
        check_processes(*together)
    try:
        startup.connect(*together)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"the processes did not find each other: {one_line(error)}") from error


def check_processes(coordinator: str, num_processes: int, process_id: int) -> None:
    """Raises ConfigError for values that could only wait in vain."""
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f"--coordinator={coordinator} must be HOST:PORT of process 0, such as 10.0.0.1:1234")
    if num_processes < 1:
        raise ConfigError(f"--num_processes={num_processes} must be at least 1")
    if not 0 <= process_id < num_processes:
        raise ConfigError(f"--process_id={process_id} must be from 0 to {num_processes - 1}")


def main(argv: list[str]) -> None:
    """The command: only reads the flags, see `train.train`."""
    help_if_asked(argv, usage())
    if "--version" in argv:
        print(f"ncl-jax {__version__}")
        raise SystemExit(0)
    values = make_flags()
    name, config = parse(argv, values, "train")
    connect(values)
    startup.prepare()
    try:
        workdir = values.workdir or f"runs/{config_file.run_name(name)}"
        train(config, workdir, extend=values.extend, tracker=values.tracker)
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if isinstance(error, ValueError) and "Gloo" not in str(error):  # as which a lost connection may come on CPUs
            raise
        if "RESOURCE_EXHAUSTED" in str(error):
            raise NclError(
                f"the devices' memory is full ({one_line(error, 200)}): lower optim.batch_size, or raise "
                "optim.accumulate, which goes through a batch in parts"
            ) from error
        if jax.process_count() == 1:
            raise
        raise NclError(
            f"process {jax.process_index()}: {str(error)[:500]}. If that means that another one died: stop what is "
            "left of them and give the same command again in all; the run continues at its last checkpoint"
        ) from error


if __name__ == "__main__":
    from ncl_jax import cli

    cli.run("train", sys.argv[1:])
