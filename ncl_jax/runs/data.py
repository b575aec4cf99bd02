"""The data of a run that was trained before."""

import ml_collections

from ncl_jax.config.build_data import data, request
from ncl_jax.data import dataset
from ncl_jax.data.types import Split
from ncl_jax.errors import DataError
from ncl_jax.storage import listing
from ncl_jax.storage.directory import RunDir


def same_data(config: ml_collections.ConfigDict, directory: RunDir) -> dataset.Data:
    """The data of a run, where it has been read before: nothing is downloaded.

    Raises:
      DataError: it cannot be read, or is not what the run was trained on.
    """
    config = ml_collections.ConfigDict(config.to_dict())
    config.data.download = False
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
