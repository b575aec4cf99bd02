"""Evaluation of a run's checkpoint, and the results of a run that was stopped."""

import pathlib
from typing import Literal, NamedTuple

import jax

from ncl_jax.config import checks
from ncl_jax.config.plan import adjustment, to_train_prior
from ncl_jax.data.dataset import Data
from ncl_jax.errors import CheckpointError
from ncl_jax.evaluation import metrics
from ncl_jax.evaluation.step import make_evaluate
from ncl_jax.runs import messages, neighbours
from ncl_jax.runs.assess import assess
from ncl_jax.runs.data import data_left, new_data, same_data
from ncl_jax.runs.restore import Loaded, restore
from ncl_jax.runs.results import write
from ncl_jax.runs.temperature import find_temperature
from ncl_jax.runs.trunk import evaluated
from ncl_jax.runtime import console, settings
from ncl_jax.storage import records
from ncl_jax.storage.directory import RunDir


@settings.holding
def evaluate_run(
    workdir: str | pathlib.Path,
    step: int | Literal["best"] | None = None,
    data_dir: str | None = None,
    prior: str | None = None,
    temperature: str | float | None = None,
    data: str | None = None,
    crops: int = 1,
) -> dict:
    """Re-evaluates a checkpoint of a run: the figures of `metrics.summarize`, with `step`, `epoch`, and the `prior` and
    `temperature` that were used; the prior None: scores as they were trained.

    Args:
      workdir: of the run; nothing is written there.
      step: of the checkpoint, as for `load.load`.
      data_dir: where the run's data is now; of `data`, the folder that a list's paths start from.
      prior: as for `load.load`.
      temperature: likewise.
      data: a folder or a list of other images with labels, see `labelled.read`; None: those of the run.
      crops: 1, or 5 whose scores are averaged.

    Raises:
      ConfigError, CheckpointError: see `restore.restore`, `priors.read` and `temperature.find_temperature`.
      DataError: none of the images that the run was tested on is there as it was; of the others a line on the console
        tells.
    """
    found = _evaluate(RunDir(workdir), step, data_dir, prior, temperature, data=data, crops=crops)
    return found.figures | {"prior": prior, "temperature": found.temperature}


class Evaluated(NamedTuple):
    """A checkpoint's figures, and what they come from."""

    figures: dict
    progress: dict  # the run's host-side record
    answers: list[metrics.Answers]
    data: Data | None  # of the run, as it was, where that was asked for
    loaded: Loaded
    temperature: float


def _evaluate(
    directory: RunDir,
    step: int | Literal["best"] | None,
    data_dir: str | None,
    prior: str | None = None,
    temperature: str | float | None = None,
    whole: bool = False,
    data: str | None = None,
    crops: int = 1,
) -> Evaluated:
    """Arguments as for `evaluate_run`; `whole`: all images of the run must be there, as they were."""
    loaded = restore(directory, step, crops)
    config, plan, facts = loaded.config, loaded.plan, loaded.plan.facts
    assert plan.mesh is not None
    checks.check_against_data(config, facts.num_train, facts.num_classes)
    if data_dir is not None and data is None:
        config.data.dir = data_dir
    own = same_data(config, directory) if whole else None
    if data is not None:
        test, notes = new_data(config, directory, data, data_dir)
    else:
        test, notes = (own.test, []) if own is not None else data_left(config, directory)
    divide = find_temperature(loaded, None, temperature)
    of_split = evaluated(plan, loaded.variables, test, facts.split, adjustment(plan, prior), divide)
    model, feed, variables = of_split
    sums, answers = make_evaluate(model, feed, plan.mesh, to_train_prior(plan, prior))(variables)
    of_files = hasattr(test.images, "names")
    for line in [*loaded.skipped, *notes, *messages.other_pixels(directory.read_pixels(), of_files)]:
        console.say(line)
    epoch = loaded.step // (config.get("steps_per_epoch") or facts.num_train // config.optim.batch_size)
    figures = {"step": loaded.step, "epoch": epoch, **metrics.summarize(sums, facts.groups())}
    return Evaluated(figures, records.new_progress() | loaded.progress, answers, own, loaded, divide)


@settings.holding
def finish(workdir: str | pathlib.Path, data_dir: str | None = None) -> dict:
    """Writes the table and the plots of a stopped run, at its last checkpoint; training can be resumed.

    Raises:
      ConfigError, CheckpointError, DataError: see `evaluate_run`; the run is being trained, or has later results.
    """
    directory = RunDir(workdir)
    config, facts = directory.read_config(), directory.read_facts()
    with directory.locked():
        figures, progress, answers, data, loaded, _ = _evaluate(directory, None, data_dir, whole=True)
        assert data is not None
        written = directory.read_results()
        if written and written["epoch"] > figures["epoch"]:
            raise CheckpointError(
                f"{directory} has results of epoch {written['epoch']}, later than its last good checkpoint, of epoch "
                f"{figures['epoch']}: they stay; ncl-jax evaluate without --finish shows that checkpoint's"
            )
        results = records.final(figures, facts, progress, records.device_name(jax.devices()[:1]), config.to_dict())
        known = {"baselines": progress.get("baselines")} | (written or {})
        for name in ("baselines", "teacher"):  # of the same features, and of another run
            if known.get(name):
                results[name] = known[name]
        if best := progress.get("best_on_val"):
            results["best_on_val"] = best | {"patience": config.run.patience}
        if written and written["epoch"] == figures["epoch"]:  # only the page is new
            results |= {"device": written["device"], "versions": written.get("versions", {})}
        with directory.writing():
            nearest = neighbours.finder(loaded.plan, loaded.variables, data)
            write(directory, results, answers, data, nearest, assess(loaded, data))
    return results
