"""The command `ncl-jax`, also `python -m ncl_jax`: its subcommands. One more is one file and one line here.

A subcommand is a module with `arguments(parser)`, which declares what it takes, and `main(args)`, which does it. Its
docstring is its help; its `NclError`s are shown in one line.
"""

import importlib
import os
import signal
import sys
from typing import Any, NamedTuple

from ncl_jax._version import __version__
from ncl_jax.errors import ConfigError, Interrupted, NclError, did_you_mean, one_line
from ncl_jax.runtime import causes, console, memory, settings


class Command(NamedTuple):
    """A subcommand: its module, and what it does."""

    module: str
    description: str


COMMANDS = {
    "inspect": Command("ncl_jax.cli.inspect", "see what a dataset holds, and what would stop or spoil a run"),
    "train": Command("ncl_jax.cli.train", "train, or continue a run"),
    "evaluate": Command("ncl_jax.cli.evaluate", "evaluate a checkpoint of a run again"),
    "predict": Command("ncl_jax.cli.predict", "name the classes of image files"),
    "zero-shot": Command("ncl_jax.cli.zero_shot", "name the classes of image files by their names alone, untrained"),
    "report": Command("ncl_jax.cli.report", "write a page about a run, or one that compares several"),
    "export": Command("ncl_jax.cli.export", "write a run's model as one file"),
    "import": Command("ncl_jax.cli.import_authors", "make a run of a checkpoint of the authors' program"),
    "distill": Command("ncl_jax.cli.distill", "let one network learn from a finished run's ensemble"),
    "ablate": Command("ncl_jax.cli.ablate", "compare methods over several seeds"),
    "cache": Command("ncl_jax.cli.cache", "show or delete cached features"),
    "completion": Command("ncl_jax.cli.completion", "write a shell's completion of this command"),
}
EXAMPLES = """examples:
  ncl-jax inspect --config=folder:dir=DIR
  ncl-jax train --config=folder:dir=DIR
  ncl-jax train --config=quickstart
  ncl-jax train --config=cifar100lt:imbalance=50,method=nclpp --config.data.dir=DIR
  ncl-jax predict --run=runs/quickstart photo.jpg more_photos/
  ncl-jax zero-shot --backbone=clip_base photos/
  ncl-jax evaluate --run=runs/quickstart
  ncl-jax report runs/quickstart --out=report.html
  ncl-jax export --run=runs/quickstart --out=quickstart.stablehlo
  ncl-jax distill --run=runs/quickstart
  ncl-jax ablate --config=quickstart --methods=ce,nil,ncl --seeds=3"""
REPORT = (
    "This is a fault in ncl_jax itself, not in its input. Nothing that was reported as saved is lost. Please "
    "report it with the lines above, the command and the run's config.json."
)


def usage() -> str:
    """The text of `ncl-jax --help`."""
    listed = "\n".join(f"  {name:<12}{command.description}" for name, command in COMMANDS.items())
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
        run(name, arguments)
    else:
        near = did_you_mean(name, COMMANDS)
        rest = f"{near}; ncl-jax --help lists all" if near else f"\n{usage()}"
        raise SystemExit(f"error: unknown command {name!r}{rest}")


def run(name: str, arguments: list[str]) -> None:
    """Runs a subcommand: an error that the user can fix is one line and exit code 1, a signal 128 and its number."""
    memory.keep()
    console.survive_closed_streams()
    settings.keep_search_path()
    if dropped := settings.forget():
        text = f"note: {', '.join(dropped)} of the environment does not apply: what is computed must not depend on it"
        console.say(text, error=True)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _stop_at_once)
    try:
        message, code = attempt(name, arguments)
    except Exception:  # whose cause is not known
        sys.excepthook(*sys.exc_info())
        message, code = REPORT, 1
    if code:
        end(message, code)
    console.flush()


def attempt(name: str, arguments: list[str]) -> tuple[str, int]:
    """Runs a subcommand; returns what is to be said at its end, and the exit code."""
    try:
        command = _imported(COMMANDS[name].module)
        command.main(make_parser(name, command).read(arguments))
    except Interrupted as message:
        return str(message), 128 + message.number
    except NclError as error:
        return f"error: {error}", 1
    except ModuleNotFoundError as error:
        if str(error.name).startswith("ncl_jax"):
            raise
        return f"error: {error} for {sys.executable}: use the Python that ncl_jax was installed into (README)", 1
    except Exception as error:
        cause = causes.of(error)
        if cause is None:
            raise
        return f"error: {cause}", 1
    return "", 0


def _imported(module: str) -> Any:
    """A subcommand's module. Raises ConfigError for variables that JAX cannot start with."""
    try:
        return importlib.import_module(module)
    except ValueError as error:
        given = [f"{name}={value}" for name, value in os.environ.items() if name.startswith("JAX_")]
        if not given:
            raise
        raise ConfigError(f"JAX cannot start ({one_line(error)}): correct or unset {', '.join(given)}") from error


def make_parser(name: str, command: Any) -> Any:
    """The parser of a subcommand's arguments; `command` is its module."""
    from ncl_jax.cli.arguments import Parser  # not before it is known that a command runs

    parser = Parser(prog=f"ncl-jax {name}", description=command.__doc__)
    command.arguments(parser)
    return parser


def _stop_at_once(number: int, frame: object) -> None:
    """Ctrl-C while no run is active that could save its state."""
    console.tell("stopped")
    os._exit(130)


def end(message: str, code: int) -> None:
    """Ends the program with a message, at once: neither other processes of the run nor threads are waited for."""
    console.say(message, error=code == 1)
    console.flush()
    os._exit(code)
