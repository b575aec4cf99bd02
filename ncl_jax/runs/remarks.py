"""What would stop or spoil a run on a data set, what should be known of it, and which fields suit it."""

import ml_collections
import numpy as np

from ncl_jax.config import build, checks, recipes
from ncl_jax.config.fields import flatten
from ncl_jax.data.augment import views
from ncl_jax.data.dataset import Data
from ncl_jax.data.feeds.resident import LARGEST_RESIDENT, alike, decoded_bytes
from ncl_jax.data.images import examine
from ncl_jax.data.images.examine import Examined
from ncl_jax.data.longtail import count_labels
from ncl_jax.errors import ConfigError, printable
from ncl_jax.report.findings import Remark


def suggestions(config: ml_collections.ConfigDict, data: Data, sizes: np.ndarray) -> list[str]:
    """What suits these data and differs from what the configuration has, a line for each field; with a frozen backbone
    neither the size of the images, which is the backbone's, nor the data loader is to be chosen."""
    fitted = ml_collections.ConfigDict(config.to_dict())
    recipes.fit_batch(fitted, data.facts.num_train)
    values = {
        "loss.num_hard": recipes.num_hard(data.facts.num_classes),
        "optim.batch_size": fitted.optim.batch_size,
    }
    frozen = build.on_features(config)
    if not isinstance(data.train.images, np.ndarray) and not frozen:
        sizes = sizes[sizes.min(1) > 0]
        size = recipes.size_for(sizes) if len(sizes) else 0
        small = decoded_bytes(len(data.train), size) <= LARGEST_RESIDENT
        whole = not all(views.resizes(name) for name in build.view_names(config)) or alike(sizes)
        values |= {"data.image_size": size, "data.feed": "resident" if small and whole else "stream"}
    present = flatten(config)
    lines = [
        f"these data suggest --config.{name}={value} (the configuration has {present[name]})"
        for name, value in values.items()
        if present[name] not in (value, "auto")
    ]
    if frozen:
        side, name = config.data.image_size, config.model.pretrained
        lines.append(f"features of {name} at {side} pixels, computed once: docs/features.md")
    return lines


def problems(config: ml_collections.ConfigDict, data: Data, examined: dict[str, Examined]) -> list[Remark]:
    """What would stop or spoil a run."""
    found = []
    for name, part in examined.items():
        if part.errors:
            found.append(Remark(f"unreadable images in {name}: {len(part.errors)}", part.errors))
    for name, part in examined.items():
        if name != "train" and (pairs := examine.shared(examined["train"], part)):
            places = _places(data, "train", name, pairs)
            found.append(Remark(f"images that are both in train and in {name}: {len(pairs)} of {name}", places))
    found += map(Remark, data.faults)
    if data.left_out and not config.data.skip_unreadable:
        found.append(Remark(_skipped(data), data.left_out))
    try:
        checks.check_against_data(config, data.facts.num_train, data.facts.num_classes)
    except ConfigError as error:
        found.append(Remark(str(error)))
    return found


def _skipped(data: Data) -> str:
    return f"rows of lists or classes without a label, a file or an image: {len(data.left_out)}"


def remarks(config: ml_collections.ConfigDict, data: Data, examined: dict[str, Examined]) -> list[Remark]:
    """What should be known, but stops nothing."""
    found, names = list(map(Remark, data.notes)), data.facts.class_names
    if data.left_out and config.data.skip_unreadable:
        found.append(Remark(_skipped(data), data.left_out))
    for name, split in data.splits().items():
        lacking = [printable(names[label]) for label in np.flatnonzero(count_labels(split.labels, len(names)) == 0)]
        if lacking:
            text = f"classes without an image in {name} (no figure can be given): {len(lacking)}"
            found.append(Remark(text, lacking))
    for name, part in examined.items():
        if part.flat.any():
            lines = [data.place(name, row) for row in np.flatnonzero(part.flat).tolist()]
            found.append(Remark(f"images of one colour, or nearly, in {name}: {len(lines)}", lines))
    same, other = (_of_two_files(data, pairs) for pairs in examine.repeated(data.train, examined["train"]))
    if other:
        places = _places(data, "train", "train", other)
        found.append(Remark(f"training images that are in two classes: {len(other)}", places))
    if same:
        places = _places(data, "train", "train", same)
        found.append(Remark(f"training images that repeat an earlier one of their class: {len(same)}", places))
    return found


def _of_two_files(data: Data, pairs: examine.Pairs) -> list[tuple[int, int]]:
    """The pairs without those of one file that a list names twice, which has lines of its own."""
    names = getattr(data.train.images, "names", None)
    return [pair for pair in pairs if names is None or names[pair[0]] != names[pair[1]]]


def _places(data: Data, first: str, second: str, pairs: examine.Pairs) -> list[str]:
    """Where images are that are the same, a line for each pair."""
    return [f"{data.place(first, one)} is {data.place(second, other)}" for one, other in pairs]
