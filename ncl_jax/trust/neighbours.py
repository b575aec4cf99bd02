"""The images nearest to others, by the cosine of their features."""

import numpy as np

CHUNK = 1024  # images that are compared with all others at once


def unit(features: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row of zeros stays one."""
    return features / np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), 1e-12)


def nearest(features: np.ndarray, others: np.ndarray, number: int, same: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The nearest of other images to each image, the nearest first.

    Args:
      features: `[N, D]`.
      others: `[M, D]`.
      number: K, how many; fewer where there are fewer others.
      same: whether both are the same images: none is its own neighbour then.

    Returns:
      Rows of `others`, int `[N, K]`, and their distances, 1 - cosine, float32 `[N, K]`.
    """
    known = unit(np.asarray(others, np.float32))
    number = min(number, len(known) - same)
    rows, distances = np.zeros((len(features), number), int), np.zeros((len(features), number), np.float32)
    for first in range(0, len(features) if number else 0, CHUNK):
        part = slice(first, min(first + CHUNK, len(features)))
        away = 1 - unit(np.asarray(features[part], np.float32)) @ known.T
        if same:
            away[np.arange(len(away)), np.arange(part.start, part.stop)] = np.inf
        near = np.argpartition(away, number - 1, axis=1)[:, :number]
        order = np.argsort(np.take_along_axis(away, near, 1), axis=1, kind="stable")
        rows[part] = np.take_along_axis(near, order, 1)
        distances[part] = np.take_along_axis(away, rows[part], 1)
    return rows, np.maximum(distances, 0)
