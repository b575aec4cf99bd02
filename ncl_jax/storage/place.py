"""Where a run's directory lies: names under which no checkpoint can be saved, directories that move in mid-run, and the
file that is locked."""

import contextlib
import os
import pathlib
import re
import stat
from typing import BinaryIO

from ncl_jax.errors import ConfigError, did_you_mean
from ncl_jax.runtime.files import UNDECODABLE

SCHEMES = ("gs", "s3", "az", "hf")  # Orbax takes /gs/... for the address gs://..., and so on
MOST_SHOWN = 5  # runs in a message
PATTERN = "*?["  # reading does without patterns


class Names:
    """The names of a run's files."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.config, self.facts = self.path / "config.json", self.path / "dataset.json"
        self.labels = self.path / "labels.csv"  # corrections, if there are any
        self.files, self.checkpoints = self.path / "files.tsv.gz", self.path / "checkpoints"
        self.skipped = self.path / "skipped.txt"  # files and rows of lists that were left out, a line each
        self.damaged = self.path / "damaged-checkpoints"
        self.class_vectors = self.path / "class_vectors.safetensors"  # of the classes' names, where there are any
        self.backbone, self.out_of_fold = self.path / "backbone.safetensors", self.path / "out_of_fold.npz"
        self.metrics, self.events = self.path / "metrics.jsonl", self.path / "tensorboard"
        self.predictions, self.report = self.path / "predictions.npz", self.path / "report.html"
        self.temperature, self.calibration = self.path / "temperature.json", self.path / "calibration.npz"
        self.known = self.path / "known.npz"
        self.results, self.curve, self.per_class = (
            self.path / name for name in ("results.json", "curve.png", "per_class.png")
        )
        self.classes, self.images = self.path / "classes.csv", self.path / "images.csv"


def check_name(path: pathlib.Path, *, reading: bool = False) -> None:
    """Raises ConfigError for a directory below which Orbax and TensorStore cannot save, or read, checkpoints."""
    if not reading and (address := re.match(r"[A-Za-z][\w+.-]+:/", str(path))):
        raise ConfigError(f"{path} is not a directory but an address ({address[0]}...): pass a directory")
    place = path.absolute()
    if reason := _reason(place, PATTERN if not reading else ""):
        raise ConfigError(f"{place} cannot hold checkpoints: {reason}. Pass another directory, or rename it")


def _reason(place: pathlib.Path, pattern: str) -> str:
    """What is wrong with an absolute path; empty where nothing is."""
    text = str(place)
    if held := [char for char in f"{pattern}\\" if char in text]:
        return f"its path holds {' and '.join(held)}, which the library for checkpoints takes for a pattern"
    if "**" in text:
        return "its path holds **, which the library for checkpoints takes for a pattern"
    if UNDECODABLE.search(text):
        return "its path is not valid UTF-8"
    if "gs:/" in f"{text}/" or place.parts[1:2] in {(scheme,) for scheme in SCHEMES}:
        return "the library for checkpoints takes its path for the address of a bucket"
    return ""


def whereabouts(held: int, path: pathlib.Path) -> pathlib.Path | None:
    """Where a directory lies now.

    Args:
      held: a file descriptor of the directory.
      path: where it was opened.

    Returns:
      `path`; another one where the directory was moved and the system tells where to, as Linux does; None where it was
      deleted.
    """
    with contextlib.suppress(OSError):
        if os.path.samestat(os.fstat(held), path.stat()):
            return path
    with contextlib.suppress(OSError):
        moved = pathlib.Path(f"/proc/self/fd/{held}").readlink()
        if os.path.samestat(os.fstat(held), moved.stat()):
            return moved
    return None


def open_lock(path: pathlib.Path) -> BinaryIO:
    """The file to lock, created if need be; it has no content. Raises OSError where something else has its name."""
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    file = os.fdopen(number, "rb")
    if not stat.S_ISREG(os.fstat(number).st_mode):
        file.close()
        raise OSError(f"{path} is not a regular file: move it away")
    return file


def near(path: pathlib.Path) -> str:
    """The run beside a path that may be meant, or which runs there are, as a part of a message."""
    with contextlib.suppress(OSError):
        runs = sorted(found.parent for found in path.parent.glob("*/config.json"))
        shown = ", ".join(map(str, runs[:MOST_SHOWN]))
        return did_you_mean(path.name, [run.name for run in runs]) or (f"; runs beside it: {shown}" if runs else "")
    return ""
