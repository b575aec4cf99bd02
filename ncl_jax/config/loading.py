"""From a plan to the data loaders of its run."""

import functools

import jax

from ncl_jax.config.plan import Plan, TrainingPlan
from ncl_jax.data import dataset
from ncl_jax.data.augment import views
from ncl_jax.data.feeds import stream
from ncl_jax.data.feeds.features import evaluation_features, training_features
from ncl_jax.data.feeds.feed import Feed
from ncl_jax.data.feeds.resident import Resident, ResidentTest, stored
from ncl_jax.data.images import parallel
from ncl_jax.data.types import Split


def training_feed(plan: TrainingPlan, data: dataset.Data, key: jax.Array) -> Feed:
    """Where the training batches come from; `key` is that of a resident feed's order. Of heads on a frozen backbone
    the images of `data` are its features, float32 [N, 1 + V, D], see `trunk.features`."""
    assert plan.mesh is not None
    if plan.on_features:
        number = plan.copies + len(plan.views) - 1  # one more for the key encoder
        images, labels = data.train
        return training_features(images, labels, key, plan.batch_size, plan.mesh, number, _threads(plan))
    pixels, batch_size = plan.preprocessing, plan.batch_size
    images = stored(
        data.train,
        feed=plan.loading.feed,
        size=pixels.size,
        resize=pixels.resize,
        resizes=all(views.resizes(name) for name in plan.views),
        text="decoding the training images",
        interpolation=pixels.interpolation,
    )
    if images is not None:
        return Resident(images, data.train.labels, key, batch_size, plan.mesh)
    of_copies, *of_keys = [views.host_part(name, pixels.size) for name in plan.views]
    parts = [of_copies] * (plan.copies if of_copies else 1) + of_keys  # every copy has its own crop
    cut = stream.Cut(parts if any(parts) else [None], pixels.resize, pixels.size, pixels.interpolation)
    order = stream.Shuffled(plan.seed, len(data.train), batch_size, len(plan.learning_rates))
    return _stream(plan, functools.partial(stream.Batches, data.train, order, cut, plan.seed), batch_size)


def _stream(plan, batches, batch_size):
    make = functools.partial(batches, batch_size)
    return stream.Stream(make, batch_size, plan.mesh, threads=_threads(plan), workers=plan.loading.workers)


def _threads(plan):
    return plan.loading.threads or parallel.cores()


def test_feed(plan: Plan, split: Split, name: str) -> Feed:
    """Where the batches of a split come from that is evaluated; `name` is that of the split. Of heads on a frozen
    backbone its images are features, float32 [N, 1, D], unless the plan is `with_crops`."""
    assert plan.mesh is not None
    pixels, devices = plan.preprocessing, plan.mesh.shape["data"]
    # Not more than there are, but a number that the devices can share.
    most = -(-min(plan.loading.eval_batch, len(split)) // devices) * devices
    if plan.on_features and not plan.crop:
        return evaluation_features(split.images, split.labels, most, plan.mesh, _threads(plan))
    text = f"decoding the {name} images"
    images = stored(
        split, feed=plan.loading.feed, size=pixels.size, resize=pixels.resize, resizes=False, text=text,
        interpolation=pixels.interpolation,
    )  # fmt: skip
    if images is not None:
        return ResidentTest(images, split.labels, most, plan.mesh)
    order = stream.InOrder(len(split), most)
    cut = stream.Cut([None], pixels.resize, pixels.size, pixels.interpolation)
    return _stream(plan, functools.partial(stream.Batches, split, order, cut, 0), most)
