"""Trains, or continues a run that was stopped: pass the same command again.

On several hosts start it once on each, with the same --workdir on a file system that all share, and --distributed where
the cluster's environment names the hosts, or else --coordinator, --num_processes and --process_id.
"""

import argparse

import jax
import ml_collections

from ncl_jax._version import __version__
from ncl_jax.cli.arguments import EXAMPLE, Parser, add_config, add_labels, given, read_config, seconds, set_fields
from ncl_jax.config import files as config_files
from ncl_jax.config.fields import MAY_CHANGE, NOTES, differences, fields
from ncl_jax.errors import ConfigError, NclError, one_line
from ncl_jax.methods import METHODS
from ncl_jax.runs import durations, next_steps
from ncl_jax.runs.resume import again
from ncl_jax.runs.setup import is_first
from ncl_jax.runs.train import train
from ncl_jax.runtime import console, startup
from ncl_jax.storage.directory import RunDir
from ncl_jax.storage.trackers import TRACKERS

OFTEN = (  # fields that people change most
    "epochs", "seed", "data.skip_unreadable", "data.val_share", "data.workers", "model.num_experts", "model.classifier",
    "optim.batch_size", "optim.learning_rate", "run.patience",
)  # fmt: skip


def arguments(parser: Parser) -> None:
    """The command's arguments."""
    add_config(parser, required=False)
    parser.add_argument(
        "--workdir", metavar="DIR", help="directory of the run; default: runs/<configuration and arguments>"
    )
    again = "continue the run in DIR with its own configuration, instead of --config and --workdir"
    parser.add_argument("--resume", metavar="DIR", help=again)
    enough = "end within this time, such as 90s, 30m or 2h: a new run gets as many of its epochs as fit"
    parser.add_argument("--time", default="", metavar="DURATION", help=enough)
    add_labels(parser)
    longer = "train N epochs longer than configured, at its last learning rate"
    parser.add_argument("--extend", type=int, default=0, metavar="N", help=longer)
    kept = "also keep, for every training image, scores by heads trained without it (K folds; frozen backbone)"
    changed = "accept: continue although the data has changed, with the images found now (noted in config.json)"
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
    every = "show this help with every field of the configuration"
    parser.add_argument("--help-all", action=HelpAll, nargs=0, help=every)
    parser.epilog = epilog(whole=False)


class HelpAll(argparse.Action):
    """Prints the whole help."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        parser.epilog = epilog()
        parser.print_help()
        parser.exit()


def epilog(whole: bool = True) -> str:
    """The end of the help: examples, methods and fields, all of them or those that are changed most."""
    listed, more = fields(), "; ncl-jax train --help-all shows all" * (not whole)
    return "\n".join([
        "examples:",
        "  ncl-jax train --config=folder:dir=DIR                     own photographs, a folder for each class",
        "  ncl-jax train --config=folder:dir=DIR,image_size=64 --time=30m",
        "  ncl-jax train --config=quickstart                         small images that come with the package",
        "  ncl-jax train --resume=runs/mine                          a run that was stopped",
        "  ncl-jax train --config=cifar100lt:method=nclpp,seed=1 --config.data.dir=DIR --config.optim.batch_size=128",
        "\narguments of the installed configurations:",
        "  method, epochs, seed; semantics: official, what the authors' program computes, or equations, the papers'",
        "  of folder and list: dir, the folder of the images; image_size, the side in pixels that the network sees, 0",
        "    for what suits the images; train, val, test; imbalance; backbone, pretrained, freeze",
        "  of cifar10lt and cifar100lt: imbalance; image_size, backbone, pretrained, freeze",
        "\nmethods:", *(f"  {name:<18}{method.description}" for name, method in METHODS.items()),
        f"\nfields, with their defaults before the configuration changes them (--config.FIELD=VALUE){more}:",
        *(f"  {listed[name].line(name)}" for name in listed if name in OFTEN or (whole and not listed[name].developer)),
        *["\nfields for work on ncl_jax itself:"] * whole,
        *(f"  {field.line(name)}" for name, field in listed.items() if field.developer and whole),
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


def begun(args: argparse.Namespace) -> tuple[ml_collections.ConfigDict, str]:
    """The configuration and the directory that the arguments name. Raises ConfigError."""
    if args.config is None:
        found = RunDir(args.workdir).has_begun() if args.workdir else False
        there = f"{args.workdir} holds a run: ncl-jax train --resume {args.workdir} continues it; " if found else ""
        raise ConfigError(f"{there}required: --config{EXAMPLE}; ncl-jax train --help shows all")
    config, workdir = read_config(args), args.workdir or f"runs/{config_files.run_name(args.config)}"
    if not RunDir(workdir).has_begun():
        others = " ".join(map(next_steps.quoted, given(args)[1:]))
        console.say_lines(durations.faster(config, args.config, others))
    return config, workdir


def resumed(args: argparse.Namespace) -> tuple[ml_collections.ConfigDict, str]:
    """The configuration of the run in `--resume`, with the fields that may change.

    Raises ConfigError: there is no run, it is that of another command, or a field would make it another one.
    """
    for name in ("config", "workdir", "labels"):
        if getattr(args, name):
            raise ConfigError(
                f"--resume={args.resume} has its own configuration, directory and labels: leave --{name} out, or begin "
                "a new run with --config and another --workdir"
            )
    stored = again(RunDir(args.resume))
    config = stored.copy_and_resolve_references()
    set_fields(config, args.fields)
    if differing := differences(stored, config):
        may = ", ".join(name.rstrip(".") for name in MAY_CHANGE if name.rstrip(".") not in NOTES)
        raise ConfigError(
            f"--resume={args.resume} continues the run as it is, but {'; '.join(differing)}. These may change: {may}; "
            "for anything else begin a new run with --config and another --workdir"
        )
    return config, args.resume


def main(args: argparse.Namespace) -> None:
    """The command: only reads the arguments, see `runs.train.train`."""
    limit = seconds("--time", args.time) if args.time else 0.0
    config, workdir = resumed(args) if args.resume is not None else begun(args)
    startup.prepare()
    connect(args)
    try:
        accept = args.data_changed == "accept"
        results = train(
            config, workdir, extend=args.extend, tracker=args.tracker, folds=args.folds, limit=limit, accept_data=accept
        )
        if is_first():
            console.say_lines(next_steps.after_training(RunDir(workdir), results, given(args)))
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if isinstance(error, ValueError) and "Gloo" not in str(error):  # as which a lost connection may come on CPUs
            raise
        if "RESOURCE_EXHAUSTED" in str(error):
            raise NclError(
                f"the devices' memory is full ({one_line(error, 200)}): lower optim.batch_size, or raise "
                "optim.accumulate, which processes a batch in micro-batches"
            ) from error
        if jax.process_count() == 1:
            raise
        raise NclError(
            f"process {jax.process_index()}: {str(error)[:500]}. If that means that another one died: stop what is "
            "left of them and pass the same command again in all; the run continues at its last checkpoint"
        ) from error
