"""What a run's model says of every image that it was evaluated on, and the pictures of its report."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ncl_jax.data.images import parallel, thumbnails
from ncl_jax.data.types import Split
from ncl_jax.evaluation import shown
from ncl_jax.evaluation.metrics import Answers

NEAREST = 3  # training images that stand below a mistake
MOST_BYTES = 1_900_000  # of all pictures: a page holds them as text, a third longer
SIDES = {700: 128, 1200: 96, shown.MOST: 64}  # of up to so many pictures, in pixels
SIDE = max(SIDES.values())


class Near(NamedTuple):
    """The training images nearest to M mistakes, K to each, the nearest first."""

    mistakes: np.ndarray  # int32 [M]: rows of the mistakes
    near: np.ndarray  # int32 [M, K]: rows of training images
    near_labels: np.ndarray  # int32 [M, K]
    distances: np.ndarray  # float32 [M, K]: 1 - cosine


class Pictures(NamedTuple):
    """JPEGs of S test and T training images, in this order; the test images' rows, then the training images', as they
    matter. One that is empty could not be read."""

    tested: np.ndarray  # int32 [S]: rows
    trained: np.ndarray  # int32 [T]: rows
    trained_labels: np.ndarray  # int32 [T]
    ends: np.ndarray  # int64 [S + T]: where each ends in `jpegs`
    jpegs: np.ndarray  # uint8

    def jpeg(self, place: int) -> bytes:
        """A picture by its place."""
        return self.jpegs[self.ends[place - 1] if place else 0 : self.ends[place]].tobytes()


class Predictions(NamedTuple):
    """Of N images in the order of their split, by P predictors: the ensemble, then each expert; of C classes.

    What comes last is None where it is not known: older runs kept `labels`, `top` and `confidence` alone.
    """

    labels: np.ndarray  # int32 [N]
    top: np.ndarray  # int32 [P, N]: the class that a predictor names
    confidence: np.ndarray  # float32 [P, N]: its probability
    true: np.ndarray | None = None  # float32 [N]: the ensemble's probability of the image's class
    margin: np.ndarray | None = None  # float32 [N]: by how much its largest probability exceeds the second
    near: Near | None = None
    pictures: Pictures | None = None
    known: np.ndarray | None = None  # float32 [N]: the share of known images that are as unlike those of training
    sets: np.ndarray | None = None  # bool [N, C]: the prediction sets


Nearest = Callable[[np.ndarray], Near | None]  # of rows of mistakes


def make(answers: Answers, test: Split, train: Split, num_classes: int, nearest: Nearest | None = None) -> Predictions:
    """What is kept of the answers for the images of `test`, with the pictures that a report shows.

    Args:
      answers: in the order of `test`.
      test, train: with images as they are in their files.
      num_classes: C.
      nearest: finds the training images nearest to mistakes; None where nothing can.
    """
    seen = np.asarray(answers.labels), answers.top[0], answers.confidence[0]
    rows = np.array(
        [row for trained, row in shown.order(*seen, train.labels, {}, num_classes) if not trained], np.int32
    )
    near = neighbours_of(nearest, rows)
    by_row = {} if near is None else dict(zip(near.mistakes.tolist(), near.near, strict=True))
    places = shown.order(*seen, train.labels, by_row, num_classes)
    pictures = _pictures(places, test, train)
    return Predictions(answers.labels, answers.top, answers.confidence, answers.true, answers.margin, near, pictures)


def neighbours_of(nearest: Nearest | None, rows: np.ndarray) -> Near | None:
    """The neighbours of these mistakes, where there are mistakes and something finds them."""
    return nearest(rows) if nearest and len(rows) else None


def _pictures(places: list[shown.Place], test: Split, train: Split) -> Pictures:
    """The pictures of the first of these images, as many as `MOST_BYTES` hold."""
    side = next(side for number, side in SIDES.items() if len(places) <= number)
    images = {True: train.images, False: test.images}

    def attempt(place: int) -> bytes:
        is_training, row = places[place]
        try:
            return thumbnails.jpeg(images[is_training], row, side)
        except Exception:  # whatever is wrong with a file, a run does not fail at its end for a picture
            return b""

    made: list[bytes] = []
    left = MOST_BYTES
    for content in parallel.in_threads(attempt, len(places), "pictures for the report"):
        left -= len(content)
        if left < 0:
            break
        made.append(content)
    return _packed(list(zip(places, made, strict=False)), train.labels)


def _packed(made: list[tuple[shown.Place, bytes]], train_labels: np.ndarray) -> Pictures:
    """The pictures, those of test images first."""
    kinds = [[(row, content) for (trained, row), content in made if trained is kind] for kind in (False, True)]
    tested, trained = (np.array([row for row, _ in kind], np.int32) for kind in kinds)
    contents = [content for kind in kinds for _, content in kind]
    ends = np.cumsum([len(content) for content in contents], dtype=np.int64)
    labels = np.asarray(train_labels)[trained].astype(np.int32)
    return Pictures(tested, trained, labels, ends, np.frombuffer(b"".join(contents), np.uint8))


def sample(labels: Any, most: int) -> np.ndarray:
    """Rows of at most `most` images, rising: every class keeps all, or as many as each other large one; drawn by chance
    that is always the same."""
    labels = np.asarray(labels)
    if len(labels) <= most:
        return np.arange(len(labels))
    counts = np.sort(np.bincount(labels))
    left, cap = most, 0
    for place, count in enumerate(counts):
        cap = left // (len(counts) - place)
        if count > cap:
            break
        left -= count
    drawn = np.random.RandomState(0).permutation(len(labels))  # the same in every NumPy
    return np.sort(np.concatenate([rows[:cap] for rows in shown.by_class(labels, drawn, len(counts))]))
