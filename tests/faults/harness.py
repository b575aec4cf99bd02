"""What the tables of faults share: a row, the prepared runs, and how a row is tried."""

import hashlib
import pathlib
import re
from collections.abc import Callable
from typing import NamedTuple

import one_layer

from ncl_jax import cli

RUN = {
    "model.backbone": "one_layer", "model.num_experts": 2, "epochs": 2, "eval_every": 1, "checkpoint_every": 1,
    "optim.milestones": "(2,)", "optim.batch_size": 256, "run.data_devices": 1,
    "data.augment": "none",
}  # fmt: skip
FIELDS = [f"--config.{name}={value}" for name, value in RUN.items()]
TRAIN = ("train", "--config=quickstart:method=ce", *FIELDS)
STEPS = (4, 8)  # the prepared run's checkpoints


class Fault(NamedTuple):
    """What is done, and what must come of it."""

    name: str
    command: tuple[str, ...]  # {run} and {tmp} stand for the copy of the finished run and the test's folder
    said: str  # a pattern of the one line: the field, value or file that it names, not its grammar
    spoil: Callable[[pathlib.Path], object] | None = None  # done to the copy of the finished run first
    code: int = 1
    changes: bool = False  # whether the command may change the run's directory


def attempt(fault: Fault, run: pathlib.Path, tmp: pathlib.Path, capfd) -> None:
    """Tries a row: the exit code, one clear line, no traceback, and nothing in the run's directory changed."""
    if fault.spoil:
        fault.spoil(run)
    before = contents(run)
    name, *arguments = (word.replace("{run}", str(run)).replace("{tmp}", str(tmp)) for word in fault.command)
    message, code = cli.attempt(name, arguments)
    printed, errors = capfd.readouterr()
    output = f"{printed}{errors}{message}"
    assert code == fault.code, output
    assert re.search(fault.said, output), output
    assert "Traceback" not in output and "\n" not in message, output
    if code:
        assert message.startswith("error: ") and len(output.splitlines()) < 25, output
    if not fault.changes:
        assert contents(run) == before


def contents(folder: pathlib.Path) -> dict[str, str]:
    """The files below a folder by their checksum, without locks."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def finished_run(folder: pathlib.Path) -> pathlib.Path:
    """A finished run of two epochs in `folder`."""
    message, code = cli.attempt("train", [*TRAIN[1:], f"--workdir={folder}"])
    assert code == 0, message
    return folder


assert one_layer.OneLayer  # imported for the backbone that it adds
