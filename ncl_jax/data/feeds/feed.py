"""Where a run's batches come from: a feed hands out sources, from which a step takes its batch inside the program.

`batches(first_step)` yields `(source, count)`: with this source the next `count` steps can be taken, in one call if
the caller likes. `take(source, step)` gives the batch of one of them; it is traced into the program that uses it. A
feed whose data lives on the devices hands out the same arrays for a whole epoch, and `take` gathers rows; a streamed
one hands out finished batches, `count` 1, and `take` returns the source.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from ncl_jax.runtime.devices import replicated


class Batch(NamedTuple):
    """What a step or an evaluation takes from a feed."""

    images: jax.Array  # uint8 [B, V, H, W, 3]: V views that the feed has cut, 1 where all are made of the same pixels
    labels: jax.Array  # int32 [B]
    valid: jax.Array | None = None  # bool [B], in evaluation: false for rows that only fill the batch up


class Feed(Protocol):
    """The order of the batches depends on seed and step alone, so that a run continues at any step.

    Attributes:
      cut: whether the images have been through the host's part of the views, see `views.make_view`.
      waited: seconds that the caller has waited for batches.
    """

    cut: bool
    waited: float

    def batches(self, first_step: int) -> Iterator[tuple[Any, int]]:
        """The sources from step `first_step` (from 0) on, each with the number of steps that it serves."""
        ...

    def take(self, source: Any, step: jax.Array) -> Batch:
        """The batch of a step; for use under `jit`."""
        ...

    def like(self) -> Any:
        """The shapes of a source."""
        ...

    def close(self) -> None:
        """Ends what reads ahead."""
        ...


def over(feed: Feed, mesh: Mesh, function: Callable[[Batch, Any], Any]) -> Callable[..., list]:
    """Makes `run(argument, most=None)`, which gives the results of `function(batch, argument)` for all that a test feed
    holds, or for its first `most` batches.

    Nothing waits for the results: they are arrays on all devices of the mesh, ready when they are read.
    """
    place = replicated(mesh)

    @functools.partial(jax.jit, out_shardings=place)
    def one(argument, source, step):
        return function(feed.take(source, step), argument)

    def run(argument: Any, most: int | None = None) -> list:
        results: list = []
        for source, count in feed.batches(0):
            for _ in range(count):
                if len(results) == most:
                    feed.close()
                    return results
                results.append(one(argument, source, jax.device_put(np.int32(len(results)), place)))
        return results

    return run
