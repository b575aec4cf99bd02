"""What a run takes in memory at the least, from shapes alone: refused before anything of it is made.

Everything here is a lower bound, so that nothing is refused that would fit. Counted are, of each device,

- the weights, the running statistics, the optimizer's state, the largest gradient and the method's state; with
  adapters the frozen backbone;
- the images that are kept on the devices;
- the larger of what training and evaluation add: the network's inputs for one batch and, in training, the output of
  every convolution of one expert for one micro-batch, which its gradient needs (none where blocks are computed again or
  frozen, or on TPUs, whose compiler may compute any again); and, in evaluation, the inputs of one test batch.

What XLA needs beside is not: `check_program` looks at that once the program is compiled.
"""

import functools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from ncl_jax.config.build import has_contrast, platform
from ncl_jax.config.fields import fields, flatten
from ncl_jax.config.plan import TrainingPlan, state_places, state_shapes
from ncl_jax.data import dataset
from ncl_jax.data.augment import views
from ncl_jax.data.feeds.features import fit
from ncl_jax.data.feeds.resident import stored_bytes
from ncl_jax.data.images import parallel
from ncl_jax.errors import ConfigError
from ncl_jax.field import LARGEST
from ncl_jax.models import layers, shapes_of
from ncl_jax.runtime import limits
from ncl_jax.training.steps import TrainState

WORKER = 10**8  # bytes of a process that decodes: Python, NumPy and JAX, before any image
USUAL = {"data.image_size": 224, "data.resize": 256, "run.eval_batch": 500}  # where a default of 0 says nothing
NETWORK = {"model.width": 2, "model.depth": 1, "model.num_experts": 1}
IMAGES = {"data.image_size": 2}
BATCH = {"optim.batch_size": 1, "loss.copies": 1, **IMAGES}


class Part(NamedTuple):
    """A part of what a run takes."""

    what: str  # in words
    size: float  # bytes
    fields: Mapping[str, int]  # that it grows with, each with the power by which it does


def check(plan: TrainingPlan, config: ml_collections.ConfigDict, data: dataset.Data, extend: int) -> TrainState:
    """The shapes of the run's state, if it fits.

    Raises:
      ConfigError: naming what takes most, the run cannot fit into the memory of devices or machine; it has more steps,
        or more pixels in a batch, than can be counted.
    """
    assert plan.mesh is not None
    _check_steps(plan, config, extend)
    images = [of_images(plan, data), of_inputs(plan)]
    _check_parts(plan, config, data, images)
    _check_pixels(plan)
    shapes = state_shapes(plan)
    kept, outputs = [*of_state(plan, config, shapes), *of_frozen(plan)], of_convolutions(plan, shapes)
    _check_parts(plan, config, data, [*kept, *images, outputs])
    _check_parts(plan, config, data, [*kept, images[0], of_evaluation(plan, data)])
    return shapes


def _check_steps(plan, config, extend):
    most = LARGEST // plan.steps_per_epoch
    if config.epochs + extend > most:
        raise ConfigError(
            f"epochs={config.epochs}, --extend={extend}: epochs of {plan.steps_per_epoch} steps must be at most {most} "
            f"in all, because steps are counted to {LARGEST}"
        )


def _check_pixels(plan):
    """JAX cannot trace the mean over more pixels than an int32 counts."""
    side, images = plan.preprocessing.size, plan.batch_size * plan.copies // plan.accumulate
    if side**2 * images > LARGEST:
        raise ConfigError(
            f"data.image_size={side}, optim.batch_size={plan.batch_size}, loss.copies={plan.copies}: {images} images "
            f"at a time of {side} x {side} pixels have more than {LARGEST} pixels; lower one, or raise optim.accumulate"
        )


def _check_parts(plan, config, data, parts):
    """Refuses what exceeds the memory of a device or, on CPUs, which have none of their own, of the machine."""
    host, values, local = of_host(plan, data), flatten(config), plan.mesh.local_devices
    values["run.eval_batch"] = min(config.run.eval_batch, len(data.test))  # of more it is these
    if platform(plan.mesh) == "cpu":
        host += [part._replace(size=part.size * len(local)) for part in parts]
    elif most := limits.device_memory(local[0]):
        _refuse(parts, values, most, f"a {local[0].device_kind}")
    _refuse(host, values, limits.host_memory(), "this machine")


def check_program(program: jax.stages.Compiled, devices: Collection[jax.Device], name: str) -> None:
    """Refuses a compiled program of a name that the machine has too little memory for, where its `devices`, those of
    this process, are CPUs: Linux would kill the process, where an accelerator reports it.

    Raises:
      ConfigError: it takes more than there is.
    """
    if any(device.platform != "cpu" for device in devices):
        return
    size, most = program_bytes(program) * len(devices), limits.host_memory()
    if size > most:
        raise ConfigError(
            f"the compiled program of the {name} takes {_bytes(size)} of memory, and this machine has {_bytes(most)}: "
            "lower optim.batch_size, loss.copies, data.image_size, model.num_experts or model.width, raise "
            "optim.accumulate, or set model.remat=True"
        )


def program_bytes(program: jax.stages.Compiled) -> int:
    """What a compiled program takes on a device, with its arguments and results; 0 where that is not known."""
    needs: Any = program.memory_analysis()
    if needs is None:
        return 0
    own = needs.argument_size_in_bytes + needs.output_size_in_bytes - needs.alias_size_in_bytes
    return int(own + needs.temp_size_in_bytes)


def of_state(plan: TrainingPlan, config: ml_collections.ConfigDict, shapes: TrainState) -> list[Part]:
    """What a device holds of the state."""
    places = state_places(plan, shapes)
    sizes = jax.tree.map(lambda leaf, place: _size(place.shard_shape(leaf.shape), leaf.dtype), shapes, places)
    largest = max(jax.tree.leaves(sizes.params), default=0)
    memory: Mapping[str, int] = {}
    if plan.teacher:
        memory = {"teacher.width": 2, "teacher.depth": 1, "teacher.num_experts": 1}
    elif has_contrast(config):
        memory = {"contrast.queue": 1, "contrast.dim": 1, "model.num_experts": 1}
    trained = sum(jax.tree.leaves((sizes.params, sizes.batch_stats, sizes.opt_state)))
    return [
        Part("the weights and the optimizer's state", trained + largest, NETWORK),
        Part(f"the state of the method loss.name={config.loss.name}", sum(jax.tree.leaves(sizes.memory)), memory),
    ]


def of_frozen(plan: TrainingPlan) -> list[Part]:
    """What a device holds of a frozen backbone that the steps need, for adapters in its blocks."""
    if plan.lower is None or plan.trunk is None:
        return []
    leaves = jax.tree.leaves(shapes_of(plan.trunk, plan.facts.image_shape)[1])
    size = sum(_size(leaf.shape, leaf.dtype) for leaf in leaves)
    return [Part("the frozen backbone", size, {"model.width": 2, "model.depth": 1})]


def of_images(plan: TrainingPlan, data: dataset.Data) -> Part:
    """What a device holds of the images that are not streamed."""
    train, test = _stored(plan, data)
    return Part("the images that are kept in memory", ((train or 0) + (test or 0)) / _spread(plan), IMAGES)


def of_inputs(plan: TrainingPlan) -> Part:
    """What the network sees of a batch, on a device."""
    precision = getattr(plan.network.backbone, "dtype", jnp.float32)
    size = plan.batch_size * plan.copies / _spread(plan) * _size(_image(plan), precision)
    return Part("the inputs of a batch", size, BATCH)


def of_convolutions(plan: TrainingPlan, shapes: TrainState) -> Part:
    """What a device keeps of a micro-batch for the gradient."""
    images = plan.batch_size * plan.copies / plan.accumulate / _spread(plan)
    grows = {**BATCH, "model.width": 1, "model.depth": 1}
    return Part("the outputs of the convolutions", images * convolutions(plan, shapes), grows)


def convolutions(plan: TrainingPlan, shapes: TrainState) -> int:
    """Bytes that the convolutions of one expert make of one image, 0 where they need not be kept."""
    backbone = plan.network.backbone
    if (
        plan.trunk is not None
        or getattr(backbone, "remat", False)
        or getattr(backbone, "freeze", 0)
        or platform(plan.mesh) == "tpu"
    ):
        return 0
    network = plan.network.clone(backbone=backbone.clone(operations=layers.XLA))
    own = {"params": shapes.params, "batch_stats": shapes.batch_stats}
    own = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), own)
    apply = functools.partial(
        network.apply,
        train=True,
        mutable=["batch_stats", "intermediates"],
        capture_intermediates=lambda module, name: name == "__call__" and isinstance(module, layers.Conv | nn.Conv),
    )
    images = jax.ShapeDtypeStruct((1, *plan.input_shape), jnp.float32)
    _, made = jax.eval_shape(apply, own, images)
    return sum(_size(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(made.get("intermediates", {})))


def of_evaluation(plan: TrainingPlan, data: dataset.Data) -> Part:
    """What a step of the evaluation adds on a device."""
    images = min(plan.loading.eval_batch, len(data.test)) / _spread(plan)
    return Part("the inputs of a test batch", images * _size(_image(plan)), {"run.eval_batch": 1, **IMAGES})


def of_host(plan: TrainingPlan, data: dataset.Data) -> list[Part]:
    """What the machine needs beside its devices: images that they do not hold yet, and what decodes a stream."""
    stored, pixels, loading = _stored(plan, data), plan.preprocessing, plan.loading
    parts = [Part("an image before its centre is cut out", 3 * pixels.resize**2, {"data.resize": 2})]
    if platform(plan.mesh) != "cpu":
        parts.append(Part("the decoded images", sum(filter(None, stored)), IMAGES))
    size = _features(plan, data) if plan.on_features else 0
    if not fit(size, plan.mesh) and loading.cache == "none":  # otherwise they stay in the cache
        parts.append(Part("the features of the training images", size, {"data.cached_views": 1}))
    if None in stored:
        threads = (loading.threads or parallel.cores()) * max(loading.workers, 1)
        batch = plan.batch_size // jax.process_count() * 3 * pixels.size**2
        grows = {"data.threads": 1, "data.workers": 1, "optim.batch_size": 1, **IMAGES}
        # Every thread makes a batch of its own: they are half done on average.
        parts.append(Part("the batches that are being decoded", threads * batch / 2, grows))
        parts.append(Part("the processes that decode", loading.workers * WORKER, {"data.workers": 1}))
    return parts


def _stored(plan, data):
    """Bytes of the training and of the test images that are kept, see `stored_bytes`; with a frozen backbone of their
    features."""
    if plan.on_features:
        train = _features(plan, data)
        test = len(data.test) * _size(plan.input_shape)
        return train if fit(train, plan.mesh) else 0, test if fit(test, plan.mesh) else 0
    size, feed = plan.preprocessing.size, plan.loading.feed
    resizes = all(views.resizes(name) for name in plan.views)
    return (
        stored_bytes(data.train, feed=feed, size=size, resizes=resizes),
        stored_bytes(data.test, feed=feed, size=size, resizes=False),
    )


def _features(plan, data):
    """Bytes of the training images' features, all views."""
    return len(data.train) * (1 + plan.loading.cached_views) * _size(plan.input_shape)


def _image(plan):
    """The shape of what an expert sees of an image."""
    return plan.input_shape


def _spread(plan):
    """Devices that share a batch."""
    return plan.mesh.shape["data"]


def _size(shape: Sequence[int], dtype: Any = jnp.float32) -> int:
    return math.prod(shape) * jnp.dtype(dtype).itemsize


def _refuse(parts: Sequence[Part], values: Mapping[str, Any], most: int, where: str) -> None:
    """Raises ConfigError where the parts exceed the memory; `values` are the fields', `where` is in words."""
    total = sum(part.size for part in parts)
    if total <= most:
        return
    worst = max(parts, key=lambda part: part.size)
    names = sorted(filter(values.get, worst.fields), key=lambda name: -_excess(name, values[name], worst.fields[name]))
    able = {name: fit for name in names if (fit := fitting(parts, name, values[name], most))}
    name = next(iter(able), "")
    named = ", ".join(f"{name}={values[name]}" for name in names) or f"data.dir={values['data.dir']}"
    raise ConfigError(
        f"{named}: the run takes at least {_bytes(total)} of memory, {_bytes(worst.size)} of it for {worst.what}, "
        f"and {where} has {_bytes(most)}" + (f": {name} can be about {able[name]} at most" if name else "")
    )


def _excess(name, value, power):
    """How far a field's value is above what is usual, in what it costs."""
    return (value / (USUAL.get(name) or fields()[name].default or 1)) ** power


def fitting(parts: Sequence[Part], name: str, value: int, most: int) -> int:
    """The largest value of a field, at most its own, with which the parts fit; 0 where none is."""
    low, high = 0, value
    while low < high:
        middle = (low + high + 1) // 2
        total = sum(part.size * (middle / value) ** part.fields.get(name, 0) for part in parts)
        low, high = (middle, high) if total <= most else (low, middle - 1)
    return low


def _bytes(size: float) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
