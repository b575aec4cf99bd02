"""Trains one network towards a finished run's ensemble, on the same stream of images.

The student has the run's configuration with one expert, from random weights, without self-supervision; any field can be
changed, for example --config.model.depth=18 for a smaller network, or --config.model.pretrained=FILE. Its run directory
is one like any other; it does not need the teacher's once it has its first checkpoint.
"""

import argparse

from ncl_jax.cli.arguments import Parser, add_fields, add_run, set_fields
from ncl_jax.runs import next_steps
from ncl_jax.runs.distill import continued, student
from ncl_jax.runs.setup import is_first
from ncl_jax.runs.train import train
from ncl_jax.runtime import console, startup
from ncl_jax.storage.directory import RunDir


def arguments(parser: Parser) -> None:
    """The command's arguments."""
    add_run(parser, help="directory of the teacher")
    parser.add_argument("--workdir", metavar="DIR", help="directory of the student; default: the teacher's-distilled")
    parser.add_argument("--extend", type=int, default=0, metavar="N", help="see ncl-jax train")
    parser.add_argument("--tracker", default="", metavar="NAME", help="see ncl-jax train")
    add_fields(parser)


def main(args: argparse.Namespace) -> None:
    """The command."""
    workdir = RunDir(args.workdir or f"{args.run}-distilled")
    config = continued(workdir) if workdir.has_checkpoints() else student(args.run)
    set_fields(config, args.fields)
    startup.prepare()
    results = train(config, workdir.path, extend=args.extend, tracker=args.tracker)
    if is_first():
        console.say_lines(next_steps.after_training(workdir, results))
        console.say_lines(next_steps.distilled(str(args.run), str(workdir.path)))
