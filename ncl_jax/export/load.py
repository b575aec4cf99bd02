"""An exported model for use: `ncl_jax.load_exported(FILE)`. It needs JAX, flatbuffers, NumPy and Pillow."""

import contextlib
import hashlib
import json
import pathlib
from typing import Any

import jax
import numpy as np

from ncl_jax.data.images.decode import Images, prepare
from ncl_jax.errors import ExportError
from ncl_jax.runtime.files import partial_of

VERSION = 1  # of the description beside a program


def description_of(path: pathlib.Path) -> pathlib.Path:
    """The file beside an artifact that says what must be known to use it."""
    return path.with_name(path.name + ".json")


class Exported:
    """An exported classifier: call it on images.

    Attributes:
      class_names: C names.
      about: what was written beside the program.
    """

    def __init__(self, program: jax.export.Exported, about: dict[str, Any]):
        self._program, self.about = program, about
        self.class_names = tuple(about["class_names"])

    def __call__(self, images: Images) -> np.ndarray:
        """Probabilities of images, float32 `[B, C]`; see `decode.prepare` for what may be given.

        Raises:
          ValueError: for an array of another type or shape.
          DataError: a file cannot be read.
        """
        shape, sizes = tuple(self.about["image_shape"]), (self.about["resize"], self.about["image_shape"][0])
        return np.asarray(self._program.call(prepare(images, shape, *sizes)))


def _described(path: pathlib.Path, digest: str) -> dict[str, Any]:
    """What is written about an artifact of this digest, or else about the one that was there.

    The two files are renamed one after the other. Where the program that wrote them was killed in between, the new
    description still lies in its partial file.
    """
    about = json.loads(description_of(path).read_text())
    if about["sha256"] != digest:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            newer = json.loads(partial_of(description_of(path)).read_text())
            return newer if newer["sha256"] == digest else about
    return about


def load_exported(file: str | pathlib.Path) -> Exported:
    """Loads what `ncl-jax export --format=stablehlo` wrote, with the description beside it.

    Raises:
      ExportError: one of the files is missing, damaged, or of another version; flatbuffers is not installed.
    """
    path = pathlib.Path(file).expanduser()
    try:
        content = path.read_bytes()
        about = _described(path, hashlib.sha256(content).hexdigest())
        version, digest = about["version"], about["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(
            f"{path} or the description beside it, {description_of(path)}, cannot be read: {error}"
        ) from error
    if version != VERSION:
        raise ExportError(f"{path} is of version {version}, this ncl_jax reads version {VERSION}: export the run again")
    if hashlib.sha256(content).hexdigest() != digest:
        raise ExportError(f"{path} was changed or cut short since it was exported: export the run again")
    if about["format"] != "stablehlo":
        raise ExportError(f"{path} holds {about['format']}, no program for JAX: export the run with --format=stablehlo")
    try:
        program = jax.export.deserialize(bytearray(content))
    except ImportError as error:
        raise ExportError(f"{path} cannot be read ({error}): pip install flatbuffers") from error
    return Exported(program, about)
