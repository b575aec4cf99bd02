"""Faults of what is written and printed: files cut short by a kill, names that steer a terminal or a spreadsheet, outputs
that cannot be written, and run directories that move, lose files or have names that no checkpoint can be saved under.

Nothing that was there is lost, and nothing half-written stands under a final name.
"""

import contextlib
import csv
import gzip
import hashlib
import io
import itertools
import json
import os
import pathlib
import shutil
import signal
import sys
import time

import harness
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from harness import TRAIN, Fault
from PIL import Image

import ncl_jax
from ncl_jax import cli
from ncl_jax.config import build_data
from ncl_jax.config import files as config_files
from ncl_jax.errors import DataError, printable
from ncl_jax.export import load
from ncl_jax.export.load import description_of
from ncl_jax.runs import messages
from ncl_jax.runs.answer_files import csv_writer
from ncl_jax.runs.answers import How
from ncl_jax.runtime import console, files
from ncl_jax.storage.checkpoint import Checkpoints
from ncl_jax.storage.directory import RunDir
from ncl_jax.storage.listing import changes
from ncl_jax.storage.log import read_metrics
from ncl_jax.training.steps import TrainState

ESC, BELL, OVERRIDE, ZERO_WIDTH = "\x1b[31m", "\x07", "\u202e", "\u200b"
LATIN = os.fsdecode(b"caf\xe9.png")  # a name that is not UTF-8


class Killed(BaseException):
    """Stands in for SIGKILL: nothing runs after it but what a kill would leave to run."""


# Names that are printed.

SHOWN = {
    "ok.png": "ok.png",
    "猫 собака عربي 한국어.png": "猫 собака عربي 한국어.png",
    "می\u200cک": "می\u200cک",
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
    console.say(name)
    assert capfd.readouterr().out == f"{shown}\n"


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
    csv_writer(file, How(1))({"file": text, "top": [{"label": text, "probability": 0.5}], "disagreement": 0.0})
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


def test_lines_before_an_error_are_kept_beside(tmp_path):
    path = tmp_path / "a.csv"
    with pytest.raises(OSError, match="full"), files.writing_whole(path) as file:
        file.write("answer\n")
        raise OSError("full")
    assert files.partial_of(path).read_text() == "answer\n" and not path.exists()


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
    monkeypatch.setattr(load, "_check_program", lambda *_: None)
    path = tmp_path / "model"

    def write(name):
        about = {"version": 1, "format": "stablehlo", "class_names": [name], "image_shape": [28, 28, 3], "resize": 28}
        about["sha256"] = hashlib.sha256(name.encode()).hexdigest()
        files.write_together({path: name.encode(), description_of(path): json.dumps(about).encode()})

    write("old")
    with killed_at(moment):
        write("new")
    assert ncl_jax.load_exported(path).class_names == (expected,)


# `ncl-jax predict` and the other commands.


@pytest.fixture
def image(tmp_path):
    """An image's file."""
    Image.fromarray(np.zeros((28, 28, 3), np.uint8)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def predict(capfd, run, *arguments, stdin=None):
    """Exit code, standard output, and everything."""
    with pytest.MonkeyPatch.context() as patch:
        if stdin is not None:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        message, code = cli.attempt("predict", [f"--run={run}", "--top=1", *map(str, arguments)])
    printed, errors = capfd.readouterr()
    assert "Traceback" not in errors + message
    return code, printed, printed + errors + message


ODD = [
    "=cmd.png",
    "-x.png",
    f"a{ESC}.png",
    f"a{OVERRIDE}b.png",
    "a\nb.png",
    "a\rb.png",
    "猫.png",
    " .png",
    "~tmp.png",
    LATIN,
]


def test_odd_names_are_predicted_and_written(finished, image, tmp_path, capfd, monkeypatch):
    (tmp_path / "odd").mkdir()
    for name in ODD:
        shutil.copy(image, tmp_path / "odd" / name)
    monkeypatch.chdir(tmp_path / "odd")
    listed = b"".join(os.fsencode(name) + b"\0" for name in ODD)
    for ending in ("csv", "jsonl"):
        code, _, output = predict(capfd, finished, "-", f"--out=../a.{ending}", stdin=listed)
        assert code == 0 and f"{len(ODD)} of {len(ODD)} files" in output
    rows = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_bytes().decode("utf-8"), newline="")))
    assert [name_of(row["file"].removeprefix("'")) for row in rows] == ODD
    assert [row["file"] for row in rows][:2] == ["'=cmd.png", "'-x.png"] and all(row["label_1"] for row in rows)
    lines = (tmp_path / "a.jsonl").read_bytes().decode("utf-8").split("\n")[:-1]
    assert [name_of(json.loads(line)["file"]) for line in lines] == ODD
    code, printed, _ = predict(capfd, finished, "-", stdin=listed)
    assert code == 0 and [line.partition(": ")[0] for line in printed.splitlines()] == [
        printable(files.name_text(name)) for name in ODD
    ]


NAMES = {
    "one a line": b"{image}\n{image}\n",
    "lines of Windows": b"{image}\r\n{image}\r\n\r\n",
    "without a last line break": b"{image}\n{image}",
    "each ended by NUL": b"{image}\0{image}\0",
    "separated by NUL": b"{image}\0{image}",
}


@pytest.mark.parametrize("name", NAMES)
def test_lists_of_names_on_standard_input(name, finished, image, capfd):
    content = NAMES[name].replace(b"{image}", os.fsencode(image))
    code, printed, output = predict(capfd, finished, "-", stdin=content)
    assert code == 0, output
    assert [line.partition(": ")[0] for line in printed.splitlines()] == [str(image)] * 2


NO_NAMES = {"nothing": (b"", "no image is named"), "empty lines": (b"\n\r\n\n", "no image is named")}


@pytest.mark.parametrize("name", [*NO_NAMES, "an image"])
def test_what_is_no_list_of_names(name, finished, image, capfd):
    content, said = NO_NAMES.get(name, (image.read_bytes(), "holds an image"))
    code, _, output = predict(capfd, finished, "-", stdin=content)
    assert code == 1 and said in output and len(output.splitlines()) == 1


def test_no_standard_input_at_all(finished, capfd, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    code, _, output = predict(capfd, finished, "-")
    assert code == 1 and "no image is named" in output


def test_one_image_twice_and_one_that_is_gone(finished, image, tmp_path, capfd):
    code, printed, output = predict(capfd, finished, image, f"{tmp_path}/gone{ESC}.png", image)
    assert code == 1 and r"gone\x1b[31m.png cannot be read" in output and ESC not in output
    first, second = printed.splitlines()
    assert first == second


class Closed(io.StringIO):
    """A standard output that takes one line."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def flush(self):
        if self.getvalue().count("\n") > 1:
            raise self.error


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (BrokenPipeError(32, "Broken pipe"), 128 + signal.SIGPIPE, ""),
        (OSError(28, "No space left"), 1, "No space left"),
    ],
)
def test_output_that_nobody_reads_or_that_is_full(error, code, said, finished, image, capfd, monkeypatch):
    closed = Closed(error)
    monkeypatch.setattr(sys, "stdout", closed)
    message, ended = cli.attempt("predict", [f"--run={finished}", *[str(image)] * 3])
    assert ended == code and said in message and closed.getvalue().count("\n") == 2
    assert "standard output" in message if said else message == ""


OUTPUTS = [
    Fault(f"{name}, {what}", (*command, "--force", f"--{flag}={{tmp}}/{out}{ending}"), said)
    for name, command, flag, ending in (
        ("predict", ("predict", "--run={run}", "{tmp}/a.png"), "out", ".csv"),
        ("export", ("export", "--run={run}"), "out", ".stablehlo"),
        ("report", ("report", "{run}"), "out", ".html"),
    )
    for what, out, said in (
        ("a directory", "folder", "folder.* is a directory"),
        ("a folder that is not there", "none/a", "none/a.* cannot be written: there is no folder .*none"),
        ("below a file", "a.png/a", "a.png/a.* cannot be written: there is no folder .*a.png"),
        ("a pipe", "pipe", "pipe.* is a pipe, socket or device"),
        ("a name too long", "a" * 300, "a{300}.* cannot be used: .*too long"),
        ("a name with NUL", "a\0b", r"a\\x00b.* cannot be used"),
    )
]  # fmt: skip


@pytest.mark.parametrize("fault", OUTPUTS, ids=lambda fault: fault.name)
def test_outputs_that_cannot_be_written(fault, finished, image, tmp_path, capfd, monkeypatch):
    for ending in (".csv", ".stablehlo", ".html"):
        (tmp_path / f"folder{ending}").mkdir()
        os.mkfifo(tmp_path / f"pipe{ending}")
    monkeypatch.setattr("ncl_jax.runs.restore.restore", None)  # refused before a run is read
    harness.attempt(fault, finished, tmp_path, capfd)


@pytest.mark.parametrize("name", ["predict", "export", "report"])
def test_a_folder_that_may_not_be_written_to(name, finished, image, tmp_path, capfd, monkeypatch):
    fault = next(fault for fault in OUTPUTS if fault.name.startswith(name))
    command = (*fault.command[:-1], fault.command[-1].replace("folder", "new"))
    monkeypatch.setattr(os, "access", lambda *_: False)
    said = "new.* cannot be written: .* may not be written to"
    harness.attempt(Fault("", command, said), finished, tmp_path, capfd)


def test_findings_are_shown_before_a_picture_fails(tmp_path, capfd):
    (tmp_path / "file").write_text("")
    command = ["--config=quickstart", f"--picture={tmp_path}/file/a.png"]
    message, code = cli.attempt("inspect", command)
    printed = capfd.readouterr().out
    assert code == 1 and "--picture" in message and "imbalance factor" in printed


def test_odd_names_of_images_in_a_dataset(image, tmp_path, capfd):
    """They steer neither the terminal nor a line of what inspect finds, and the list of images is valid UTF-8."""
    for split, name in itertools.product(("train", "test"), ("cat", "dog")):
        for number, odd in enumerate(("", ESC, "\nproblem: none", LATIN)):
            path = tmp_path / "data" / split / name / f"{number}{odd}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(image, path)
    arguments = f"--config=folder:dir={tmp_path / 'data'},image_size=28"
    _, code = cli.attempt("inspect", [arguments, f"--picture={tmp_path}/p.png"])
    printed = capfd.readouterr().out
    assert code == 1 and ESC not in printed and "\nproblem: none" not in printed
    assert r"train/cat/1\x1b[31m.png" in printed and r"train/cat/2\nproblem: none.png" in printed
    config = config_files.load(arguments.removeprefix("--config="))
    data = build_data.data(config)
    directory = RunDir(tmp_path)
    directory.begin(config, data, {})
    assert r"3caf\xe9.png" in gzip.decompress(directory.files.read_bytes()).decode("utf-8")
    listing = list(map(files.name_text, data.listing()))
    assert directory.read_files() == listing
    older = "\n".join(["header", *data.listing(), ""]).encode("utf-8", "surrogateescape")
    directory.files.write_bytes(gzip.compress(older))
    assert changes(directory.read_files(), listing) == ""


# A run's directory.


@pytest.fixture
def shapes():
    """A state of one array, and how it is asked for."""
    place_of = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    state = TrainState(*({"w": jnp.arange(6.0)} if name == "params" else {} for name in TrainState._fields))
    state = state._replace(step=jnp.int32(3))
    return state, jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place_of), state)


TAKEN = "".join(chr(number) for number in range(1, 0x7F) if chr(number) not in "/*?[\\")
PLACES = ["a" + TAKEN[:60], "b" + TAKEN[60:], "-x", "~", "#%20", "file:", "s3:", "{a,b}", "猫", " ", "1]"]
REFUSED = [*(f"a{char}b" for char in "*?[\\"), "**", "gs:", "gs:/x", "logs:/x", os.fsdecode(b"caf\xe9")]
"""The others hold every printable character of ASCII but those."""


@pytest.mark.parametrize("name", PLACES)
def test_a_checkpoint_comes_back_from_a_directory_of_any_name(name, tmp_path, shapes):
    state, target = shapes
    with contextlib.closing(Checkpoints(tmp_path / name)) as checkpoints:
        checkpoints.save(state, {})
        checkpoints.wait()
    with contextlib.closing(Checkpoints(tmp_path / name, read_only=True)) as checkpoints:
        np.testing.assert_array_equal(checkpoints.restore(target).state.params["w"], np.arange(6))


@pytest.mark.parametrize("name", [*REFUSED, "/s3/x", "/gs/x"])
def test_a_name_under_which_no_checkpoint_can_be_saved_is_refused_at_once(name, tmp_path, capfd):
    said = "cannot hold checkpoints|cannot be used"
    for command in (TRAIN, ("ablate", "--config=quickstart", "--methods=ce", "--seeds=1")):
        harness.attempt(Fault("", (*command, f"--workdir={tmp_path / name}"), said), tmp_path, tmp_path, capfd)
    assert not any(tmp_path.iterdir()) and not pathlib.Path(name).exists()


@pytest.mark.parametrize("name", ["gs://bucket/run", "s3://bucket/run", "file:///tmp/run"])
def test_an_address_is_no_directory(name, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    harness.attempt(Fault("", (*TRAIN, f"--workdir={name}"), "address"), tmp_path, tmp_path, capfd)
    assert not any(tmp_path.iterdir())


def in_mid_run(workdir, capfd, do, *arguments):
    """Trains, and does something when the first epoch's line is shown; returns exit code and output."""

    def line(record, *rest):
        if record["epoch"] == 1:
            do()
        return epoch_line(record, *rest)

    epoch_line = messages.epoch_line
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(messages, "epoch_line", line)
        message, code = cli.attempt("train", [*TRAIN[1:], f"--workdir={workdir}", *arguments])
    printed, errors = capfd.readouterr()
    assert "Traceback" not in errors
    return code, printed + errors + message


def same_results(run, other):
    left, right = (RunDir(path).read_results() for path in (run, other))
    return [left[name] for name in ("step", "ensemble", "experts")] == [
        right[name] for name in ("step", "ensemble", "experts")
    ]


def test_a_directory_that_is_moved_keeps_the_state(finished, tmp_path, capfd):
    def move():
        (tmp_path / "run").rename(tmp_path / "moved")
        shutil.copytree(finished, tmp_path / "run")  # another one takes its place

    code, output = in_mid_run(tmp_path / "run", capfd, move)
    assert code == 1 and f"--workdir={tmp_path}/moved" in output.splitlines()[-1], output
    assert harness.contents(tmp_path / "run") == harness.contents(finished)
    code, output = in_mid_run(tmp_path / "moved", capfd, lambda: None)
    assert code == 0 and f"continuing at step {harness.STEPS[0]}" in output
    assert same_results(tmp_path / "moved", finished)


def test_a_directory_that_is_deleted_or_replaced_ends_a_run(finished, tmp_path, capfd):
    def replace():
        shutil.rmtree(tmp_path / "run")
        shutil.copytree(finished, tmp_path / "run")

    code, output = in_mid_run(tmp_path / "run", capfd, replace)
    assert code == 1 and f"{tmp_path}/run was deleted" in output.splitlines()[-1]
    assert harness.contents(tmp_path / "run") == harness.contents(finished)


@pytest.mark.slow
def test_files_that_are_deleted_in_mid_run_are_written_again(finished, tmp_path, capfd):
    run, names = tmp_path / "run", ("config.json", "dataset.json", "metrics.jsonl")
    code, output = in_mid_run(run, capfd, lambda: [(run / name).unlink() for name in names])
    assert code == 0 and all(f"warning: {run / name} was deleted" in output for name in names)
    assert same_results(run, finished)
    for name in names[:2]:
        assert (run / name).read_bytes() == (finished / name).read_bytes()
    steps = [record["step"] for record in read_metrics(finished / "metrics.jsonl")]
    assert [record["step"] for record in read_metrics(run / "metrics.jsonl")] == steps


def test_checkpoints_that_are_deleted_in_mid_run_are_named(finished, tmp_path, capfd):
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        evaluation_line, seen = messages.evaluation_line, []

        def line(results):
            seen.append(results["epoch"])
            if len(seen) == 2:  # the first epoch's checkpoint has been on the disk since
                for path in wait_for(run / "checkpoints"):
                    shutil.rmtree(path)
            return evaluation_line(results)

        patch.setattr(messages, "evaluation_line", line)
        code, output = in_mid_run(run, capfd, lambda: None)
    assert code == 0 and f"during the run: {harness.STEPS[0]}" in output
    assert [path.name for path in (run / "checkpoints").iterdir()] == [str(harness.STEPS[1])]
    assert same_results(run, finished)


def wait_for(folder):
    """The checkpoints in a folder, once there are any."""
    while not (found := list(folder.glob("[0-9]"))):
        time.sleep(0.01)
    return found
