"""Evaluates a checkpoint of a run again."""

import argparse
import json

from ncl_jax.cli.arguments import Parser, add_force, add_model, add_run, check_writable, new_file
from ncl_jax.errors import ConfigError, WriteError
from ncl_jax.evaluation import shifts
from ncl_jax.report import tables
from ncl_jax.runs import next_steps
from ncl_jax.runs.evaluate import evaluate_run, finish
from ncl_jax.runtime import console, startup
from ncl_jax.runtime.files import write_text
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
    parser.add_argument("--out", metavar="FILE.json", help="file for the figures, with the prior and the temperature")
    add_force(parser)
    parser.add_argument(
        "--data_dir", metavar="DIR", help="folder of the data, if it has moved since the run; of a list's paths"
    )


def main(args: argparse.Namespace) -> None:
    """The command."""
    if args.finish and args.step is not None:
        raise ConfigError("--finish takes the last checkpoint: leave --step out")
    if args.finish and (args.prior or args.temperature or args.crops != 1):
        raise ConfigError("--finish writes the figures as trained: leave --prior, --temperature and --crops out")
    if args.data and (args.finish or args.shift):
        raise ConfigError(f"--data={args.data}: --finish and --shift are for the run's own test images: leave them out")
    out = new_file("--out", args.out, args.force) if args.out else None
    if out is not None:
        check_writable("--out", out)
    startup.prepare()
    if args.finish:
        results = finish(args.run, args.data_dir)
    else:
        results = evaluate_run(
            args.run, args.step, args.data_dir, args.prior, args.temperature, data=args.data, crops=args.crops
        )
    directory = RunDir(args.run)
    counts = list(directory.read_facts().class_counts)
    about = {"class_counts": counts, "config": directory.read_config().to_dict()}
    if own := directory.read_results():  # the columns in the same order
        about["means_first"] = tables.is_unequal(own)
    shown = tables.table(results | about)
    console.say_text(f"{directory}, step {results['step']} (epoch {results['epoch']}); {used(results)}\n{shown}")
    if args.shift:
        console.say_text("\n" + shifts.table(results, counts))
    if out is not None:
        try:
            write_text(out, json.dumps(results | {"class_counts": counts}, indent=1) + "\n")
        except OSError as error:
            raise WriteError(f"--out={out} cannot be written: {error}") from error
        console.say(f"wrote {out}")
    console.say_lines(next_steps.evaluated(str(args.run), args.finish, args.data or ""))


def used(results: dict) -> str:
    """The prior and the temperature of figures, in words."""
    prior, temperature = results.get("prior"), results.get("temperature", 1.0)
    mixes = {
        None: "scores as they were trained (no --prior)",
        "train": "expecting the classes to be as frequent as in training (--prior=train)",
        "uniform": "expecting all classes to be equally frequent (--prior=uniform)",
    }
    expected = mixes.get(prior, f"expecting the classes to be as frequent as in {prior} (--prior)")
    return f"{expected}, temperature {temperature:.4g}"
