"""Writes a run's model as one file, and beside it a description of how it is used."""

import argparse

from ncl_jax.cli.arguments import Parser, add_force, add_model, add_run, check_writable, new_file
from ncl_jax.export.formats import FORMATS
from ncl_jax.export.load import description_of
from ncl_jax.runs import next_steps
from ncl_jax.runs.export import export, form_of
from ncl_jax.runtime import console, startup


def arguments(parser: Parser) -> None:
    """The command's arguments."""
    add_run(parser)
    parser.add_argument("--out", required=True, metavar="FILE", help="file to write")
    formats = f"one of: {', '.join(FORMATS)}; default: what --out ends in"
    parser.add_argument("--format", metavar="NAME", help=formats)
    parser.add_argument("--expert", type=int, metavar="N", help="one expert; default: the ensemble, or all experts")
    add_model(parser)
    add_force(parser)


def main(args: argparse.Namespace) -> None:
    """The command."""
    path = new_file("--out", args.out, args.force)
    new_file("--out", str(description_of(path)), args.force)
    check_writable("--out", path)
    form = args.format or form_of(path)
    startup.prepare()
    export(args.run, path, form, args.step, args.expert, args.prior, args.temperature, args.crops)
    console.say(f"wrote {path} and {description_of(path)}")
    console.say_lines(next_steps.exported(str(path), form))
