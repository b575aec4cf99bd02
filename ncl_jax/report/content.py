"""All of a finished run that a page shows."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import ml_collections

from ncl_jax.config.choose import method_of
from ncl_jax.config.fields import complete
from ncl_jax.data.dataset import Facts
from ncl_jax.evaluation.predictions import Predictions

OWN_IMAGES = ("folder", "list", "tfds")


class Names(NamedTuple):
    """Where images are, below the folder of the data, in the order of their split; empty for data in memory."""

    tested: Sequence[str] = ()
    trained: Sequence[str] = ()

    def of_test(self, row: int) -> str:
        """Where a test image is."""
        return self.tested[row] if row < len(self.tested) else f"test image {row}"

    def of_training(self, row: int) -> str:
        """Where a training image is."""
        return self.trained[row] if row < len(self.trained) else f"training image {row}"


class RunContent(NamedTuple):
    """A finished run."""

    name: str
    results: dict
    facts: Facts
    metrics: list[dict]
    predictions: Predictions | None  # None for a run that did not keep them
    names: Names = Names()

    @property
    def config(self) -> ml_collections.ConfigDict:
        """Its configuration."""
        return complete(self.results["config"])

    @property
    def method(self) -> str:
        """The method by its name, or what the loss is called."""
        return method_of(self.config)

    @property
    def data(self) -> str:
        """What it was trained on: the data set's name, of own images their folder's."""
        fields = self.results["config"]["data"]
        parts = pathlib.PurePath(fields["dir"]).parts[-2 if fields["name"] == "tfds" else -1 :]  # NAME/VERSION
        return "/".join(parts) if fields["name"] in OWN_IMAGES else self.results["dataset"]
