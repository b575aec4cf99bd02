"""Runs several methods over several seeds and compares them.

    ncl-jax ablate --config=quickstart --methods=ce,nil,ncl --seeds=3 [--config.FIELD=VALUE]

Every run is a process of its own with its own directory below `--workdir`; `--jobs=N` does N of them at the same time,
for small ones on a large GPU (docs/benchmarks.md says what that brings), and with `--slurm="--gpus=1 --time=4:00:00"`,
options of sbatch, all runs are one job array of Slurm. Giving the command again goes on where it was stopped; a run
that fails is reported and does not lose the others.
"""

import argparse
import math
import pathlib
import statistics
import sys

import numpy as np

from ncl_jax import config_file, console, launch, report
from ncl_jax.errors import NclError
from ncl_jax.methods import METHODS
from ncl_jax.report import comparison, plots
from ncl_jax.rundir import RunDir, write_text

BASE = "balanced_softmax"  # what a method's cost is compared with


def job(config: str, method: str, seed: int, workdir: pathlib.Path, overrides: list[str]) -> launch.Job:
    """The run of one method with one seed; done again, it goes on with it or finds it finished."""
    path, _, arguments = config.partition(":")
    arguments = ",".join(filter(None, [arguments, f"method={method}", f"seed={seed}"]))
    directory = workdir / f"{method}-{seed}"
    command = [sys.executable, "-m", "ncl_jax.main", f"--config={path}:{arguments}", f"--workdir={directory}"]
    return launch.Job(f"{method}, seed {seed}", directory, [*command, *overrides])


def table(results: dict[str, list[dict]]) -> str:
    """Markdown: a row for each method, mean ± standard deviation over seeds in %, and what a step costs.

    Args:
      results: the `results.json` contents of each method's seeds.
    """
    lines = [
        "| method | seeds | ensemble | mean single expert | many | medium | few | ECE | top-1 disagreement, all | few "
        f"| step, of {BASE} |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for method, runs in results.items():
        ensemble = [comparison.spread([r["ensemble"][key] for r in runs]) for key in ("many", "medium", "few", "ece")]
        differ = [r["disagreement"]["top1"] if r["disagreement"] else {"all": None, "few": None} for r in runs]
        cells = [
            method,
            str(len(runs)),
            comparison.spread([r["ensemble"]["accuracy"] for r in runs]),
            comparison.spread([report.mean_expert(r["experts"])["accuracy"] for r in runs]),
            *ensemble,
            *(comparison.spread([d[key] for d in differ]) for key in ("all", "few")),
            _cost(runs, results.get(BASE, [])),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cost(runs, base):
    """The time of a training step over the base method's, if both have as many experts."""
    if not runs or not base or len(runs[0]["experts"]) != len(base[0]["experts"]):
        return "-"
    speeds = [[run["images_per_second"] or math.nan for run in some] for some in (base, runs)]  # None: not trained here
    return f"{statistics.median(speeds[0]) / statistics.median(speeds[1]):.2f}"


def plot(results: dict[str, list[dict]], path: pathlib.Path) -> None:
    """Per-class test accuracy of the ensembles, mean over seeds, against the class's number of training images."""
    figure, (ax,) = plots.axes(9)
    markers = "os^vDPX*"
    for index, (method, runs) in enumerate(results.items()):
        if runs:
            accuracy = np.mean([np.asarray(r["ensemble"]["per_class"], float) for r in runs], axis=0)
            order = np.argsort(runs[0]["class_counts"])
            counts = np.asarray(runs[0]["class_counts"])[order]
            style = f"{markers[index % 8]}{'-' if index < 10 else '--'}"  # there are ten colours
            ax.plot(counts, 100 * accuracy[order], style, ms=4, lw=1, label=method)
    ax.set(
        xlabel="training images of the class", ylabel="test accuracy of the ensemble (%)", xscale="log", ylim=(-2, 102)
    )
    plots.number_ticks(ax.xaxis)
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=130)


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The arguments, and the fields to set in every run."""
    parser = console.Parser(prog="ncl-jax ablate", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="configuration file, with its arguments after a colon")
    default = ",".join(method for method in METHODS if method != "nil_full")  # the same losses as balanced_softmax
    parser.add_argument("--methods", default=default, help=f"names with commas between; {default} if not given")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ... of every method")
    parser.add_argument("--workdir", type=pathlib.Path, help="runs/ablation-<configuration> if not given")
    together = "runs at the same time, each with a log of its own, such as small ones that share a large GPU"
    parser.add_argument("--jobs", type=int, default=1, help=together)
    slurm = "hand the runs to Slurm as a job array, with these options of sbatch"
    parser.add_argument("--slurm", metavar="OPTIONS", help=slurm)
    args, overrides = parser.parse_known_args(argv)
    args.methods = args.methods.split(",")
    for name in args.methods:
        if name not in METHODS:
            parser.error(f"unknown method {name!r}; there are: {', '.join(METHODS)}")
        if args.methods.count(name) > 1:
            parser.error(f"method {name!r} is given twice in --methods")
    for override in overrides:
        if not override.startswith("--config.") or override.startswith("--config.seed"):
            parser.error(f"argument {override!r} is not --config.FIELD=VALUE of a field that all runs share")
    for name in ("seeds", "jobs"):
        if (number := getattr(args, name)) < 1:
            parser.error(f"--{name}={number} must be at least 1")
    if args.jobs > 1 and args.slurm is not None:
        parser.error(
            f"--jobs={args.jobs} is for runs on this machine, and --slurm for a cluster's: leave one of them out"
        )
    return args, overrides


def main(argv: list[str]) -> None:
    """The command. Raises NclError if a run failed, Interrupted if it was asked to stop."""
    args, overrides = parse(argv)
    config_file.load(args.config)  # a bad one is said once, not by every run
    workdir = RunDir(args.workdir or pathlib.Path("runs") / f"ablation-{config_file.run_name(args.config)}").path
    with RunDir(workdir).writing():
        workdir.mkdir(parents=True, exist_ok=True)
    launcher = launch.Here(args.jobs) if args.slurm is None else launch.Slurm(args.slurm, workdir / "slurm")
    cases = [(method, seed) for seed in range(args.seeds) for method in args.methods]
    jobs = [job(args.config, method, seed, workdir, overrides) for method, seed in cases]
    failed: list[str] = []
    results: dict[str, list[dict]] = {method: [] for method in args.methods}
    for (method, _), one, code in zip(cases, jobs, launch.run(launcher, jobs), strict=True):
        if code == 0:
            results[method].append(RunDir(one.directory).read_results() or {})
        else:
            failed.append(f"{one.name}: {'ended without an exit code' if code is None else f'exit code {code}'}")
    text = table(results)
    console.say(text)
    if failed and (workdir / "table.md").exists():
        console.say(f"\n{workdir}/table.md is left as it was, because runs failed")
    elif any(results.values()):
        with RunDir(workdir).writing():
            write_text(workdir / "table.md", text + "\n")
            plot(results, workdir / "per_class.png")
        console.say(f"\n{workdir}/table.md, {workdir}/per_class.png")
    if failed:
        raise NclError("failed: " + "; ".join(failed))


if __name__ == "__main__":
    from ncl_jax import cli

    cli.run("ablate", sys.argv[1:])
