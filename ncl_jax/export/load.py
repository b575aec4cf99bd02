"""An exported model for use: `ncl_jax.load_exported(FILE)`. It needs JAX, flatbuffers, NumPy and Pillow."""

import contextlib
import hashlib
import os
import pathlib
from typing import Any

import jax
import numpy as np
from scipy.special import softmax

from ncl_jax.data.images import transforms
from ncl_jax.data.images.decode import Images, prepare
from ncl_jax.errors import ConfigError, DataError, ExportError, one_line
from ncl_jax.runtime import schema, settings
from ncl_jax.runtime.files import expand, open_regular, partial_of
from ncl_jax.trust.sets import Rule, predict_sets

VERSION = 1  # of the description beside a program
MOST_DESCRIPTION, MOST_BYTES = 2**26, 2**31  # of the description, and of a program, whose format has no more
BYTECODE = b"ML\xefR"  # what MLIR's begins with; of other bytes its reader may crash
MOST_SIDE, MOST_PIXELS = 2**14, 2**26  # of the images that a program sees
DESCRIPTION = schema.record(
    {
        "sha256": schema.text(64), "format": schema.text(100), "class_names": schema.list_of(schema.text(), 1),
        "image_shape": schema.list_of(schema.integer(1, MOST_SIDE), 3, 3), "resize": schema.integer(1, MOST_SIDE),
    },
    {"interpolation": schema.text(choices=tuple(transforms.INTERPOLATIONS))},
)  # fmt: skip


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

    def probabilities(self, images: Images) -> np.ndarray:
        """What a call gives, by the name that a run's model has for it."""
        return self(images)

    def sets(self, images: Images, coverage: float = 0.9, promise: str = "marginal") -> np.ndarray:
        """The prediction set of every image, bool `[B, C]`: the classes that it may be (docs/trust.md).

        Args:
          images: as for a call, or `[B, C]` probabilities that it gave.
          coverage, promise: see `trust.sets.calibrate`; one of those that the export holds.

        Raises:
          ExportError: the export holds no such sets.
        """
        rule = _set_rule(self.about, coverage, promise)
        given = isinstance(images, np.ndarray) and images.ndim == 2
        probabilities = np.asarray(images if given else self(images), np.float64)
        logs = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
        return predict_sets(rule, softmax(self.about["sets"]["scale"] * logs + self.about["sets"]["shift"], axis=-1))

    @settings.holding
    def __call__(self, images: Images) -> np.ndarray:
        """Probabilities of images, float32 `[B, C]`; see `decode.prepare` for what may be given.

        Raises:
          ValueError: for an array of another type or shape.
          DataError: a file cannot be read.
          ExportError: the program cannot be run here.
        """
        about, shape = self.about, tuple(self.about["image_shape"])
        prepared = prepare(images, shape, about["resize"], shape[0], about.get("interpolation", "bilinear"))
        try:
            return np.asarray(self._program.call(prepared))
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" in str(error):  # of this machine, not of the program
                raise
            raise ExportError(f"the exported program cannot be run here: {one_line(error)}") from error


def _set_rule(about: dict[str, Any], coverage: float, promise: str) -> Rule:
    """What makes prediction sets of the calibrated probabilities. Raises ExportError."""
    found = about.get("sets")
    if not found:
        raise ExportError("the export holds no prediction sets: export a run that has --folds=5, or was asked for sets")
    limits = found["thresholds"].get(promise, {}).get(str(float(coverage)))
    if limits is None:
        held = ", ".join(f"{name} {share}" for name, of in found["thresholds"].items() for share in of)
        raise ExportError(f"the export holds no sets of coverage={coverage}, promise={promise}; it holds: {held}")
    thresholds = np.array([np.inf if limit is None else limit for limit in limits])
    prior = np.array(found["prior"])
    return Rule(thresholds, prior, np.ones(len(prior)), coverage, promise, 0, np.zeros(0, int))


def load_exported(file: str | pathlib.Path) -> Exported:
    """Loads what `ncl-jax export --format=stablehlo` wrote, with the description beside it.

    Raises:
      ExportError: one of the files is missing, damaged, or of another version; flatbuffers is not installed.
    """
    again = "export the run again"
    try:
        path = expand("file", file)
    except ConfigError as error:
        raise ExportError(str(error)) from error
    try:
        with open_regular(path) as opened:
            if os.fstat(opened.fileno()).st_size > MOST_BYTES:
                raise ExportError(f"{path} is larger than {MOST_BYTES:,} bytes, which no program is: {again}")
            about = _description(path, hashlib.file_digest(opened, "sha256").hexdigest())  # type: ignore[arg-type]
            opened.seek(0)
            content = bytearray(opened.read())  # as many bytes as `fstat` said
    except (OSError, DataError) as error:
        raise ExportError(f"{path} cannot be read ({one_line(error)}): {again}") from error
    program = _deserialize(path, content)
    _check_program(path, program, about)
    return Exported(program, about)


def _description(path: pathlib.Path, digest: str) -> dict[str, Any]:
    """What must be known of a program of this digest. Raises ExportError before the program takes any memory.

    A program and its description are renamed one after the other. Where what wrote them was killed in between, the new
    description still lies in its partial file.
    """
    about = _read_description(path, description_of(path))
    if about["sha256"] != digest:
        with contextlib.suppress(ExportError):
            newer = _read_description(path, partial_of(description_of(path)))
            about = newer if newer["sha256"] == digest else about
    if about["sha256"] != digest:
        raise ExportError(f"{path} was changed or cut short since it was exported: export the run again")
    if about["format"] != "stablehlo":
        raise ExportError(f"{path} holds {about['format']}, no program for JAX: export the run with --format=stablehlo")
    return about


def _read_description(path: pathlib.Path, beside: pathlib.Path) -> dict[str, Any]:
    """The content of a file beside a program. Raises ExportError."""
    try:
        about = schema.read_json(beside, MOST_DESCRIPTION, schema.record({"version": schema.integer()}))
        if about["version"] != VERSION:
            raise ExportError(
                f"{path} is of version {about['version']}, this ncl_jax reads version {VERSION}: export the run again"
            )
        DESCRIPTION(about, "")
        _check_sets(about)
        height, width, channels = about["image_shape"]
        if channels != 3 or height * width > MOST_PIXELS:
            schema.refuse(channels, "image_shape[2]", f"3, and H times W at most {MOST_PIXELS:,}")
        if about["resize"] < height:
            schema.refuse(about["resize"], "resize", f"at least {height}, the side that is cut out")
    except (OSError, ValueError, DataError) as error:
        raise ExportError(
            f"{beside}, the description beside {path.name}, cannot be read ({one_line(error)}): export the run again"
        ) from error
    return about


def _check_sets(about: dict[str, Any]) -> None:
    """Raises ValueError for a description whose prediction sets are not of its classes."""
    if about.get("sets") is None:
        return
    each = len(about["class_names"])
    numbers = schema.list_of(schema.number(), each, each)
    limits = schema.mapping(schema.mapping(schema.list_of(schema.maybe(schema.number()), each, each)))
    schema.record({"prior": numbers, "shift": numbers, "scale": schema.number(0, 1e9), "thresholds": limits})(
        about["sets"], "sets"
    )


def _deserialize(path: pathlib.Path, content: bytearray) -> jax.export.Exported:
    try:
        return jax.export.deserialize(content)
    except ImportError as error:
        raise ExportError(f"{path} cannot be read ({error}): pip install flatbuffers") from error
    except Exception as error:  # whatever bytes provoke that are no program
        raise _no_program(path, error) from error


def _check_program(path: pathlib.Path, program: jax.export.Exported, about: dict[str, Any]) -> None:
    """Raises ExportError for a program that is not the one of the description, or that JAX cannot read."""
    shape, number = tuple(about["image_shape"]), len(about["class_names"])
    try:
        if not program.mlir_module_serialized.startswith(BYTECODE):
            raise ValueError("its operations are not MLIR bytecode")
        (takes,), (gives,) = ([aval.shape[1:] for aval in avals] for avals in (program.in_avals, program.out_avals))
        jax.jit(program.call).lower(jax.ShapeDtypeStruct((1, *shape), np.uint8))
    except Exception as error:  # as above
        raise _no_program(path, error) from error
    if takes != shape or gives != (number,):
        raise ExportError(
            f"{path} takes images {takes} and gives {gives} probabilities, its description says {shape} and {number}: "
            "export the run again"
        )


def _no_program(path: pathlib.Path, error: Exception) -> ExportError:
    words = f"{type(error).__name__}: {one_line(error, 100)}"
    return ExportError(f"{path} holds no program that this JAX can read ({words}): export the run again")
