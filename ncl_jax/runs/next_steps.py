"""What a command ends with: what it wrote, and the next sensible commands."""

import shlex
from collections.abc import Sequence

from ncl_jax.errors import printable
from ncl_jax.storage.directory import RunDir
from ncl_jax.storage.log import read_metrics

RISE = 0.005  # of the accuracy: less than that between the last evaluations is not worth more epochs
LAST = 3  # evaluations that are looked at


def quoted(name: object) -> str:
    """A name as a shell takes it, in one line."""
    return printable(shlex.quote(str(name)))


def is_rising(accuracies: Sequence[float]) -> bool:
    """Whether the newest of a run's accuracies is the best so far, by enough over the last ones."""
    *before, newest = accuracies[-LAST:] or [0.0]
    return len(accuracies) >= LAST and newest >= max(accuracies) and newest - min(before) > RISE


def trained(run: str, epoch: int, epochs: int, accuracies: Sequence[float]) -> list[str]:
    """After training.

    Args:
      run: the run's directory.
      epoch: done, of `epochs`.
      accuracies: of the evaluations so far, in order.
    """
    name = quoted(run)
    lines = [f"page: {quoted(f'{run}/report.html')}"]
    if epoch < epochs:
        return [*lines, f"unfinished, epoch {epoch} of {epochs}: ncl-jax train --resume={name} continues the run"]
    lines.append(f"name the classes of photographs: ncl-jax predict --run={name} photo.jpg")
    if is_rising(accuracies):
        more = max(1, epochs // 5)
        lines.append(f"the accuracy was still rising: ncl-jax train --resume={name} --extend={more}")
    return [*lines, f"one file for other programs: ncl-jax export --run={name} --out=model.stablehlo"]


def after_training(directory: RunDir, results: dict) -> list[str]:
    """`trained`, of a run's directory and the content of its `results.json`."""
    evaluations = [record for record in read_metrics(directory.metrics) if record["kind"] == "evaluation"]
    accuracies = [record["ensemble"]["accuracy"] or 0.0 for record in evaluations]
    epochs = int(results["config"]["epochs"]) + directory.read_extend()
    if directory.is_finished(epochs, results["config"]["run"]["patience"]):  # perhaps early
        epochs = results["epoch"]
    return trained(str(directory.path), results["epoch"], epochs, accuracies)


def evaluated(run: str, wrote_page: bool) -> list[str]:
    """After an evaluation; `wrote_page`: with --finish."""
    if wrote_page:
        return [f"page: {quoted(f'{run}/report.html')}", f"ncl-jax train --resume={quoted(run)} continues the run"]
    return [f"the run's page: ncl-jax report {quoted(run)}"]


def predicted(unreadable: int, results: dict | None = None) -> list[str]:
    """After answers were written to a file; `results`: of the run, None where the prior was chosen or they are not
    known."""
    moved = (results or {}).get("moved", {}).get("accuracy") or 0.0
    own = (results or {}).get("ensemble", {}).get("accuracy") or 0.0
    found = ["where classes are as frequent as in training, --prior=train suits better than the default"] * (
        moved > own
    )
    files = f"{unreadable:,} file{'s' * (unreadable != 1)}"
    return [f"{files} could not be read: the column error gives the reason", *found] if unreadable else found


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
    """After a dataset was looked at; `fields`: `--config.FIELD=VALUE` that were given."""
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
