"""The scores of image files, by a run's model."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ncl_jax.data.images import parallel
from ncl_jax.data.sources import folder
from ncl_jax.data.sources.walk import Unused
from ncl_jax.errors import DataError
from ncl_jax.evaluation.predictor import combine, disagreement
from ncl_jax.runs.load import Model
from ncl_jax.runtime.files import expand
from ncl_jax.trust.known import Known, p_values

BATCH = 64


class Scored(NamedTuple):
    """What a model says of an image file."""

    file: str
    error: str = ""  # why it cannot be read; the rest is not known then
    scores: np.ndarray = np.zeros(0)  # float32 [C], of the ensemble or of one expert
    disagreement: float = 0.0  # between the experts
    known: float = 1.0  # the p-value of `Model.known`, where it was asked for


def find_files(names: Sequence[str], unused: Unused | None = None) -> list[str]:
    """The image files that arguments name, there or not; `unused` counts what else is in their folders. Raises
    DataError for none, or a folder without images."""
    found: list[str] = []
    for name in names:
        path = expand("IMAGE", name)
        inside = sorted(file for file, _ in folder.image_files(path, unused)) if path.is_dir() else [str(path)]
        if not inside:
            raise DataError(f"{path} holds no image file")
        found += inside
    if not found:
        raise DataError("no image is named: pass files or folders, or names on standard input")
    return found


def score(model: Model, files: Sequence[str], expert: int | None, known: Known | None = None) -> Iterator[Scored]:
    """The scores of each file in order; `known`: what known-ness is measured with, None: it is not. Raises DataError
    for scores that are not finite."""

    def read(row: int) -> np.ndarray | str:
        try:
            return model.prepare(files[row])[0]
        except DataError as error:
            return str(error)

    batch: list[Any] = []
    for row, image in enumerate(parallel.in_threads(read, len(files), "predicting")):
        batch.append((files[row], image))
        if len(batch) == BATCH or row + 1 == len(files):
            yield from _score_batch(model, batch, expert, known)
            batch = []


def _score_batch(model, batch, expert, known):
    good = [image for _, image in batch if not isinstance(image, str)]
    found: Iterator[Any] = iter(())
    if good:
        filled = np.stack(good + good[:1] * (BATCH - len(good)))  # one size, compiled once
        values = np.ones(len(good), np.float32)
        if known is None:
            logits = model.experts(filled)
        else:
            logits, vectors = model.experts_and_embeddings(filled)
            values = p_values(known, vectors[: len(good)])
        logits = logits[:, : len(good)]  # [E, b, C]
        names = [file for file, image in batch if not isinstance(image, str)]
        if lost := [name for name, of in zip(names, logits.swapaxes(0, 1), strict=True) if not np.isfinite(of).all()]:
            raise DataError(f"{lost[0]}: its scores are infinite or not a number; replace the model's weights")
        found = zip(combine(logits, expert), disagreement(logits.argmax(-1)), values, strict=True)
    for file, image in batch:
        if isinstance(image, str):
            yield Scored(file, image)
        else:
            scores, share, value = next(found)
            yield Scored(file, "", scores, float(share), float(value))
