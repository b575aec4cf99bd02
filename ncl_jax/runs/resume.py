"""The configuration of a run that is continued without its command."""

import ml_collections

from ncl_jax import methods
from ncl_jax.config.fields import without_notes
from ncl_jax.errors import ConfigError
from ncl_jax.storage.directory import RunDir


def own_config(directory: RunDir) -> ml_collections.ConfigDict:
    """A run's configuration, without what `config.json` notes beside it, and with its own copy of corrected labels."""
    config = without_notes(directory.read_config())
    if config.data.labels:
        config.data.labels = str(directory.labels)
    return config


def again(directory: RunDir) -> ml_collections.ConfigDict:
    """What a run continues with. No code that its files name is run.

    Raises:
      ConfigError: the directory holds no run, or one whose method is from a file of its own.
    """
    config = own_config(directory)
    if config.loss.name not in methods.objectives():
        raise ConfigError(
            f"{directory} was trained with loss.name={config.loss.name}, code that is not part of ncl_jax and that a "
            "run's directory is not trusted to name: pass the run's own command, with its --config"
        )
    return config
