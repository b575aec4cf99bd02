"""From a configuration to the run's data and to where its batches come from."""

import functools

import jax
import ml_collections
from jax.sharding import Mesh

from ncl_jax.config import expand
from ncl_jax.data import decoding, feeds, pipeline, storing, stream, views
from ncl_jax.data.sources import Request, Split
from ncl_jax.errors import DataError
from ncl_jax.rundir import RunDir


def data(config: ml_collections.ConfigDict) -> pipeline.Data:
    """Loads the run's data. Raises DataError, see `pipeline.load`."""
    fields = config.data
    request = Request(
        fields.name, expand("data.dir", fields.dir), fields.download, fields.list.to_dict(), fields.test_share
    )
    return pipeline.load(
        request,
        fields.imbalance,
        size=fields.image_size,
        evaluated=fields.eval_split,
        skip_unreadable=fields.skip_unreadable,
        val_share=fields.val_share,
    )


def same_data(config: ml_collections.ConfigDict, directory: RunDir) -> pipeline.Data:
    """The data of a run, where it has been read before: nothing is downloaded.

    Raises:
      DataError: it cannot be read, or is not what the run was trained on.
    """
    config = ml_collections.ConfigDict(config.to_dict())
    config.data.download = False
    found = data(config)
    if found.facts != directory.read_facts():
        raise DataError(f"the data in {config.data.dir} is not what the run was trained on ({directory.facts})")
    return found


def absolute_paths(config: ml_collections.ConfigDict) -> None:
    """Makes the data's folder and lists independent of the working directory."""
    fields = config.data
    fields.dir = str(expand("data.dir", fields.dir).absolute())
    for name, path in fields.list.items():
        if path and (file := expand(f"data.list.{name}", path)).is_file():
            fields.list[name] = str(file.absolute())


def image_sizes(config: ml_collections.ConfigDict, facts: pipeline.Facts) -> tuple[int, int]:
    """The shorter side before the test transform's centre crop, and the side of what the network sees."""
    size = facts.image_shape[0]
    return config.data.resize or size, size


def view_names(config: ml_collections.ConfigDict) -> list[str]:
    """The classifier's view and, with self-supervision, the key encoder's."""
    return [config.data.augment, *([config.contrast.augment] if config.contrast.weight else [])]


def resizes(config: ml_collections.ConfigDict) -> bool:
    """Whether the training views begin by cutting an image of any size to the network's."""
    return all(views.resizes(name) for name in view_names(config))


def training_feed(config: ml_collections.ConfigDict, data: pipeline.Data, key: jax.Array, mesh: Mesh) -> feeds.Feed:
    """Where the training batches come from; `key` is that of a resident feed's order."""
    (resize, size), names, batch_size = image_sizes(config, data.facts), view_names(config), config.optim.batch_size
    images = storing.stored(
        data.train,
        feed=config.data.feed,
        size=size,
        resize=resize,
        resizes=resizes(config),
        text="decoding the training images",
    )
    if images is not None:
        return feeds.Resident(images, data.train.labels, key, batch_size, mesh)
    of_copies, *of_keys = [views.host_part(name, size) for name in names]
    parts = [of_copies] * (config.loss.copies if of_copies else 1) + of_keys  # every copy has its own crop
    cut = stream.Cut(parts if any(parts) else [None], resize, size)
    order = stream.Shuffled(config.seed, len(data.train), batch_size)
    return _stream(config, functools.partial(stream.Batches, data.train, order, cut, config.seed), batch_size, mesh)


def _stream(config, batches, batch_size, mesh):
    make = functools.partial(batches, batch_size)
    threads = config.data.threads or decoding.cores()
    return stream.Stream(make, batch_size, mesh, threads=threads, workers=config.data.workers)


def test_feed(
    config: ml_collections.ConfigDict, split: Split, name: str, facts: pipeline.Facts, mesh: Mesh
) -> feeds.Feed:
    """Where the batches of a split come from that is evaluated; `name` is that of the split."""
    resize, size = image_sizes(config, facts)
    # Not more than there are, but a number that the devices can share.
    devices = mesh.shape["data"]
    most = -(-min(config.run.eval_batch, len(split)) // devices) * devices
    text = f"decoding the {name} images"
    images = storing.stored(split, feed=config.data.feed, size=size, resize=resize, resizes=False, text=text)
    if images is not None:
        return feeds.ResidentTest(images, split.labels, most, mesh)
    order, cut = stream.InOrder(len(split), most), stream.Cut([None], resize, size)
    return _stream(config, functools.partial(stream.Batches, split, order, cut, 0), most, mesh)
