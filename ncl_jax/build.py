"""From a configuration to the pieces of a run: the only place that translates fields into arguments."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from jax.sharding import Mesh

from ncl_jax import experts, losses, momentum, optim, sharding, steps
from ncl_jax.config import ConfigError
from ncl_jax.data import augment, pipeline
from ncl_jax.models import Network, make_network


class Keys(NamedTuple):
    """The run's independent random streams."""

    init: jax.Array
    order: jax.Array
    step: jax.Array
    queue: jax.Array


def keys(seed: int) -> Keys:
    """The streams of a seed."""
    return Keys(*jax.random.split(jax.random.key(seed), 4))


def data(config: ml_collections.ConfigDict) -> pipeline.Split:
    """Loads the run's data. Raises DataError, see `pipeline.load`."""
    return pipeline.load(config.data.name, config.data.dir, config.data.imbalance, download=config.data.download)


def network(config: ml_collections.ConfigDict, num_classes: int) -> Network:
    """One expert's network."""
    return make_network(
        backbone=config.model.backbone,
        depth=config.model.depth,
        width=config.model.width,
        classifier=config.model.classifier,
        cosine_scale=config.model.cosine_scale,
        num_classes=num_classes,
        projection_dim=config.contrast.dim if config.contrast.weight else 0,
        precision=config.precision,
    )


def strategy(config: ml_collections.ConfigDict) -> str:
    """How the experts are applied: measured fastest on every platform so far is "unroll"."""
    return "unroll" if config.run.strategy == "auto" else config.run.strategy


def steps_per_call(config: ml_collections.ConfigDict) -> int:
    """Training steps in one device call: one on CPU, where loops are slow (`steps.make_multi_step`)."""
    return config.run.steps_per_call or (1 if jax.default_backend() == "cpu" else 20)


def loss(config: ml_collections.ConfigDict, class_counts: Sequence[int]) -> steps.Loss:
    """The supervised loss `(logits, labels, step) -> (loss, parts)` of NCL or, with copies, of NCL++."""
    fields = config.loss
    counts = jnp.asarray(class_counts if fields.balanced else np.ones(len(class_counts)), jnp.float32)
    names = ("hard_weight", "distill_weight", "hard_distill_weight")
    semantics = {"hard_scores": fields.hard_scores, "non_hard": fields.non_hard}
    if fields.name == "nclpp":
        function = functools.partial(losses.nclpp_loss, copies=fields.copies, **semantics)
    else:
        function = functools.partial(losses.ncl_loss, distill_normalization=fields.distill_normalization, **semantics)

    def loss_fn(logits, labels, step):
        share = optim.ramp(step, fields.ramp_steps) if fields.ramp_steps else 1.0
        # A weight of 0 stays a Python number, which leaves the part out of the program.
        weights = {name: fields[name] and fields[name] * share for name in names}
        return function(logits, labels, counts, num_hard=fields.num_hard, **weights)

    return loss_fn


def learning_rates(config: ml_collections.ConfigDict) -> np.ndarray:
    """The learning rate of every epoch, float64 [epochs]."""
    fields = config.optim
    return optim.learning_rates(
        fields.schedule,
        fields.learning_rate,
        config.epochs,
        warmup_epochs=fields.warmup_epochs,
        milestones=fields.milestones,
    )


def optimizer(config: ml_collections.ConfigDict, steps_per_epoch: int) -> optax.GradientTransformation:
    """SGD by the run's schedule and, with self-supervision, the momentum encoder in its state."""
    schedule = optim.per_epoch(learning_rates(config), steps_per_epoch)
    sgd = optim.sgd(schedule, momentum=config.optim.momentum, weight_decay=config.optim.weight_decay)
    if not config.contrast.weight:
        return sgd
    fields = config.contrast
    if fields.behaviour == "moco":
        encoder = momentum.momentum_encoder(fields.momentum)
    else:
        decay = fields.momentum**config.model.num_experts
        encoder = momentum.momentum_encoder(decay, frozen=("projection",), average="before")
    return optax.chain(sgd, encoder)


def view(config: ml_collections.ConfigDict, name: str) -> steps.Augment:
    """An augmentation by name with the run's normalisation."""
    return augment.make_augment(name, mean=config.data.mean, std=config.data.std)


def contrast(config: ml_collections.ConfigDict) -> steps.Contrast | None:
    """Self-supervision, or None where its weight is 0."""
    if not config.contrast.weight:
        return None
    return steps.Contrast(view(config, "moco_key"), config.contrast.temperature, config.contrast.weight)


def steps_per_epoch(config: ml_collections.ConfigDict, facts: pipeline.Facts) -> int:
    """Full batches in an epoch: the last partial one is dropped."""
    return facts.num_train // config.optim.batch_size


def initial_state(config: ml_collections.ConfigDict, facts: pipeline.Facts) -> steps.TrainState:
    """The state at step 0. Runs under `jit`, so that it can be built in place or only for its shapes."""
    key = keys(config.seed)
    model = network(config, facts.num_classes)
    num_experts = config.model.num_experts
    sample = jnp.zeros((2, *facts.image_shape), jnp.float32)
    length = steps_per_epoch(config, facts)
    variables = experts.init_experts(model, key.init, num_experts, sample)
    opt_state = optimizer(config, length).init(variables["params"])
    queue = ()
    if config.contrast.weight:
        queue = momentum.init_queue(key.queue, num_experts, config.contrast.queue, config.contrast.dim)
        if config.contrast.behaviour == "authors":
            other = experts.init_experts(model, jax.random.fold_in(key.init, 1), num_experts, sample)["params"]
            encoder = {name: other[name] for name in ("backbone", "projection")}
            opt_state = optax.tree.set(opt_state, encoder=encoder)
    return steps.TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=opt_state,
        queue=queue,
        history=jnp.zeros((length, len(metric_names(config, facts)))),
    )


def metric_names(config: ml_collections.ConfigDict, facts: pipeline.Facts) -> tuple[str, ...]:
    """The names of a step's metrics."""
    return steps.metric_names(
        loss(config, facts.class_counts),
        config.model.num_experts,
        facts.num_classes,
        bool(config.contrast.weight),
        config.loss.copies,
    )


def train_step(config: ml_collections.ConfigDict, facts: pipeline.Facts, mesh: Mesh | None = None) -> Callable:
    """The run's training step, `(state, key, images, labels, order) -> (state, row)`."""
    return steps.make_train_step(
        network(config, facts.num_classes),
        optimizer(config, steps_per_epoch(config, facts)),
        loss(config, facts.class_counts),
        view(config, config.data.augment),
        batch_size=config.optim.batch_size,
        strategy=strategy(config),
        copies=config.loss.copies,
        accumulate=config.optim.accumulate,
        contrast=contrast(config),
        mesh=mesh,
    )


def mesh(config: ml_collections.ConfigDict) -> Mesh:
    """The run's devices. Raises ConfigError if there are too few, or the batch cannot be split over them."""
    try:
        devices = sharding.make_mesh(config.run.data_devices, config.run.expert_devices)
    except ValueError as error:
        raise ConfigError(f"run.data_devices, run.expert_devices: {error}") from error
    if config.model.num_experts % config.run.expert_devices:
        raise ConfigError(
            f"run.expert_devices={config.run.expert_devices} must divide model.num_experts={config.model.num_experts}"
        )
    parts = config.optim.accumulate * devices.shape["data"]
    if config.optim.batch_size % parts:
        raise ConfigError(
            f"optim.batch_size={config.optim.batch_size} cannot be split over {devices.shape['data']} devices and "
            f"optim.accumulate={config.optim.accumulate}: change it, or run.data_devices"
        )
    return devices
