"""Evaluation of a model on a feed, and of a run's checkpoint.

ncl-jax evaluate --run=runs/quickstart [--step=N] [--prior=train] [--temperature=val] [--shift] [--data_dir=DIR]
"""

import functools
import pathlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from ncl_jax import build, calibration, console, inputs, metrics, records, report, shifts, startup
from ncl_jax.calibration import TEMPERATURE_HELP
from ncl_jax.data import feeds
from ncl_jax.data.feeds import Feed
from ncl_jax.data.sources import Split
from ncl_jax.errors import CheckpointError, ConfigError
from ncl_jax.model import restore
from ncl_jax.predict import Predictor
from ncl_jax.priors import PRIOR_HELP
from ncl_jax.rundir import RunDir
from ncl_jax.sharding import make_mesh


def make_evaluate(predictor: Predictor, feed: Feed, mesh: Mesh) -> Callable[[Any], metrics.Evaluation]:
    """Makes `evaluate(variables) -> Evaluation` over all that a feed holds.

    Nothing waits for the results, see `feeds.over`.
    """

    def evaluate_batch(batch, variables):
        return metrics.evaluate_batch(predictor.logits(variables, batch.images[:, 0]), batch.labels, batch.valid)

    of_batches = feeds.over(feed, mesh, evaluate_batch)

    def evaluate(variables: Any) -> metrics.Evaluation:
        sums, answers = zip(*of_batches(variables), strict=True)
        return metrics.Evaluation(functools.reduce(metrics.add, sums), list(answers))

    return evaluate


def evaluate_run(
    workdir: str | pathlib.Path,
    step: int | None = None,
    data_dir: str | None = None,
    prior: str | None = None,
    temperature: str | float | None = None,
) -> dict:
    """Re-evaluates a checkpoint of a run: the figures of `metrics.summarize`, with `step` and `epoch`.

    Raises:
      ConfigError, CheckpointError: see `model.restore`, `priors.read` and `calibration.resolve`.
      DataError: the data cannot be read, or is not what the run was trained on.
    """
    return _evaluate(RunDir(workdir), step, data_dir, prior, temperature).figures


class Evaluated(NamedTuple):
    """A checkpoint's figures, and what they come from."""

    figures: dict
    progress: dict  # the run's host-side record
    answers: list[metrics.Answers]
    test: Split  # the images


def _evaluate(
    directory: RunDir,
    step: int | None,
    data_dir: str | None,
    prior: str | None = None,
    temperature: str | float | None = None,
) -> Evaluated:
    config, facts, restored = restore(directory, step)
    mesh = make_mesh(1)
    if data_dir is not None:
        config.data.dir = data_dir
    data = inputs.same_data(config, directory)
    divide = calibration.resolve(directory, config, facts, restored.variables, restored.step, None, temperature)
    adjust = build.adjustment(config, facts, prior)
    predictor = build.predictor(config, facts.num_classes, mesh, adjust=adjust, temperature=divide)
    feed = inputs.test_feed(config, data.test, facts.split, facts, mesh)
    sums, answers = make_evaluate(predictor, feed, mesh)(restored.variables)
    for line in restored.skipped:
        print(line)
    epoch = restored.step // build.steps_per_epoch(config, facts)
    figures = {"step": restored.step, "epoch": epoch, **metrics.summarize(sums, facts.groups())}
    return Evaluated(figures, restored.progress, answers, data.test)


def finish(workdir: str | pathlib.Path, data_dir: str | None = None) -> dict:
    """Writes the table and the plots of a stopped run, at its last checkpoint; training may still go on later.

    Raises:
      ConfigError, CheckpointError, DataError: see `evaluate_run`; the run is going on, or has later results.
    """
    directory = RunDir(workdir)
    config, facts = directory.read_config(), directory.read_facts()
    with directory.locked():
        figures, progress, answers, test = _evaluate(directory, None, data_dir)
        written = directory.read_results()
        if written and written["epoch"] > figures["epoch"]:
            raise CheckpointError(
                f"{directory} has results of epoch {written['epoch']}, later than its last good checkpoint, of epoch "
                f"{figures['epoch']}: they stay; ncl-jax evaluate without --finish shows that checkpoint's"
            )
        results = records.final(figures, facts, progress, records.device_name(jax.devices()[:1]), config.to_dict())
        if written and written["epoch"] == figures["epoch"]:  # only the page is new
            results |= {"device": written["device"], "versions": written.get("versions", {})}
        with directory.writing():
            report.write(directory, results, answers, test)
    return results


def main(argv: list[str]) -> None:
    """The command."""
    parser = console.Parser(prog="ncl-jax evaluate", description="Evaluates a checkpoint of a run again.")
    parser.add_argument("--run", "--workdir", type=pathlib.Path, required=True, help="directory of the run")
    parser.add_argument("--finish", action="store_true", help="also write a stopped run's table and plots")
    parser.add_argument("--step", type=console.step, help=console.STEP_HELP)
    parser.add_argument("--shift", action="store_true", help="also on long-tailed test sets, forward and backward")
    parser.add_argument("--prior", help=PRIOR_HELP)
    parser.add_argument("--temperature", help=TEMPERATURE_HELP)
    parser.add_argument("--data_dir", help="folder of the data, if it is no longer where the run found it")
    args = parser.parse_args(argv)
    if args.finish and args.step is not None:
        raise ConfigError("--finish takes the last checkpoint: leave --step out")
    if args.finish and (args.prior or args.temperature):
        raise ConfigError("--finish writes the figures as trained: leave --prior and --temperature out")
    startup.prepare()
    if args.finish:
        results = finish(args.run, args.data_dir)
    else:
        results = evaluate_run(args.run, args.step, args.data_dir, args.prior, args.temperature)
    console.say(f"{args.run}, step {results['step']} (epoch {results['epoch']})\n{report.table(results)}")
    if args.shift:
        console.say("\n" + shifts.table(results, RunDir(args.run).read_facts().class_counts))


if __name__ == "__main__":
    from ncl_jax import cli

    cli.run("evaluate", sys.argv[1:])
