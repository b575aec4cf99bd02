"""Classification by the names of classes alone: CLIP or SigLIP, without a training image."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import ml_collections
import numpy as np

from ncl_jax.config import backbone, build
from ncl_jax.config.fields import base_config
from ncl_jax.data.dataset import Facts
from ncl_jax.data.images.decode import Images, prepare
from ncl_jax.data.sources import labelled, levels
from ncl_jax.data.sources.list_files import read_names
from ncl_jax.data.sources.names import clean, fault
from ncl_jax.data.sources.splits import visible
from ncl_jax.data.sources.walk import Unused
from ncl_jax.errors import ConfigError, DataError
from ncl_jax.models.named import TEXT
from ncl_jax.runs import class_vectors, computing, pretrained, text
from ncl_jax.runs.predict import find_files
from ncl_jax.runtime.files import expand


class ZeroShot:
    """A classifier by text, which `predict.score` and `answers` take for a run's model.

    Args:
      config: of a frozen backbone, see `configuration`.
      class_names: [C].

    Raises:
      ConfigError, DataError: the weights or the vocabulary are missing, damaged, or do not fit.
    """

    def __init__(self, config: ml_collections.ConfigDict, class_names: Sequence[str]):
        side = config.data.image_size
        self.class_names, counts = tuple(class_names), (1,) * len(class_names)
        self.facts = Facts("zero-shot", (side, side, 3), self.class_names, counts, "")
        plan = build.make_plan(config, self.facts)
        start = pretrained.load(config, plan)
        assert start is not None
        self._vectors, self.record = text.class_vectors(
            text.find(config.model), self.class_names, config.model.template
        )
        class_vectors.check_width(self._vectors, plan)
        self._pixels, self._compute = plan.preprocessing, computing.Computing(plan, start.trunk)

    def prepare(self, images: Images) -> np.ndarray:
        """Images as the network takes them, see `decode.prepare`."""
        pixels = self._pixels
        return prepare(images, self.facts.image_shape, pixels.resize, pixels.size, pixels.interpolation)

    def experts(self, images: np.ndarray) -> np.ndarray:
        """Scores float32 `[1, B, C]` of images uint8 `[B, H, W, 3]`; softmax gives probabilities."""
        return self._vectors.scores(self._compute(images))[None]


class Wanted(NamedTuple):
    """What is to be classified."""

    class_names: tuple[str, ...]
    files: list[str]
    labels: np.ndarray | None  # int32 [N], where folders say them
    notes: list[str]


def configuration(name: str, weights: str, tower: str, template: str) -> ml_collections.ConfigDict:
    """The configuration of a frozen backbone of `TEXT`. Raises ConfigError for another, or a text without {name}."""
    if name not in TEXT:
        raise ConfigError(f"--backbone={name} has no text tower; those with one: {', '.join(TEXT)}")
    if not all("{name}" in part for part in template.split("|")):
        raise ConfigError(f"--template={template} must hold {{name}}, in each of its parts between |")
    config = base_config()
    backbone.use(config, name, pretrained=weights)
    config.model.text, config.model.template = tower, template
    return config


def wanted(names: Sequence[str], classes: str) -> Wanted:
    """The classes and the image files that arguments name.

    Args:
      names: files and folders; the folders of a single one are classes, and say the images' labels.
      classes: a file of class names, one a line; empty: the folders' names.

    Raises:
      ConfigError, DataError: there are none, or folders that are only partly classes.
    """
    place = expand("IMAGE_OR_FOLDER", names[0])
    folder = place if len(names) == 1 and place.is_dir() else None
    if classes:
        found, notes = read_names(expand("--classes", classes))
        class_names = tuple(clean(name) for name in found)
        if faults := list(filter(None, map(fault, class_names))):
            raise DataError(f"--classes={classes} would make {faults[0]}: correct the name")
        if len(set(class_names)) < len(class_names):
            raise DataError(f"--classes={classes} has a name twice")
        known = {clean(name) for name in visible(folder)} & set(class_names) if folder else set()
        if not known:
            return Wanted(class_names, find_files(names), None, list(notes))
    elif folder is None:
        raise ConfigError("--classes=FILE is missing: the classes' names, one a line; or pass one folder of classes")
    else:
        class_names, notes = _folders(folder), ()
    assert folder is not None
    split, lines = labelled.read(folder, class_names)
    files = [str(split.images.root / name) for name in split.images.names]
    return Wanted(class_names, files, split.labels, [*notes, *lines])


def _folders(place: pathlib.Path) -> tuple[str, ...]:
    """The names of the folders of classes in a folder, or in the one split that it holds."""
    return tuple(levels.classes(labelled.split_in(place, None, Unused())))


def accuracy(answers: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """The share of right answers, int [N], over all images and as the mean over the classes that have any."""
    right, present = answers == labels, np.unique(labels)
    return float(right.mean()), float(np.mean([right[labels == label].mean() for label in present]))
