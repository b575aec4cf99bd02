"""Makes a run of a checkpoint of the authors' PyTorch program.

The configuration states what the checkpoint was trained on and with. The run is then complete: it is evaluated at once,
can be loaded and exported, and ncl-jax train with the same --config, --workdir and --extend=N continues it.
"""

import argparse

from ncl_jax.cli.arguments import Parser, add_config, read_config
from ncl_jax.config import files as config_files
from ncl_jax.errors import printable
from ncl_jax.report import tables
from ncl_jax.runs import next_steps
from ncl_jax.runs.import_authors import import_checkpoint
from ncl_jax.runtime import console, startup
from ncl_jax.storage.directory import RunDir


def arguments(parser: Parser) -> None:
    """The command's arguments."""
    add_config(parser)
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="the authors' checkpoint, a .pth file")
    parser.add_argument("--workdir", metavar="DIR", help="directory of the run; default: runs/<configuration>-imported")


def main(args: argparse.Namespace) -> None:
    """The command."""
    config = read_config(args)
    startup.prepare()
    workdir = args.workdir or f"runs/{config_files.run_name(args.config)}-imported"
    results = import_checkpoint(config, args.checkpoint, workdir)
    console.say_text(f"{printable(args.checkpoint)} is now the run {printable(workdir)}\n{tables.table(results)}")
    console.say_lines(next_steps.after_training(RunDir(workdir), results))
