"""Trains, or continues a run that was stopped: pass the same command again.

On several hosts start it once on each, with the same --workdir on a file system that all share, and --distributed where
the cluster's environment names the hosts, or else --coordinator, --num_processes and --process_id.
"""

import argparse

import jax

from ncl_jax._version import __version__
from ncl_jax.cli.arguments import Parser, add_config, add_labels, read_config
from ncl_jax.config import files as config_files
from ncl_jax.config.fields import fields
from ncl_jax.errors import ConfigError, NclError, one_line
from ncl_jax.methods import METHODS
from ncl_jax.runs.train import train
from ncl_jax.runtime import startup
from ncl_jax.storage.trackers import TRACKERS


def arguments(parser: Parser) -> None:
    """The command's arguments."""
    add_config(parser)
    parser.add_argument(
        "--workdir", metavar="DIR", help="directory of the run; default: runs/<configuration and arguments>"
    )
    add_labels(parser)
    longer = "train N epochs longer than the configuration says, at its last learning rate"
    parser.add_argument("--extend", type=int, default=0, metavar="N", help=longer)
    kept = "also keep, for every training image, scores by heads trained without it (K folds; frozen backbone)"
    changed = "accept: continue although the data has changed, with what is there now (noted in config.json)"
    parser.add_argument("--data-changed", choices=("accept",), help=changed)
    parser.add_argument("--folds", type=int, default=0, metavar="K", help=kept)
    also = f"where the log goes besides the run's directory: {', '.join(TRACKERS)}"
    parser.add_argument("--tracker", default="", metavar="NAME", help=also)
    parser.add_argument("--version", action="version", version=f"ncl-jax {__version__}")
    hosts = parser.add_argument_group("several hosts")
    together = "join the other processes, which the cluster's environment names"
    hosts.add_argument("--distributed", action="store_true", help=together)
    hosts.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0")
    hosts.add_argument("--num_processes", type=int, metavar="N", help="with --coordinator: number of processes")
    hosts.add_argument("--process_id", type=int, metavar="I", help="with --coordinator: number of this one, from 0")
    parser.epilog = epilog()


def epilog() -> str:
    """The end of the help: examples, methods and fields."""
    listed = fields()
    return "\n".join([
        "examples:",
        "  ncl-jax train --config=quickstart",
        "  ncl-jax train --config=cifar100lt:method=nclpp,seed=1 --config.data.dir=DIR --config.optim.batch_size=128",
        "\narguments of the installed configurations: method, semantics (official, equations), epochs, seed, imbalance",
        "\nmethods:", *(f"  {name:<18}{method.description}" for name, method in METHODS.items()),
        "\nfields, with their defaults before the configuration changes them (--config.FIELD=VALUE):",
        *(f"  {field.line(name)}" for name, field in listed.items() if not field.developer),
        "\nfields for work on ncl_jax itself:",
        *(f"  {field.line(name)}" for name, field in listed.items() if field.developer),
    ])  # fmt: skip


def connect(values: argparse.Namespace) -> None:
    """Joins the run's other processes, if the flags ask for it. Raises ConfigError for a bad combination."""
    together = (values.coordinator, values.num_processes, values.process_id)
    given = [value is not None for value in together]
    if any(given) and not all(given):
        raise ConfigError("--coordinator, --num_processes and --process_id belong together: pass all three")
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


def main(args: argparse.Namespace) -> None:
    """The command: only reads the arguments, see `runs.train.train`."""
    config = read_config(args)
    startup.prepare()
    connect(args)
    try:
        workdir = args.workdir or f"runs/{config_files.run_name(args.config)}"
        accept = args.data_changed == "accept"
        train(config, workdir, extend=args.extend, tracker=args.tracker, folds=args.folds, accept_data=accept)
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
