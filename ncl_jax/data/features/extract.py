"""From images to the features of a frozen backbone: decoded in threads, computed on the devices, kept in shards."""

import contextlib
import functools
import hashlib
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import numpy as np

from ncl_jax.data.features.cache import Shards
from ncl_jax.data.images import parallel, transforms
from ncl_jax.data.types import Preprocessing, Split, name_of
from ncl_jax.errors import DataError

Compute = Callable[[np.ndarray], np.ndarray]  # uint8 [B, size, size, 3] -> float32 [B, D]


class Views(NamedTuple):
    """Which views of an image are made.

    Attributes:
      number: V training views after the test view, each with draws that follow from the image's row and the view
        alone; 0: the test view only.
      flip: whether a training view is flipped left to right in half of the draws.
      scale: share of the area that a training view shows, from and to.
    """

    number: int = 0
    flip: bool = True
    scale: tuple[float, float] = (0.35, 1.0)

    @property
    def each(self) -> int:
        """Views of each image."""
        return 1 + self.number


def views_of(image: np.ndarray, row: int, views: Views, pixels: Preprocessing) -> np.ndarray:
    """The views of one image, uint8 `[1 + V, size, size, 3]`."""
    plain = transforms.fit(image, pixels.resize, pixels.size, pixels.interpolation)
    return np.stack([plain, *(_training_view(image, row, view, views, pixels) for view in range(views.number))])


def _training_view(image, row, view, views, pixels):
    rng = np.random.Generator(np.random.Philox(key=[0, row], counter=[0, 0, 0, view]))
    cut = transforms.random_resized_crop(
        rng, image, size=pixels.size, scale=views.scale, interpolation=pixels.interpolation
    )
    return cut[:, ::-1] if views.flip and rng.random() < 0.5 else cut


def identity(split: Split) -> str:
    """What the images of a split are, as a digest: of the pixels, of the files' names, sizes, times and parts of their
    content, or of what is read instead of files."""
    images, digest = split.images, hashlib.sha256()
    if isinstance(images, np.ndarray):
        digest.update(str(images.shape).encode())
        digest.update(np.ascontiguousarray(images).data)
    elif hasattr(images, "stamps"):
        digest.update("\n".join(images.stamps()).encode("utf-8", "surrogateescape"))
    else:
        for row in range(len(split)):
            digest.update(hashlib.sha256(np.asarray(images[row]).tobytes()).digest())
    return digest.hexdigest()


def extract(
    split: Split,
    shards: Shards,
    views: Views,
    pixels: Preprocessing,
    compute: Compute,
    *,
    batch_size: int,
    text: str,
    part: tuple[int, int] = (0, 1),
    before: Callable[[int], None] = lambda images: None,
    after_shard: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """The features of all views of all images, float32 `[N, 1 + V, D]`: read from the shards, or else computed.

    Args:
      split: the images.
      shards: where they are kept.
      views: which views.
      pixels: see `Preprocessing`.
      compute: uint8 [B, size, size, 3] to float32 [B, D], always of `batch_size` images.
      batch_size: B.
      text: for the progress bar.
      part: this process's number and how many there are: it computes every so many-th shard; the rows of the others
        are 0.
      before: called with the number of this process's images that are to be computed, before they are.
      after_shard: called when a shard has been kept; what it raises ends the work.

    Raises:
      DataError: an image cannot be read, or its features are not finite.
    """
    own = range(part[0], shards.count, part[1])
    result, missing = np.zeros(shards.shape, np.float32), []
    for number in own:
        known = shards.read(number)
        if known is None:
            missing.append(number)
        else:
            result[shards.slice(number)] = known
    every = np.arange(len(split))
    rows = np.concatenate([every[shards.slice(number)] for number in missing] or [every[:0]])
    before(len(rows))
    with contextlib.closing(_computed(split, rows, views, pixels, compute, batch_size, text)) as source:
        for number in missing:
            made = np.stack([next(source) for _ in every[shards.slice(number)]])
            if not np.isfinite(made).all():
                row = int(every[shards.slice(number)][~np.isfinite(made).all((1, 2))][0])
                raise DataError(
                    f"{name_of(split.images, row)}: its features are infinite or not a number; replace the weights of "
                    "the frozen backbone (model.pretrained), or set precision=float32"
                )
            result[shards.slice(number)] = made
            shards.write(number, made)
            after_shard()
    shards.touch()
    return result


def _computed(split, rows, views, pixels, compute, batch_size, text) -> Generator[Any, None, None]:
    """The features `[V, D]` of each of the rows, in their order."""
    look = functools.partial(_look, split, rows, views, pixels)
    waiting: list[np.ndarray] = []
    left: list[np.ndarray] = []
    for made in parallel.in_threads(look, len(rows), text):
        waiting.extend(made)
        while len(waiting) >= batch_size:
            left.extend(compute(np.stack(waiting[:batch_size])))
            del waiting[:batch_size]
        while len(left) >= views.each:
            yield np.stack(left[: views.each])
            del left[: views.each]
    if waiting:
        filled = waiting + waiting[:1] * (batch_size - len(waiting))
        left.extend(compute(np.stack(filled))[: len(waiting)])
    for first in range(0, len(left), views.each):
        yield np.stack(left[first : first + views.each])


def _look(split, rows, views, pixels, index):
    return views_of(parallel.needed(split.images, rows[index]), int(rows[index]), views, pixels)
