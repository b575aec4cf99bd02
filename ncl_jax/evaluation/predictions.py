"""What a run's model says of every image that it was evaluated on, kept for its report."""

import io
import math
import pathlib
import zipfile
from typing import IO, NamedTuple

import numpy as np
from PIL import Image

from ncl_jax.data import longtail
from ncl_jax.data.images import parallel
from ncl_jax.data.types import Split
from ncl_jax.errors import DataError
from ncl_jax.evaluation.metrics import Answers
from ncl_jax.runtime.files import open_regular

CONFIDENT = 12  # mistakes that are shown
WORST, OF_EACH = 5, 3  # classes of the tail that are shown, and mistakes of each
THUMBNAIL = 64  # pixels at most


class Predictions(NamedTuple):
    """Of N images in the order of their split, by P predictors: the ensemble, then each expert."""

    labels: np.ndarray  # int32 [N]
    top: np.ndarray  # int32 [P, N]: the class that a predictor names
    confidence: np.ndarray  # float32 [P, N]: its probability
    rows: np.ndarray  # int32 [K]: images that are shown
    thumbnails: np.ndarray  # uint8 [K, S, S, 3]: those images

    def picture(self, row: int) -> np.ndarray | None:
        """An image that is shown, uint8 [S, S, 3]; None where there is no picture of it."""
        found = np.flatnonzero(self.rows == row)
        return self.thumbnails[found[0]] if len(found) else None


def make(answers: Answers, split: Split, class_counts: tuple[int, ...], resize: int, size: int) -> Predictions:
    """Adds small pictures of the mistakes that a report shows, by the test transform (`transforms.fit`); none where the
    files have gone since they were evaluated."""
    top = (answers.labels, answers.top[0], answers.confidence[0])
    pairs = confident_mistakes(*top) + [pair for _, pairs in worst_classes(*top, class_counts) for pair in pairs]
    rows = np.unique(np.array([row for pair in pairs for row in pair if row >= 0], np.int32))
    try:
        images = parallel.fitted(split.take(rows), resize, size, "pictures for the report")
    except DataError:
        rows, images = rows[:0], np.zeros((0, size, size, 3), np.uint8)
    small = min(size, THUMBNAIL)
    thumbnails = [np.asarray(Image.fromarray(image).resize((small, small))) for image in images]
    stacked = np.stack(thumbnails) if thumbnails else np.zeros((0, small, small, 3), np.uint8)
    return Predictions(answers.labels, answers.top, answers.confidence, rows, stacked)


Pairs = list[tuple[int, int]]  # (row of a mistake, row of an example of the class that it was taken for; -1: none)


def confident_mistakes(labels: np.ndarray, top: np.ndarray, confidence: np.ndarray) -> Pairs:
    """The mistakes `[N]` of highest confidence, at most two for a pair of classes."""
    found: Pairs = []
    seen: dict[tuple[int, int], int] = {}
    for row in _mistakes(labels, top, confidence):
        pair = (int(labels[row]), int(top[row]))
        seen[pair] = seen.get(pair, 0) + 1
        if seen[pair] <= 2:
            found.append((row, example(labels, top, confidence, pair[1])))
        if len(found) == CONFIDENT:
            break
    return found


def worst_classes(
    labels: np.ndarray, top: np.ndarray, confidence: np.ndarray, class_counts: tuple[int, ...]
) -> list[tuple[int, Pairs]]:
    """The tail classes of lowest accuracy, the worst first, each with its most confident mistakes.

    The tail are the few-shot classes, or the smaller half of all where there are none.
    """
    counts = np.asarray(class_counts)
    few = longtail.groups(counts, "papers")["few"]
    tail = np.flatnonzero(few if few.any() else counts <= np.median(counts))
    accuracy = {c: float((top[labels == c] == c).mean()) for c in tail if (labels == c).any()}
    worst = sorted((c for c in accuracy if accuracy[c] < 1), key=lambda c: accuracy[c])[:WORST]
    mistakes = _mistakes(labels, top, confidence)
    by_class = {c: [row for row in mistakes if labels[row] == c][:OF_EACH] for c in worst}
    return [(int(c), [(r, example(labels, top, confidence, top[r])) for r in by_class[c]]) for c in worst]


def example(labels: np.ndarray, top: np.ndarray, confidence: np.ndarray, wanted: int) -> int:
    """The row of the image of a class that is recognised most confidently, of any if none is; -1: there is none."""
    of_class = labels == wanted
    right = of_class & (top == wanted)
    rows = np.flatnonzero(right if right.any() else of_class)
    return int(rows[confidence[rows].argmax()]) if len(rows) else -1


def _mistakes(labels, top, confidence) -> list[int]:
    wrong = np.flatnonzero(top != labels)
    return wrong[np.argsort(-confidence[wrong], kind="stable")].tolist()


def packed(predictions: Predictions) -> bytes:
    """The content of an `.npz` file of them."""
    file = io.BytesIO()
    np.savez_compressed(file, **predictions._asdict())
    return file.getvalue()


MOST_BYTES = 2**29  # of all arrays together, unpacked
MOST_SHOWN = 1000  # images
# Type, number of axes and the range of every array.
_ARRAYS: dict[str, tuple[type, int, float, float]] = {
    "labels": (np.int32, 1, 0, 2**31 - 1), "top": (np.int32, 2, 0, 2**31 - 1), "confidence": (np.float32, 2, 0, 1.001),
    "rows": (np.int32, 1, 0, 2**31 - 1), "thumbnails": (np.uint8, 4, 0, 255),
}  # fmt: skip


def read(path: pathlib.Path, num_classes: int = 2**31 - 1, num_predictors: int | None = None) -> Predictions | None:
    """Reads a file of what `packed` gave; None without it, and for one that is damaged or of another run.

    Args:
      path: of the file.
      num_classes: C.
      num_predictors: P; None: any.
    """
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            found = Predictions(**_arrays(archive))
    except Exception:  # whatever bytes provoke that are no such file
        return None
    return found if _belongs(found, num_classes, num_predictors) else None


def _arrays(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    """The arrays by name; what they would take is known before it is taken."""
    members = {name: archive.getinfo(f"{name}.npy") for name in Predictions._fields}
    if sum(member.file_size for member in members.values()) > MOST_BYTES:
        raise ValueError("the arrays are larger than a run's")
    found = {}
    for name, member in members.items():
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{name} is packed as NumPy packs nothing")
        with archive.open(member) as file:
            found[name] = _array(file, member.file_size, *_ARRAYS[name])
    return found


def _array(file: IO[bytes], size: int, kind: type, axes: int, least: float, most: float) -> np.ndarray:
    """An array of a file of `size` bytes, once its header says that it is one of ours."""
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"the array is of format {version}")
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
    length = math.prod(shape) * dtype.itemsize
    if dtype.kind != np.dtype(kind).kind or len(shape) != axes or min(shape) < 0 or length > size:
        raise ValueError(f"the array is {dtype} {shape}")
    array = np.frombuffer(file.read(length), dtype).reshape(shape, order="F" if by_columns else "C")
    if array.size and not (array.min() >= least and array.max() <= most):
        raise ValueError("the array is out of its range")
    return array.astype(kind)


def _belongs(found: Predictions, num_classes: int, num_predictors: int | None) -> bool:
    """Whether the arrays fit each other, and the run."""
    number, shown = len(found.labels), len(found.rows)
    wanted = found.top.shape[:1] if num_predictors is None else (num_predictors,)
    shapes = found.top.shape == found.confidence.shape == (*wanted, number) and number and wanted[0]
    pictures = found.thumbnails.shape
    fits = pictures[0] == shown <= MOST_SHOWN and 0 < pictures[1] == pictures[2] <= THUMBNAIL and pictures[3] == 3
    if not (shapes and fits):
        return False
    return bool(max(found.labels.max(), found.top.max()) < num_classes and (found.rows < number).all())
