"""Faults of what is written and printed: files cut short by a kill, names that steer a terminal or a spreadsheet, outputs
that cannot be written, and run directories that move, lose files or have names that no checkpoint can be saved under.

Nothing that was there is lost, and nothing half-written stands under a final name.
"""

import contextlib
import csv
import hashlib
import io
import itertools
import json
import os
import pathlib
import shutil
import signal
import sys

import harness
import jax
import numpy as np
import pytest
from harness import Fault
from PIL import Image

import ncl_jax
from ncl_jax import cli
from ncl_jax.cli import predict as predict_command
from ncl_jax.errors import CheckpointError, ConfigError, DataError, NclError, printable
from ncl_jax.export.load import description_of
from ncl_jax.runs import messages
from ncl_jax.runtime import console, files
from ncl_jax.storage import place
from ncl_jax.storage.checkpoint import Checkpoints
from ncl_jax.storage.directory import RunDir
from ncl_jax.training.steps import ModelState

ESC, BELL, OVERRIDE, ZERO_WIDTH = "\x1b[31m", "\x07", "\u202e", "\u200b"
LATIN = os.fsdecode(b"caf\xe9.png")  # a name that is not UTF-8


class Killed(BaseException):
    """Stands in for SIGKILL: nothing runs after it but what a kill would leave to run."""


# Names that are printed.

SHOWN = {
    "ok.png": "ok.png",
    "猫 собака عربي 한국어.png": "猫 собака عربي 한국어.png",
    "می\u200cخواهم": "می\u200cخواهم",
    "👩\u200d🦰": "👩\u200d🦰",
    "\xa0": "\xa0",
    "a\\b": "a\\b",
    ESC: r"\x1b[31m",
    f"a{BELL}": r"a\x07",
    "\x1b]0;title\x07": r"\x1b]0;title\x07",
    "a\nerror: b": r"a\nerror: b",
    "a\rb\tc": r"a\rb\tc",
    "\x7f\x85\x9b": r"\x7f\u0085\u009b",
    f"a{OVERRIDE}gnp.exe": r"a\u202egnp.exe",
    "\u2066\u2069\u200e\u200f\u061c": r"\u2066\u2069\u200e\u200f\u061c",
    f"ca{ZERO_WIDTH}t": r"ca\u200bt",
    "cat\u200d": r"cat\u200d",
    "\ufeffa\u2028b\u2060": r"\ufeffa\u2028b\u2060",
    "\U000e0041": r"\U000e0041",
    LATIN: r"caf\xe9.png",
}


@pytest.mark.parametrize(("name", "shown"), SHOWN.items())
def test_a_name_is_printed_so_that_it_steers_nothing(name, shown, capfd):
    assert printable(name) == shown == printable(shown)
    assert str(DataError(f"{name} is gone")) == f"{shown} is gone"
    console.say(f"{shown}\n{shown}")
    if "\n" not in name:
        console.say(f"{name}\n{name}")
        first, second, third, fourth = capfd.readouterr().out.splitlines() if "\x85" not in name else [shown] * 4
        assert first == second == third == fourth == shown


WRITTEN = {
    "ok.png": "ok.png",
    "a\\b.png": "a\\b.png",
    f"{ESC}\n.png": f"{ESC}\n.png",
    LATIN: r"caf\xe9.png",
    os.fsdecode(b"a\\caf\xe9"): r"a\\caf\xe9",
    r"caf\xe9": r"caf\\xe9",
    r"caf\\xe9": r"caf\\\\xe9",
}


def name_of(text):
    """The name that `name_text` wrote, as the documentation says."""
    if "\\x" not in text:
        return text
    parts = text.split("\\\\")
    for byte in range(0x80, 0x100):
        parts = [part.replace(f"\\x{byte:02x}", os.fsdecode(bytes([byte]))) for part in parts]
    return "\\".join(parts)


@pytest.mark.parametrize(("name", "text"), WRITTEN.items())
def test_a_name_in_a_file_is_valid_utf8_and_can_be_had_back(name, text):
    assert files.name_text(name) == text
    assert os.fsencode(name_of(text.encode("utf-8").decode("utf-8"))) == os.fsencode(name)


CELLS = {
    "cat": "cat", "a=b": "a=b", "": "", "5": "5", "-5": "-5", "+1.5": "+1.5", "'tis": "'tis",
    "=cmd|' /C calc'!A0": "'=cmd|' /C calc'!A0", "+cat": "'+cat", "-x.png": "'-x.png", "@SUM(1)": "'@SUM(1)",
    "-2+3": "'-2+3", "\tcat": "'\tcat", "\rcat": "'\rcat", "'=1": "''=1",
}  # fmt: skip


@pytest.mark.parametrize(("text", "cell"), CELLS.items())
def test_no_cell_is_a_formula(text, cell):
    file = io.StringIO(newline="")
    predict_command.csv_writer(file, 1)(
        {"file": text, "top": [{"label": text, "probability": 0.5}], "disagreement": 0.0}
    )
    row = list(csv.reader(io.StringIO(file.getvalue(), newline="")))[1]
    assert row == [cell, cell, "0.5", "0.0", ""]


# Files that are written.


@contextlib.contextmanager
def killed_at(number):
    """The n-th renaming of a file within is the moment of a kill, after which nothing is tidied up."""
    count, rename = itertools.count(1), pathlib.Path.replace

    def replace(self, target):
        if next(count) == number:
            raise Killed
        return rename(self, target)

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(pathlib.Path, "replace", replace)
        patch.setattr(pathlib.Path, "unlink", lambda *_, **__: None)
        yield


def test_a_killed_program_leaves_the_good_file(tmp_path):
    path = tmp_path / "report.html"
    files.write_text(path, "good")
    with killed_at(1):
        files.write_text(path, "new")
    assert path.read_text() == "good" and files.partial_of(path).exists()
    files.write_text(path, "newer")  # over what the killed one left
    assert path.read_text() == "newer" and list(tmp_path.iterdir()) == [path]


def test_two_programs_do_not_write_one_file_at_once(tmp_path):
    path = tmp_path / "a.csv"
    with files.writing_whole(path) as first:
        first.write("first")
        with pytest.raises(OSError, match="another process is writing"):
            files.write_text(path, "second")
        with pytest.raises(OSError, match="another process is writing"), files.writing_whole(path):
            pass
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_what_was_there(tmp_path, monkeypatch):
    def full(number):
        raise OSError(28, "No space left on device")

    path = tmp_path / "a.json"
    files.write_text(path, "good")
    path.chmod(0o600)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_together({tmp_path / "b": b"new", path: b"new"})
    assert path.read_text() == "good" and list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    files.write_text(path, "new")
    assert path.read_text() == "new" and path.stat().st_mode & 0o777 == 0o600


def test_a_link_stays_and_nothing_but_a_file_is_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there/file")
    files.write_text(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "there" / "file").read_text() == "text"
    os.mkfifo(tmp_path / "pipe")
    for other in (tmp_path / "pipe", tmp_path / "there", pathlib.Path("/dev/null")):
        with pytest.raises(OSError, match="not a file"):
            files.write_text(other, "text")
    assert pathlib.Path("/dev/null").is_char_device()
    (tmp_path / "x.partial").symlink_to(tmp_path / "there" / "file")
    with pytest.raises(OSError, match="x.partial"):
        files.write_text(tmp_path / "x", "harm")
    assert (tmp_path / "there" / "file").read_text() == "text"


@pytest.mark.parametrize(("moment", "expected"), [(1, "old"), (2, "new"), (3, "new")])
def test_an_artifact_and_its_description_are_never_mixed(moment, expected, tmp_path, monkeypatch):
    """A kill at any moment leaves a pair that loads: the old one, or the new one."""
    monkeypatch.setattr(jax.export, "deserialize", bytes)
    path = tmp_path / "model"

    def write(name):
        about = {"version": 1, "format": "stablehlo", "class_names": [name]}
        about["sha256"] = hashlib.sha256(name.encode()).hexdigest()
        files.write_together({path: name.encode(), description_of(path): json.dumps(about).encode()})

    write("old")
    with killed_at(moment):
        write("new")
    assert ncl_jax.load_exported(path).class_names == (expected,)
