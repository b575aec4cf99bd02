"""Evaluates a checkpoint of a run again."""

import argparse

from ncl_jax.cli.arguments import Parser, add_model, add_run
from ncl_jax.errors import ConfigError
from ncl_jax.evaluation import shifts
from ncl_jax.report import tables
from ncl_jax.runs.evaluate import evaluate_run, finish
from ncl_jax.runtime import console, startup
from ncl_jax.storage.directory import RunDir


def arguments(parser: Parser) -> None:
    """The command's arguments."""
    add_run(parser, "--workdir")
    parser.add_argument("--finish", action="store_true", help="also write a stopped run's table, plots and page")
    parser.add_argument("--shift", action="store_true", help="also on long-tailed test sets, forward and backward")
    add_model(parser)
    parser.add_argument(
        "--data", metavar="PATH", help="other images with labels: a folder of classes, or a list; nothing is written"
    )
    parser.add_argument(
        "--data_dir", metavar="DIR", help="folder of the data, if it has moved since the run; of a list's paths"
    )


def main(args: argparse.Namespace) -> None:
    """The command."""
    if args.finish and args.step is not None:
        raise ConfigError("--finish takes the last checkpoint: leave --step out")
    if args.finish and (args.prior or args.temperature):
        raise ConfigError("--finish writes the figures as trained: leave --prior and --temperature out")
    if args.data and (args.finish or args.shift):
        raise ConfigError(f"--data={args.data}: --finish and --shift are for the run's own test images: leave them out")
    startup.prepare()
    if args.finish:
        results = finish(args.run, args.data_dir)
    else:
        results = evaluate_run(args.run, args.step, args.data_dir, args.prior, args.temperature, args.data)
    console.say_text(f"{RunDir(args.run)}, step {results['step']} (epoch {results['epoch']})\n{tables.table(results)}")
    if args.shift:
        console.say_text("\n" + shifts.table(results, RunDir(args.run).read_facts().class_counts))
