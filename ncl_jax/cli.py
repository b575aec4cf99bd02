"""The command `ncl-jax`: its subcommands, each also `python -m` of its module. One more is one line here."""

import importlib
import sys
from typing import NamedTuple

from ncl_jax._version import __version__


class Command(NamedTuple):
    """A subcommand: the module whose `main(argv)` it calls, and what it does."""

    module: str
    description: str


COMMANDS = {
    "train": Command("ncl_jax.main", "train, or continue a run"),
    "evaluate": Command("ncl_jax.evaluate", "evaluate a checkpoint of a run again"),
    "export": Command("ncl_jax.exports", "write a run's model as one file"),
    "ablate": Command("ncl_jax.ablate", "compare methods over several seeds"),
}
EXAMPLES = """examples:
  ncl-jax train --config=quickstart
  ncl-jax train --config=cifar100lt:imbalance=50,method=nclpp --config.data.dir=DIR
  ncl-jax evaluate --workdir=runs/quickstart
  ncl-jax export --run=runs/quickstart --out=quickstart.stablehlo
  ncl-jax ablate --config=quickstart --methods=ce,nil,ncl --seeds=3"""


def usage() -> str:
    """The text of `ncl-jax --help`."""
    lines = [f"  {name:<10}{command.description}" for name, command in COMMANDS.items()]
    listed = "\n".join(lines)
    return (
        "usage: ncl-jax COMMAND [ARGUMENTS]\n\nTrains classifiers on long-tailed data with NCL and NCL++.\n\n"
        f"commands (each has its own --help):\n{listed}\n\n{EXAMPLES}"
    )


def main() -> None:
    """The command; exit code 0 for help, 1 for a command that there is not."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help", "help"):
        print(usage())
    elif name == "--version":
        print(f"ncl-jax {__version__}")
    elif name in COMMANDS:
        importlib.import_module(COMMANDS[name].module).main(arguments)
    else:
        raise SystemExit(f"error: there is no command {name!r}\n{usage()}")
