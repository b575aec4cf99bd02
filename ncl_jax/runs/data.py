"""The data of a run that was trained before."""

import ml_collections

from ncl_jax.config.build_data import data
from ncl_jax.data import dataset
from ncl_jax.errors import DataError
from ncl_jax.storage.directory import RunDir


def same_data(config: ml_collections.ConfigDict, directory: RunDir) -> dataset.Data:
    """The data of a run, where it has been read before: nothing is downloaded.

    Raises:
      DataError: it cannot be read, or is not what the run was trained on.
    """
    config = ml_collections.ConfigDict(config.to_dict())
    config.data.download = False
    if config.data.labels:  # as they were when the run began
        config.data.labels = str(directory.labels)
    found = data(config)
    if found.facts != directory.read_facts():
        raise DataError(f"the data in {config.data.dir} is not what the run was trained on ({directory.facts})")
    return found
