"""What a command ends with: what it wrote, and the next sensible commands."""

import pathlib
import shlex
from collections.abc import Sequence

from ncl_jax.errors import printable
from ncl_jax.storage.directory import RunDir
from ncl_jax.storage.log import read_metrics
from ncl_jax.trust.intervals import wilson

RISE = 0.005  # of the accuracy: less than that between the last evaluations is not worth more epochs
NEGLIGIBLE = 0.01  # of the highest learning rate: epochs at less than that hardly change a model
LAST = 3  # evaluations that are looked at


def quoted(name: object) -> str:
    """A name as a shell takes it, in one line."""
    return printable(shlex.quote(str(name)))


def is_negligible(rate: float, highest: float) -> bool:
    """Whether epochs at a learning rate change next to nothing of what those at the highest one have trained."""
    return rate < NEGLIGIBLE * highest


def is_rising(accuracies: Sequence[float], images: int = 0) -> bool:
    """Whether the newest of a run's accuracies is the best so far, by enough over the last ones: by more than chance,
    where it is known of how many test images they are."""
    *before, newest = accuracies[-LAST:] or [0.0]
    least = max(RISE, newest - float(wilson(newest * images, images)[0]) if images else 0.0)
    return len(accuracies) >= LAST and newest >= max(accuracies) and newest - min(before) > least


def longer(run: str, epochs: int, rates: Sequence[float], command: Sequence[str]) -> str:
    """The command that trains a run of `epochs` for longer: an extension where its last learning rate still changes
    something, otherwise a new run whose schedule is longer. Arguments as for `trained`."""
    if rates and not is_negligible(rates[-1], max(rates)):
        return f"ncl-jax train --resume={quoted(run)} --extend={max(1, epochs // 5)}"
    words = [*command, f"--config.epochs={2 * epochs}", f"--workdir={run}-{2 * epochs}-epochs"]
    begun = " ".join(map(quoted, words))
    return f"ncl-jax train {begun}" if command else f"a new run of the same configuration with {begun}"


def trained(
    run: str,
    epoch: int,
    epochs: int,
    accuracies: Sequence[float],
    *,
    rates: Sequence[float] = (),
    images: int = 0,
    command: Sequence[str] = (),
) -> list[str]:
    """After training.

    Args:
      run: the run's directory.
      epoch: done, of `epochs`.
      accuracies: of the evaluations so far, in order.
      rates: the learning rates of the epochs, in order; none: they are not known.
      images: of the test set; 0: not known.
      command: the arguments that the run was begun with, without its directory; none: not known.
    """
    name = quoted(run)
    lines = [f"page: {quoted(f'{run}/report.html')}"]
    if epoch < epochs:
        return [*lines, f"unfinished, epoch {epoch} of {epochs}: ncl-jax train --resume={name} continues the run"]
    lines.append(f"name the classes of photographs: ncl-jax predict --run={name} photo.jpg")
    if is_rising(accuracies, images):
        lines.append(f"the accuracy was still rising: {longer(run, epochs, rates, command)}")
    return [*lines, f"one file for other programs: ncl-jax export --run={name} --out=model.stablehlo"]


def after_training(directory: RunDir, results: dict, command: Sequence[str] = ()) -> list[str]:
    """`trained`, of a run's directory, the content of its `results.json` and the arguments that it was begun with."""
    records = read_metrics(directory.metrics)
    accuracies = [record["ensemble"]["accuracy"] or 0.0 for record in records if record["kind"] == "evaluation"]
    rates = [record["learning_rate"] for record in records if record["kind"] == "train"]
    epochs = int(results["config"]["epochs"]) + directory.read_extend()
    if directory.is_finished(epochs, results["config"]["run"]["patience"]):  # perhaps early
        epochs = results["epoch"]
    images = sum(results.get("test_counts", ()))
    return trained(
        str(directory.path), results["epoch"], epochs, accuracies, rates=rates, images=images, command=command
    )


def evaluated(run: str, wrote_page: bool, data: str = "") -> list[str]:
    """After an evaluation; `wrote_page`: with --finish; `data`: the folder or list of other images that it was of."""
    if data:
        command = f"ncl-jax predict --run={quoted(run)} {quoted(data)} --out=answers.csv"
        return [f"the answer for each image: {command}"] if pathlib.Path(data).is_dir() else []
    if wrote_page:
        return [f"page: {quoted(f'{run}/report.html')}", f"ncl-jax train --resume={quoted(run)} continues the run"]
    return [f"the run's page: ncl-jax report {quoted(run)}"]


def predicted(results: dict) -> list[str]:
    """After predictions were written to a file: whether the training prior is right more often on the run's test
    images; `results`: of the run, as far as they are known, empty where the prior was chosen."""
    moved, means = results.get("moved"), results.get("class_means")
    if not moved or (moved["accuracy"] or 0) <= results["ensemble"]["accuracy"]:
        return []
    figures = ""
    if means and None not in (moved["class_mean"], means["ensemble"]["accuracy"]):
        now, mean = results["ensemble"]["accuracy"], means["ensemble"]["accuracy"]
        figures = (
            f". On the run's test images that is right for {100 * moved['accuracy']:.1f} % instead of {100 * now:.1f} "
            f"%, as a mean of classes for {100 * moved['class_mean']:.1f} % instead of {100 * mean:.1f} %"
        )
    return [
        "where the classes of these images are as unequal as those of the training images, --prior=train expects that"
        f"{figures}"
    ]


def reported(runs: Sequence[str], out: str) -> list[str]:
    """After a page was written."""
    lines = [f"page: {quoted(out)}, open it in a browser"]
    return (
        lines if len(runs) > 1 else [*lines, f"several runs side by side: ncl-jax report {quoted(runs[0])} OTHER_RUN"]
    )


def exported(out: str, form: str) -> list[str]:
    """After a model was exported as one of `formats.FORMATS`."""
    if form != "stablehlo":
        return ["the description beside it says how images are prepared and what the outputs mean"]
    return [f"use it in Python: import ncl_jax; model = ncl_jax.load_exported({printable(repr(out))})"]


def inspected(config: str, fields: Sequence[str], is_good: bool) -> list[str]:
    """After a dataset was looked at; `fields`: the arguments after `--config`, which say what is trained."""
    command = " ".join(map(quoted, [f"--config={config}", *fields]))
    return [f"train: ncl-jax train {command}" if is_good else f"fix the data, then: ncl-jax inspect {command}"]


def compared(workdir: str, methods: Sequence[str]) -> list[str]:
    """After an ablation of `methods`, with the first seed's runs."""
    runs = " ".join(quoted(f"{workdir}/{method}-0") for method in methods)
    return [f"the runs on one page: ncl-jax report {runs}" if len(methods) > 1 else f"its page: ncl-jax report {runs}"]


def distilled(teacher: str, student: str) -> list[str]:
    """After a student was trained."""
    return [f"beside its teacher: ncl-jax report {quoted(teacher)} {quoted(student)}"]


def unfinished(run: str, epoch: int, epochs: int) -> list[str]:
    """What is to be known of answers by a run that has not ended."""
    if epoch >= epochs:
        return []
    return [f"note: unfinished, epoch {epoch} of {epochs}: ncl-jax train --resume={quoted(run)} continues the run"]
