"""A folder of checkpoints, looked at before Orbax reads it: what would make that wait for ever or take all memory."""

import os
import pathlib
import stat
from collections.abc import Iterator
from typing import Any

import jax

from ncl_jax.errors import CheckpointError, DataError, one_line
from ncl_jax.runtime.schema import Check, anything, mapping, read_json
from ncl_jax.storage import contents

MOST_FILES = 100_000  # in the checkpoints of a run
MOST_DESCRIPTION = 64 * 2**20  # bytes of a file that describes arrays
DESCRIPTIONS = ("_CHECKPOINT_METADATA", "_METADATA", "_sharding", "manifest.ocdbt", "metadata")  # as Orbax names them
SMALL, PACKED = 2**26, 100  # bytes of weights that need not be on disk; how often weights on disk may be packed


def check_files(folder: pathlib.Path) -> int:
    """The bytes of all files below a folder.

    Raises:
      CheckpointError: something else than files and folders, more files than checkpoints have, or a larger description.
    """
    total = 0
    for number, (path, found) in enumerate(_files(folder)):
        if not stat.S_ISREG(found.st_mode):
            raise CheckpointError(f"{path} is not a regular file but a pipe, socket or device: move it away")
        if number > MOST_FILES:
            raise CheckpointError(f"{folder} holds more than {MOST_FILES:,} files: move away what no run wrote")
        if path.name in DESCRIPTIONS and found.st_size > MOST_DESCRIPTION:
            raise CheckpointError(f"{path} has {found.st_size:,} bytes, more than such a file can have: move it away")
        total += found.st_size
    return total


def _files(folder: pathlib.Path) -> Iterator[tuple[pathlib.Path, os.stat_result]]:
    for place, _, names in os.walk(folder):
        for name in names:
            path = pathlib.Path(place, name)
            try:
                yield path, path.stat()
            except OSError:  # it has gone since, or is a link to nowhere
                continue


def check_size(folder: pathlib.Path, target: Any) -> None:
    """Raises CheckpointError for a folder with far less than the arrays `target`, of shapes and types, would take."""
    wanted = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(target))
    if wanted > SMALL + PACKED * (found := check_files(folder)):
        raise CheckpointError(f"it has {found:,} bytes, but the model of config.json would take {wanted:,}")


def check_description(folder: pathlib.Path) -> None:
    """Raises CheckpointError for a list of arrays, `_METADATA`, that is not JSON or nested too deep."""
    read_item(folder / "_METADATA", MOST_DESCRIPTION, mapping(anything))


def read_item(path: pathlib.Path, most: int, check: Check) -> Any:
    """The content of a file of a checkpoint that holds JSON. Raises CheckpointError, naming it."""
    try:
        return read_json(path, most, check, finite=False)
    except (OSError, ValueError, DataError) as error:
        raise CheckpointError(f"{path} cannot be read ({one_line(error)})") from error


def read_progress(checkpoint: pathlib.Path) -> dict:
    """A checkpoint's host-side record. Raises CheckpointError."""
    return read_item(checkpoint / "progress" / "metadata", contents.MOST_PROGRESS, contents.progress)


def read_fingerprint(checkpoint: pathlib.Path) -> list[int]:
    """A checkpoint's fingerprint. Raises CheckpointError."""
    return read_item(checkpoint / "fingerprint" / "metadata", contents.MOST_PROGRESS, contents.fingerprint)
