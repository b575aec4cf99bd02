"""What a run writes while it goes on: console, progress bar, JSON lines, TensorBoard events."""

import json
import pathlib
import sys

import numpy as np
from tensorboardX import SummaryWriter
from tqdm import tqdm

from ncl_jax.rundir import RunDir, write_text


class RunLog:
    """Logs of a run, continued at `step`: what an interrupted run logged after it is dropped.

    Args:
      directory: of the run; the JSON lines and the TensorBoard events go there.
      step: steps done so far.
      total_steps: of the whole run.
      batch_size: images per step; the progress bar, shown on a terminal only, counts images.

    Attributes:
      notes: lines that say what was dropped.
    """

    def __init__(self, directory: RunDir, step: int, total_steps: int, batch_size: int):
        self._batch_size = batch_size
        logged = _drop_after(directory.metrics, step)
        self.notes: list[str] = []
        if logged > step:
            self.notes.append(f"the log reached step {logged}: steps {step + 1} to {logged} are computed again")
        self._lines = directory.metrics.open("a")
        self._events = SummaryWriter(str(directory.events), purge_step=step + 1)
        self._bar = tqdm(
            total=total_steps * batch_size,
            initial=step * batch_size,
            unit=" images",
            unit_scale=True,
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
            leave=False,
        )

    def print(self, line: str) -> None:
        """A line on the console, above the progress bar."""
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()

    def advance(self, steps: int, text: str) -> None:
        """Moves the progress bar on."""
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(steps * self._batch_size)

    def write(self, kind: str, record: dict) -> None:
        """One object a line in `metrics.jsonl`, and its numbers as TensorBoard scalars `kind/name`."""
        self._lines.write(json.dumps({"kind": kind, **record}) + "\n")
        self._lines.flush()
        for name, value in _scalars(record):
            self._events.add_scalar(f"{kind}/{name}", value, record["step"])

    def flush(self) -> None:
        """Puts everything on disk: to be called before a checkpoint, after which nothing is written again."""
        self._events.flush()

    def close(self) -> None:
        """Closes the bar and the files."""
        self._bar.close()
        self._lines.close()
        self._events.close()


class SilentLog(RunLog):
    """Stands in for a `RunLog` in all processes of a run but the first: writes and shows nothing."""

    def __init__(self) -> None:
        self.notes = []

    def print(self, line: str) -> None: ...

    def advance(self, steps: int, text: str) -> None: ...

    def write(self, kind: str, record: dict) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


def _scalars(record, prefix=""):
    """The numbers of a nested record as (path, value); lists, such as figures by class, are left to the JSON lines."""
    for name, value in record.items():
        if isinstance(value, dict):
            yield from _scalars(value, f"{prefix}{name}/")
        elif name == "experts":
            for index, expert in enumerate(value):
                yield from _scalars(expert, f"{prefix}expert_{index}/")
        elif isinstance(value, int | float) and np.isfinite(value):
            yield prefix + name, value


def read_metrics(path: pathlib.Path) -> list[dict]:
    """The objects of a `metrics.jsonl`, without a last line that a kill cut off."""
    records = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def _drop_after(path, step):
    """Drops the lines after `step`; returns the last step that had been logged."""
    records = read_metrics(path)
    if path.exists():
        write_text(path, "".join(json.dumps(r) + "\n" for r in records if r["step"] <= step))
    return max((r["step"] for r in records), default=0)
