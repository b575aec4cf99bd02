"""From a configuration to the run's data."""

from collections.abc import Mapping

import ml_collections

from ncl_jax.data import dataset
from ncl_jax.data.holdout import RULE
from ncl_jax.data.types import Request
from ncl_jax.runtime.files import expand


def data(
    config: ml_collections.ConfigDict,
    rule: int = RULE,
    pinned: Mapping[str, str] | None = None,
    skip_rows: bool = False,
) -> dataset.Data:
    """Loads the run's data; `rule` and `pinned` as in `Request`; with `skip_rows`, rows of lists without a label or a
    file are skipped, whatever is configured. Raises DataError, see `dataset.load`."""
    fields = config.data
    return dataset.load(
        request(config)._replace(rule=rule, pinned=pinned or {}, skip=skip_rows or fields.skip_unreadable),
        fields.imbalance,
        size=fields.image_size,
        evaluated=fields.eval_split,
        skip_unreadable=fields.skip_unreadable,
        val_share=fields.val_share,
        labels=expand("data.labels", fields.labels) if fields.labels else None,
    )


def request(config: ml_collections.ConfigDict) -> Request:
    """What is asked of the source."""
    fields = config.data
    return Request(
        fields.name, expand("data.dir", fields.dir), fields.download, fields.list.to_dict(), fields.test_share,
        fields.layout, fields.group_by, fields.columns.to_dict(), fields.skip_unreadable,
    )  # fmt: skip


def absolute_paths(config: ml_collections.ConfigDict) -> None:
    """Makes the data's folder and lists, and the text tower's files, independent of the working directory."""
    fields = config.data
    fields.dir = str(expand("data.dir", fields.dir).absolute())
    for name in ("text", "class_vectors"):
        if config.model[name] and (file := expand(f"model.{name}", config.model[name])).is_file():
            config.model[name] = str(file.absolute())
    if fields.labels:
        fields.labels = str(expand("data.labels", fields.labels).absolute())
    for name, path in fields.list.items():
        if path and fields.name != "folder" and (file := expand(f"data.list.{name}", path)).is_file():
            fields.list[name] = str(file.absolute())
