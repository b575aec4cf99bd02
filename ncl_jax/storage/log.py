"""What a run writes while it trains: console, progress bar, and writers: JSON lines, TensorBoard events."""

import contextlib
import itertools
import json
import os
import pathlib
import sys
import time
from collections.abc import Iterator

import numpy as np
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar
from tqdm import tqdm

from ncl_jax.errors import ConfigError, DataError, one_line
from ncl_jax.runtime import console, progress
from ncl_jax.runtime.files import open_regular, write_bytes, write_text
from ncl_jax.runtime.schema import Check, parse
from ncl_jax.storage import contents
from ncl_jax.storage.directory import RunDir


class Writer:
    """Takes a run's log. This one keeps nothing; each kind of log overrides what it needs."""

    def write(self, kind: str, record: dict) -> None:
        """A record, with its `step` and `epoch`."""

    def flush(self) -> None:
        """Puts everything on disk."""

    def rewrite_missing(self) -> list[pathlib.Path]:
        """Writes again what somebody deleted since it was written, where that can be; returns which files."""
        return []

    def finish(self, results: dict) -> None:
        """The content of `results.json`, of a run that has come to its end."""

    def close(self) -> None:
        """Nothing is written after this."""


class JsonLines(Writer):
    """`metrics.jsonl`: one object a line; lines after `step` are dropped, `notes` says which."""

    def __init__(self, directory: RunDir, step: int):
        self.notes = _drop_after(directory.metrics, step)
        self._path = directory.metrics
        self._written = bytearray(self._path.read_bytes() if self._path.exists() else b"")
        self._file = self._path.open("ab")

    def write(self, kind: str, record: dict) -> None:
        line = json.dumps({"kind": kind, **record}).encode() + b"\n"
        self._written += line
        self._file.write(line)
        self._file.flush()

    def rewrite_missing(self) -> list[pathlib.Path]:
        with contextlib.suppress(FileNotFoundError):
            found = self._path.stat()
            if os.path.samestat(found, os.fstat(self._file.fileno())) and found.st_size == len(self._written):
                return []
        write_bytes(self._path, bytes(self._written))
        self._file.close()
        self._file = self._path.open("ab")
        return [self._path]

    def close(self) -> None:
        self._file.close()


class TensorBoard(Writer):
    """Event files: a record's numbers as scalars `kind/name`; TensorBoard drops earlier ones after `step`."""

    def __init__(self, directory: RunDir, step: int):
        directory.events.mkdir(exist_ok=True)
        # Written here and now: the library's own thread would hang the run once the disk is full.
        self._events = EventsWriter(str(directory.events / "events"))
        self._events.write_event(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))

    def write(self, kind: str, record: dict) -> None:
        for name, value in scalars(record):
            summary = scalar(f"{kind}/{name}", value)
            self._events.write_event(Event(step=record["step"], wall_time=time.time(), summary=summary))

    def flush(self) -> None:
        self._events.flush()

    def close(self) -> None:
        self._events.close()


class RunLog:
    """Logs of a run, continued at `step`: what an interrupted run logged after it is dropped.

    Args:
      directory: of the run; the JSON lines and the TensorBoard events go there.
      step: steps done so far.
      total_steps: of the whole run.
      batch_size: images per step; the progress bar, shown on a terminal only, counts images.

    Attributes:
      notes: lines that say what was dropped.

    Raises:
      WriteError: here and in `write` and `flush`, where a file cannot be written.
    """

    def __init__(self, directory: RunDir, step: int, total_steps: int, batch_size: int):
        self._batch_size, self._directory = batch_size, directory
        with directory.writing():
            lines = JsonLines(directory, step)
            self._writers: list[Writer] = [lines, TensorBoard(directory, step)]
        self.notes = lines.notes
        self._bar = tqdm(
            total=total_steps * batch_size,
            initial=step * batch_size,
            unit=" images",
            unit_scale=True,
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
            leave=False,
        )
        self._lines = progress.Lines("training", total_steps * batch_size, step * batch_size)
        self._done = step * batch_size

    def add(self, writer: Writer) -> None:
        """Lets one more take what follows."""
        self._writers.append(writer)

    def print(self, line: str) -> None:
        """A line on the console, or several, above the progress bar."""
        with self._surviving(), self._bar.external_write_mode(file=sys.stdout):
            console.say_text(line)

    def start(self, total_steps: int) -> None:
        """Steps begin, of so many in the whole run: what came before is not in the bar's speed and time left."""
        with self._surviving():
            self._bar.total = total_steps * self._batch_size
            self._bar.unpause()

    def advance(self, steps: int, text: str, *, timed: bool = True) -> None:
        """Moves the progress bar on; steps that are not `timed` do not count in its speed and time left."""
        self._done += steps * self._batch_size
        if self._bar.disable and (line := self._lines.line(self._done)):
            console.say(f"{line} ({text})", error=True)
        with self._surviving():
            self._bar.set_postfix_str(text, refresh=False)
            if timed or self._bar.disable:
                self._bar.update(steps * self._batch_size)
            else:
                self._bar.n += steps * self._batch_size
                self._bar.initial += steps * self._batch_size
                self._bar.unpause()

    def write(self, kind: str, record: dict) -> None:
        """A record, with its `step` and `epoch`, to all logs."""
        with self._directory.writing():
            for writer in self._writers:
                writer.write(kind, record)

    def flush(self) -> None:
        """Puts everything on disk: to be called before a checkpoint, after which nothing is written again."""
        with self._directory.writing():
            for writer in self._writers:
                writer.flush()

    def rewrite_missing(self) -> list[pathlib.Path]:
        """See `Writer.rewrite_missing`."""
        with self._directory.writing():
            return [path for writer in self._writers for path in writer.rewrite_missing()]

    def finish(self, results: dict) -> None:
        """The content of `results.json`, once it is written."""
        for writer in self._writers:
            writer.finish(results)

    def close(self) -> None:
        """Closes the bar and the logs, as far as they can be."""
        for closing in (self._bar, *self._writers):
            with contextlib.suppress(OSError, ValueError):
                closing.close()

    @contextlib.contextmanager
    def _surviving(self) -> Iterator[None]:
        """The run continues without its bar where the terminal has gone."""
        try:
            yield
        except (OSError, ValueError):
            self._bar.disable = True


class SilentLog(RunLog):
    """Stands in for a `RunLog` in all processes of a run but the first: writes and shows nothing."""

    def __init__(self) -> None:
        self.notes = []

    def print(self, line: str) -> None: ...

    def start(self, total_steps: int) -> None: ...

    def advance(self, steps: int, text: str, *, timed: bool = True) -> None: ...

    def write(self, kind: str, record: dict) -> None: ...

    def flush(self) -> None: ...

    def rewrite_missing(self) -> list[pathlib.Path]:
        return []

    def finish(self, results: dict) -> None: ...

    def close(self) -> None: ...


def scalars(record: dict, prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a nested record as (path, value); lists, such as figures by class, are left to the JSON lines."""
    for name, value in record.items():
        if isinstance(value, dict):
            yield from scalars(value, f"{prefix}{name}/")
        elif name == "experts":
            for index, expert in enumerate(value):
                yield from scalars(expert, f"{prefix}expert_{index}/")
        elif isinstance(value, int | float) and np.isfinite(value):
            yield prefix + name, value


def read_metrics(path: pathlib.Path) -> list[dict]:
    """The objects of a `metrics.jsonl` that charts can show; lines that are none, cut off or damaged, are skipped.

    Raises:
      ConfigError: it is not a file that a run writes: a pipe, a folder, or larger than any log.
    """
    return _read_lines(path, contents.shown)[0]


def _read_lines(path: pathlib.Path, check: Check) -> tuple[list[dict], int]:
    """The objects, and the number of lines that are none."""
    records: list[dict] = []
    damaged = 0
    for line in _lines(path):
        try:
            record = parse(line, finite=False)
            check(record, "")
            records.append(record)
        except ValueError:
            damaged += 1
    return records, damaged


def _lines(path: pathlib.Path) -> Iterator[bytes]:
    """The lines of the file, none without it. Raises ConfigError."""
    try:
        with open_regular(path) as file:
            for number in itertools.count(1):
                line = file.readline(contents.MOST_LINE)
                if number > contents.MOST_RECORDS or file.tell() > contents.MOST_METRICS:
                    raise ValueError("it is longer than any run's log")
                if not line:
                    return
                yield line
    except FileNotFoundError:
        return
    except (OSError, ValueError, DataError) as error:
        raise ConfigError(f"{path} is not a run's log ({one_line(error)}): move it away") from error


def _drop_after(path, step):
    """Drops the lines after `step` and those that cannot be read; returns lines that say so."""
    records, damaged = _read_lines(path, contents.logged)
    if path.exists():
        write_text(path, "".join(json.dumps(r) + "\n" for r in records if r["step"] <= step))
    notes = []
    if (logged := max((r["step"] for r in records), default=0)) > step:
        notes.append(f"the log reached step {logged}: steps {step + 1} to {logged} are computed again")
    if damaged:
        notes.append(f"{damaged} lines of {path} could not be read and were skipped (cut off or damaged)")
    return notes
