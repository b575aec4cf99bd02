"""Trains several methods with several seeds, and compares them.

Every run is a process with its own directory below --workdir. Passing the command again continues a comparison that was
stopped; a run that fails is reported and does not lose the others.
"""

import argparse
import pathlib
import sys

from ncl_jax.cli import launch, report
from ncl_jax.cli.arguments import Parser, add_config, read_config
from ncl_jax.config import files as config_files
from ncl_jax.config.arguments import PART
from ncl_jax.errors import ConfigError, NclError
from ncl_jax.field import Field, one_of
from ncl_jax.methods import METHODS
from ncl_jax.report.ablation import plot, table
from ncl_jax.report.plots import png
from ncl_jax.runs import next_steps
from ncl_jax.runtime import console
from ncl_jax.runtime.files import valid_utf8, write_together
from ncl_jax.storage.directory import RunDir


def job(config: str, method: str, seed: int, workdir: pathlib.Path, overrides: list[str]) -> launch.Job:
    """The run of one method with one seed; the same call again resumes it, or finds it finished."""
    path, _, arguments = config.partition(":")
    arguments = ",".join(filter(None, [arguments, f"method={method}", f"seed={seed}"]))
    directory = workdir / f"{method}-{seed}"
    command = [sys.executable, "-m", "ncl_jax.main", f"--config={path}:{arguments}", f"--workdir={directory}"]
    return launch.Job(f"{method}, seed {seed}", directory, [*command, *overrides])


def arguments(parser: Parser) -> None:
    """The command's arguments."""
    add_config(parser)
    default = ",".join(METHODS)
    parser.add_argument("--methods", default=default, metavar="NAME,...", help="methods to compare; default: all")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds of every method: 0, 1, ...")
    where = "directory of the comparison; default: runs/ablation-<configuration>"
    parser.add_argument("--workdir", type=pathlib.Path, metavar="DIR", help=where)
    together = "runs at the same time, each with its own log, such as small ones that share a large GPU"
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help=together)
    slurm = "submit the runs to Slurm as a job array, with these options of sbatch"
    parser.add_argument("--slurm", metavar="OPTIONS", help=slurm)


def check(args: argparse.Namespace) -> None:
    """Raises ConfigError for arguments that do not go together."""
    for name in args.methods:
        one_of("--methods", name, METHODS)
        if args.methods.count(name) > 1:
            raise ConfigError(f"method {name!r} appears twice in --methods")
    parts = (match[1].partition("=") for match in PART.finditer(args.config.partition(":")[2]))
    if given := [name for name, equals, _ in parts if equals and name in ("method", "seed")]:
        raise ConfigError(
            f"--config={args.config}: leave {given[0]} out; --methods and --seeds say which runs there are"
        )
    for field in args.fields:
        if field.startswith("--config.seed"):
            raise ConfigError(f"argument {field!r}: every run has its own seed; use --seeds={args.seeds}")
    for name in ("seeds", "jobs"):
        Field(1, "", at_least=1, at_most=1000).check(f"--{name}", getattr(args, name))
    if args.jobs > 1 and args.slurm is not None:
        raise ConfigError(f"--jobs={args.jobs} is for runs on this machine, --slurm for a cluster's: choose one")


def main(args: argparse.Namespace) -> None:
    """The command. Raises NclError if a run failed, Interrupted if it was asked to stop."""
    args.methods = args.methods.split(",")
    check(args)
    read_config(args)  # a bad one is reported once, not by every run
    workdir = RunDir(args.workdir or pathlib.Path("runs") / f"ablation-{config_files.run_name(args.config)}").path
    RunDir(workdir).check_name()
    with RunDir(workdir).writing():
        workdir.mkdir(parents=True, exist_ok=True)
    launcher = launch.Here(args.jobs) if args.slurm is None else launch.Slurm(args.slurm, workdir / "slurm")
    cases = [(method, seed) for seed in range(args.seeds) for method in args.methods]
    jobs = [job(args.config, method, seed, workdir, args.fields) for method, seed in cases]
    failed: list[str] = []
    results: dict[str, list[dict]] = {method: [] for method in args.methods}
    finished: list[pathlib.Path] = []
    for (method, _), one, code in zip(cases, jobs, launch.run(launcher, jobs), strict=True):
        if code == 0 and (found := RunDir(one.directory).read_results()):
            results[method].append(found)
            finished.append(one.directory)
        else:
            ended = "ended without an exit code" if code is None else f"exit code {code}"
            failed.append(f"{one.name}: {ended if code != 0 else f'{one.directory} holds no results'}")
    text = table(results)
    console.say_text(text)
    if failed and (workdir / "table.md").exists():
        console.say_text(f"\n{RunDir(workdir)}/table.md is not changed, because runs failed")
    elif any(results.values()):
        with RunDir(workdir).writing():
            write_together({
                workdir / "table.md": valid_utf8(text + "\n"),
                workdir / "per_class.png": png(plot(results)),
                workdir / "report.html": valid_utf8(report.make(finished)),
            })  # fmt: skip
        console.say_text(
            "\n" + ", ".join(f"{RunDir(workdir)}/{name}" for name in ("table.md", "per_class.png", "report.html"))
        )
        console.say_lines(next_steps.compared(str(workdir), args.methods))
    if failed:
        raise NclError("failed: " + "; ".join(failed))
