"""The classes of image files, by a run's model."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from ncl_jax.data.images import parallel
from ncl_jax.data.sources import folder
from ncl_jax.errors import DataError
from ncl_jax.evaluation.predictor import combine, disagreement
from ncl_jax.runs.load import Model
from ncl_jax.runtime.files import expand, name_text, valid_utf8

BATCH = 64


def find_files(names: Sequence[str]) -> list[str]:
    """The image files that arguments name, there or not. Raises DataError for none, or a folder without images."""
    found: list[str] = []
    for name in names:
        path = expand("IMAGE", name)
        inside = sorted(file for file, _ in folder.image_files(path)) if path.is_dir() else [str(path)]
        if not inside:
            raise DataError(f"{path} holds no image file")
        found += inside
    if not found:
        raise DataError("no image is named: give files or folders, or names on standard input")
    return found


def predict(model: Model, files: Sequence[str], top: int, expert: int | None) -> Iterator[dict]:
    """For each file in order: `file`, and `top`, the likeliest classes with `label` and `probability`, and
    `disagreement` between the experts; or `error` where it cannot be read. Names are valid UTF-8 (`name_text`)."""

    def read(row: int) -> np.ndarray | str:
        try:
            return model.prepare(files[row])[0]
        except DataError as error:
            return str(error)

    batch: list[Any] = []
    for row, image in enumerate(parallel.in_threads(read, len(files), "predicting")):
        batch.append((files[row], image))
        if len(batch) == BATCH or row + 1 == len(files):
            yield from _predict_batch(model, batch, top, expert)
            batch = []


def _predict_batch(model, batch, top, expert):
    good = [image for _, image in batch if not isinstance(image, str)]
    answers: Iterator[Any] = iter(())
    if good:
        filled = np.stack(good + good[:1] * (BATCH - len(good)))  # one size, compiled once
        logits = model.experts(filled)[:, : len(good)]  # [E, b, C]
        answers = zip(np.asarray(jax.nn.softmax(combine(logits, expert))), disagreement(logits.argmax(-1)), strict=True)
    for file, image in batch:
        if isinstance(image, str):
            yield {"file": name_text(file), "error": image}
        else:
            probabilities, share = next(answers)
            best = np.argsort(-probabilities, kind="stable")[:top]
            labels = [valid_utf8(model.class_names[c]).decode() for c in best]
            shares = [round(float(probabilities[c]), 6) for c in best]
            classes = [{"label": label, "probability": p} for label, p in zip(labels, shares, strict=True)]
            yield {"file": name_text(file), "top": classes, "disagreement": round(float(share), 4)}
