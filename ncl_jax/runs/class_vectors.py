"""The vectors of a run's classes: by a text tower or from a file, and kept in the run's directory."""

import contextlib
import io
import json
import math
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from ncl_jax.config.plan import Plan
from ncl_jax.data.sources.names import clean, first_few
from ncl_jax.errors import CheckpointError, ConfigError, DataError, one_line
from ncl_jax.evaluation.class_vectors import ClassVectors
from ncl_jax.models import shapes_of
from ncl_jax.runs import text, trunk
from ncl_jax.runs.pretrained import Start
from ncl_jax.runtime.files import expand, read_file, write_bytes
from ncl_jax.storage.checkpoint import Checkpoints
from ncl_jax.storage.directory import RunDir
from ncl_jax.trust.neighbours import unit
from ncl_jax.weights.read import digest

MOST = 2**30  # bytes of a file of vectors
MOST_VALUE = 1e6  # of their numbers; their lengths are those of no vector below its reciprocal


def added(start: Start | None, config: ml_collections.ConfigDict, plan: Plan) -> Start | None:
    """A start on a frozen backbone with the vectors of the classes: those that are asked for, or else those of a text
    tower that lies beside the backbone, for a row of the baselines.

    Raises:
      ConfigError, DataError: they are asked for, and cannot be made.
    """
    if start is None or start.trunk is None:
        return start
    model, names = config.model, plan.facts.class_names
    other = _of_other_run(model.pretrained, names)
    if other is not None and not model.text and not model.class_vectors:
        vectors, record = other, {"file": model.pretrained}
    elif model.head_start != "text" and not model.text:
        try:
            if not text.is_at_hand(model):
                return start
            vectors, record = text.class_vectors(text.find(model), names, model.template)
            check_width(vectors, plan)
        except (ConfigError, DataError) as error:
            return start._replace(note=f"{start.note}\nno zero-shot row: {one_line(error)}")
    elif model.class_vectors:
        vectors, record = of_file(model.class_vectors, names)
    else:
        vectors, record = text.class_vectors(text.find(model), names, model.template)
    check_width(vectors, plan)
    record |= {"vectors": _digest(vectors)}
    note = f"vectors of {len(names):,} classes from {record['file']}"
    return start._replace(vectors=vectors, record=start.record | {"text": record}, note=f"{start.note}\n{note}")


def _of_other_run(name: str, names: Sequence[str]) -> ClassVectors | None:
    """The vectors of the run that a backbone comes from, if it has any, of the same classes."""
    directory = RunDir(expand("model.pretrained", name))
    if not directory.config.is_file() or directory.read_facts().class_names != tuple(names):
        return None
    with contextlib.closing(Checkpoints(directory.path, read_only=True)) as checkpoints:
        return of_run(directory, checkpoints.peek() or {})


def check_width(vectors: ClassVectors, plan: Plan) -> None:
    """Raises ConfigError for vectors that the features of a frozen backbone cannot be compared with."""
    assert plan.trunk is not None
    width = shapes_of(plan.trunk, plan.facts.image_shape)[0].shape[-1]
    if vectors.width != width:
        raise ConfigError(
            f"the classes' vectors are for image features of {vectors.width} numbers, but the backbone gives {width}: "
            "take the text tower that was trained with it, or vectors of that width, or add projection [D, d] to a file"
        )


def of_file(name: str, class_names: Sequence[str]) -> tuple[ClassVectors, dict]:
    """The vectors of a file, `[C, d]`: .npy, .npz with `vectors` and, if it likes, `names` [C] and `projection` [D, d],
    or .safetensors with the same, names as a JSON list in its metadata.

    Raises:
      ConfigError: they are not those of the classes.
      DataError: the file cannot be read.
    """
    path = expand("model.class_vectors", name)
    try:
        found, names = _arrays(path)
        vectors, projection = found["vectors"], found.get("projection")
    except DataError:
        raise
    except Exception as error:  # of many types: whatever the content provokes
        raise DataError(
            f"model.class_vectors={path} cannot be read ({one_line(error)}): pass .npy, .npz or .safetensors with the "
            "array vectors [C, d]"
        ) from error
    for label, array in (("vectors", vectors), ("projection", projection)):
        if array is not None and not _is_usable(array):
            raise ConfigError(
                f"model.class_vectors={path}: {label} must be floating-point numbers in two axes, none beyond "
                f"{MOST_VALUE:g}, and not all zero"
            )
    if projection is not None and projection.shape[1] != vectors.shape[1]:
        raise ConfigError(f"model.class_vectors={path}: projection {projection.shape}, vectors {vectors.shape}")
    vectors = vectors[_order(path, names, class_names, len(vectors))].astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=1)
    if zeros := [class_names[row] for row in np.flatnonzero(lengths < 1 / MOST_VALUE).tolist()]:
        raise ConfigError(f"model.class_vectors={path}: the vectors of {first_few(zeros)} are zero")
    projection = None if projection is None else projection.astype(np.float32)
    return ClassVectors(unit(vectors), projection), {"file": path.name, "sha256": digest(path)}


def _arrays(path: Path) -> tuple[dict[str, np.ndarray], list[str] | None]:
    """The arrays of a file by name, and the classes' names if it has them."""
    content = read_file(path, MOST)
    if path.suffix == ".safetensors":
        from safetensors import safe_open
        from safetensors.numpy import load

        with safe_open(path, "np") as file:
            names = (file.metadata() or {}).get("names")
        return load(content), None if names is None else [str(name) for name in json.loads(names)]
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if (size := sum(member.file_size for member in archive.infolist())) > MOST:
                raise ValueError(f"it expands to {size:,} bytes")
    found = np.load(io.BytesIO(content), allow_pickle=False)
    if isinstance(found, np.ndarray):
        return {"vectors": found}, None
    arrays = {name: found[name] for name in ("vectors", "projection", "names") if name in found}
    names = arrays.pop("names", None)
    return arrays, None if names is None else [str(name) for name in names]


def _is_usable(array: np.ndarray) -> bool:
    """Whether an array can be computed with: a matrix, not of zeros, whose numbers have products that are finite."""
    return array.ndim == 2 and array.dtype.kind == "f" and 0 < float(np.abs(array).max(initial=0)) <= MOST_VALUE


def _order(path: Path, names: list[str] | None, class_names: Sequence[str], rows: int) -> list[int]:
    """Which row is each class's. Raises ConfigError where the rows are not those of the classes."""
    if rows != len(class_names if names is None else names):
        wanted = len(class_names) if names is None else len(names)
        raise ConfigError(f"model.class_vectors={path} has {rows} vectors, but there are {wanted} names of classes")
    if names is None:
        return list(range(rows))
    place = {clean(name): row for row, name in enumerate(names)}
    if double := [name for name, count in Counter(map(clean, names)).items() if count > 1 and name in class_names]:
        raise ConfigError(f"model.class_vectors={path} has several vectors of {first_few(double)}: keep one of each")
    if missing := [name for name in class_names if name not in place]:
        raise ConfigError(f"model.class_vectors={path} has no vector of {first_few(missing)}")
    return [place[name] for name in class_names]


def write(directory: RunDir, vectors: ClassVectors) -> None:
    """Keeps the vectors in a run's directory. Raises WriteError, see `RunDir.writing`."""
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(array) for name, array in _present(vectors).items()}
    with directory.writing():
        write_bytes(directory.class_vectors, save(arrays))


def of_run(directory: RunDir, progress: dict) -> ClassVectors | None:
    """The vectors of a run, by its record; None where it has none.

    Raises:
      CheckpointError: the file is missing, damaged, or another run's.
    """
    record = (progress.get("pretrained") or {}).get("text")
    if not record:
        return None
    from safetensors.numpy import load

    try:
        found, known = load(read_file(directory.class_vectors, MOST)), record["vectors"]
        vectors = ClassVectors(found["vectors"], found.get("projection"), found["scale"].item())
        _check(vectors, directory.read_facts().num_classes)
    except DataError as error:
        raise CheckpointError(f"{error}: restore it from a backup") from error
    except Exception as error:  # of many types: whatever the content provokes
        raise CheckpointError(
            f"{directory.class_vectors} is damaged ({one_line(error)}): restore it from a backup"
        ) from error
    if _digest(vectors) != known:
        raise CheckpointError(f"{directory.class_vectors} is not what the run began with: restore it from a backup")
    return vectors


def _check(vectors: ClassVectors, num_classes: int) -> None:
    """Raises ValueError for arrays that are not vectors of so many classes."""
    arrays = [array for array in vectors[:2] if array is not None]
    if any(array.dtype != np.float32 or not _is_usable(array) for array in arrays):
        raise ValueError("its arrays are not float32 numbers in two axes, or all zero, or without bounds")
    if len({array.shape[1] for array in arrays}) > 1 or len(vectors.vectors) != num_classes:
        raise ValueError(f"its arrays of shapes {[array.shape for array in arrays]} are not of {num_classes} classes")
    if not 0 < vectors.scale < math.inf:
        raise ValueError(f"its scale is {vectors.scale}")


def _present(vectors: ClassVectors) -> dict[str, Any]:
    arrays = vectors._asdict() | {"scale": np.float64(vectors.scale)}
    return {name: np.asarray(array) for name, array in arrays.items() if array is not None}


def _digest(vectors: ClassVectors) -> str:
    return trunk.digest(_present(vectors))
