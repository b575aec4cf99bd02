"""The data of a run that was trained before."""

import ml_collections

from ncl_jax.config.build_data import data, request
from ncl_jax.data import dataset
from ncl_jax.data.sources import labelled
from ncl_jax.data.types import Split
from ncl_jax.errors import DataError
from ncl_jax.runtime.files import expand, name_text
from ncl_jax.storage import listing
from ncl_jax.storage.directory import RunDir

MOST_COMPARED = 100_000  # files of train and test of which copies are looked for when a run starts


def same_data(config: ml_collections.ConfigDict, directory: RunDir) -> dataset.Data:
    """The data of a run, where it has been read before: nothing is downloaded.

    Raises:
      DataError: it cannot be read, or is not what the run was trained on.
    """
    config = ml_collections.ConfigDict(config.to_dict())
    config.data.download = False
    if config.data.labels:  # as they were when the run began
        config.data.labels = str(directory.labels)
    found = data(config, directory.split_rule(), directory.pinned())
    if changed := directory.changed(found):
        raise DataError(f"the data in {config.data.dir} is not what the run was trained on: {changed}")
    return found


def data_left(config: ml_collections.ConfigDict, directory: RunDir) -> tuple[Split, list[str]]:
    """The images that a run is evaluated on; where the data has changed since, those of them that are as they were,
    and a line that says so.

    Raises:
      DataError: see `same_data`, where none is.
    """
    try:
        return same_data(config, directory).test, []
    except DataError as error:
        facts, root = directory.read_facts(), request(config).directory
        split, number = listing.left(directory.read_files(), facts.split, root, facts.class_names)
        if not len(split):
            raise
        kept = f"{len(split):,} of {number:,} {facts.split} images of the run, which are as they were"
        return split, [f"note: {error}. These are the figures of {kept}"]


def new_data(
    config: ml_collections.ConfigDict, directory: RunDir, place: str, data_dir: str | None
) -> tuple[Split, list[str]]:
    """Other images with labels than those of a run, and lines to be shown, also where the run was trained on some of
    them; files that cannot be read are skipped where the run's were (`data.skip_unreadable`).

    Raises:
      DataError: see `labelled.read`.
    """
    facts = directory.read_facts()
    skip, root = config.data.skip_unreadable, None if data_dir is None else expand("--data_dir", data_dir)
    split, notes = labelled.read(expand("--data", place), facts.class_names, root, skip)
    lost: list[tuple[str, str]] = []
    if skip:
        split, _, lost = dataset.readable(split, facts.class_names, "the given images")
    if not len(split):
        raise DataError(f"--data={place}: no image can be read: replace them")
    present = len(set(split.labels.tolist()))
    counts = f"{len(split):,} images of {present:,} of {facts.num_classes:,} classes, from {place}"
    unreadable = [f"unreadable images that are skipped: {len(lost):,}"] * bool(lost)
    return split, [counts, *notes, *unreadable, *trained_on(config, directory, split)]


def trained_on(config: ml_collections.ConfigDict, directory: RunDir, split: Split) -> list[str]:
    """A line where a run was trained on some of these images."""
    root = expand("data.dir", config.data.dir)
    number = listing.known(directory.read_files(), "train", root, split)
    text = f"warning: {number:,} of these {len(split):,} images were trained on: the figures are too good for new ones"
    return [text] * bool(number)


def copies(data: dataset.Data) -> list[str]:
    """A line where files of the split that is evaluated seem to be in train too, by their sizes and ends."""
    test, train = data.test, data.train
    if (
        not hasattr(train.images, "names")
        or not hasattr(test.images, "names")
        or len(train) + len(test) > MOST_COMPARED
    ):
        return []
    number = listing.known(list(map(name_text, data.listing())), "train", train.images.root, test)
    text = (
        f"warning: {number:,} of {len(test):,} {data.facts.split} images seem to be in train too, file for file: the "
        "figures are too good; ncl-jax inspect names such images, and near copies"
    )
    return [text] * bool(number)
