"""From a configuration and what the data is to a plan: the only place that translates fields into arguments."""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import ml_collections
import numpy as np
import optax
from jax.sharding import Mesh

from ncl_jax import methods, models
from ncl_jax.config import adapted, precision
from ncl_jax.config.plan import Loading, Plan, Teacher, TrainingPlan
from ncl_jax.data.dataset import Facts
from ncl_jax.data.types import Preprocessing
from ncl_jax.errors import ConfigError
from ncl_jax.methods import momentum
from ncl_jax.methods.contrast import contrast
from ncl_jax.models import FROZEN, PACKED, Network, cpu, layers, make_backbone, make_heads, make_network, shapes_of
from ncl_jax.runtime import devices
from ncl_jax.training import optimizers

BACKBONE = ("backbone", "depth", "width")  # of `model` and `teacher`
HEAD = ("classifier", "cosine_scale")
ON_FEATURES = ("adapter", "standardize")  # of heads on a frozen backbone
ARCHITECTURE = (*BACKBONE, *HEAD, *ON_FEATURES)
STRATEGIES = {"cpu": "unroll", "gpu": "vmap", "tpu": "packed"}  # docs/accelerators.md, docs/benchmarks.md
STEPS_PER_CALL = {"cpu": 1, "gpu": 20, "tpu": 20}  # one on CPU, where loops are slow (`steps.make_advance`)


def make_plan(config: ml_collections.ConfigDict, facts: Facts, mesh: Mesh | None = None) -> Plan:
    """What a run's trained model is used with. Imports no method, compiles no kernel.

    Raises:
      ConfigError: a value that no model can have.
    """
    common = _common(config, facts, mesh, network(config, facts.num_classes), trunk(config))
    common["loading"] = common["loading"]._replace(cache="")  # where another run kept its features is not ours to use
    return Plan(**common, prior_power=functools.partial(prior_power, config, facts))


def make_training_plan(
    config: ml_collections.ConfigDict, facts: Facts, mesh: Mesh | None = None, steps_per_epoch: int = 0
) -> TrainingPlan:
    """What a run is trained with; 0 `steps_per_epoch`: as many as there are full batches of training images.

    Raises:
      ConfigError: run.conv=native is not available here, or the method refuses these data.
    """
    ops, computes = operations(config, mesh), platform(mesh)
    common = _common(config, facts, mesh, network(config, facts.num_classes, ops), trunk(config, ops))
    length = steps_per_epoch or facts.num_train // config.optim.batch_size
    chosen, rates = objective(config, facts.class_counts, length), learning_rates(config)
    return TrainingPlan(
        **common,
        prior_power=lambda: float(chosen.prior_power),
        operations="native" if ops is cpu.OPERATIONS else "xla",
        step_network=network(config, facts.num_classes, ops, packed=common["strategy"] == "packed"),
        objective=chosen,
        optimizer=optimizer(config, rates, length),
        learning_rates=rates,
        steps_per_epoch=length,
        steps_per_call=config.run.steps_per_call or (20 if on_features(config) else STEPS_PER_CALL.get(computes, 20)),
        batch_size=config.optim.batch_size,
        copies=config.loss.copies,
        accumulate=config.optim.accumulate,
        mixup=config.data.mixup,
        views=tuple(view_names(config)),
        own_keys=has_contrast(config) and config.contrast.behaviour == "authors",
        unroll=computes == "cpu",
        teacher=teacher(config, facts.num_classes, ops),
    )


def _common(config, facts, mesh, of_expert, of_all):
    """The fields that both kinds of plan have. Raises ConfigError for images that the backbone does not take."""
    data, below = config.data, adapted.lower(of_all, config.model)
    size = facts.image_shape[0]
    try:
        models.check(config.model.backbone, "image_size", size)
    except ValueError as error:
        raise ConfigError(f"model.backbone={config.model.backbone}: data.{error}") from error
    return {
        "facts": facts, "mesh": mesh, "seed": config.seed, "num_experts": config.model.num_experts,
        "network": of_expert, "trunk": of_all, "lower": below, "input_shape": input_shape(below or of_all, facts),
        "strategy": strategy(config, mesh),
        "preprocessing": Preprocessing(
            data.resize or size, size, tuple(data.mean), tuple(data.std), data.interpolation
        ),
        "loading": Loading(
            data.feed, data.threads, data.workers, config.run.eval_batch, data.cache, data.cached_views, data.flip
        ),
    }  # fmt: skip


def input_shape(trunk: nn.Module | None, facts: Facts) -> tuple[int, ...]:
    """The shape of one image as an expert sees it: H, W, 3, or of what the frozen `trunk` makes of it."""
    return facts.image_shape if trunk is None else shapes_of(trunk, facts.image_shape)[0].shape[1:]


def prior_power(config: ml_collections.ConfigDict, facts: Facts) -> float:
    """What a run's scores are meant for (`methods.Objective`): what it noted when it began.

    Runs of earlier versions noted nothing: their method is asked, if it is one of this package. Code that a run's files
    name is never run.

    Raises:
      ConfigError: it is of the user's own.
    """
    noted = config.get("prior_power")
    if noted is not None:
        return noted
    if config.loss.name not in methods.objectives():
        raise ConfigError(
            f"loss.name={config.loss.name!r} is a method from a file of its own, which is not run to apply a prior. "
            'The run\'s config.json does not note what its scores are meant for: add "prior_power" to it, 0 for '
            "classes that are equally likely, 1 for the training images' shares; or use the scores as trained"
        )
    return float(objective(config, facts.class_counts).prior_power)


def platform(mesh: Mesh | None) -> str:
    """What the run computes on: "cpu", "gpu" or "tpu"."""
    return jax.default_backend() if mesh is None else mesh.devices.flat[0].platform


def operations(config: ml_collections.ConfigDict, mesh: Mesh | None) -> layers.Operations:
    """The networks' operations: our own on one CPU device (a program for several must be able to split them).

    Raises:
      ConfigError: run.conv=native, and our own are not available here.
    """
    wanted = config.run.conv
    if wanted == "xla" or (wanted == "auto" and not for_one_cpu(mesh)):
        return layers.XLA
    reason = cpu.load() if for_one_cpu(mesh) else "they are for one CPU device"
    if reason and wanted == "native":
        raise ConfigError(f"run.conv=native is not available: {reason}. Set run.conv=auto")
    return layers.XLA if reason else cpu.OPERATIONS


def for_one_cpu(mesh: Mesh | None) -> bool:
    """Whether our own operations, which are for one CPU device, are meant here."""
    return platform(mesh) == "cpu" and (mesh is None or mesh.size == 1)


def notes(config: ml_collections.ConfigDict, mesh: Mesh | None) -> list[str]:
    """What to tell the user of choices that cost time, and of fields without an effect."""
    slow = config.run.conv == "auto" and for_one_cpu(mesh) and cpu.load()
    found = [f"on this CPU training takes several times as long as it could: {slow}"] if slow else []
    if config.contrast.weight and not has_contrast(config):
        found.append(
            f"without momentum contrast (contrast.weight={config.contrast.weight}): on frozen features it would train "
            "its own projection and nothing that the scores depend on; with model.adapter=64 it has an effect"
        )
    return found


def is_frozen(config: ml_collections.ConfigDict) -> bool:
    """Whether one frozen backbone serves all experts, which are heads, and adapters in its blocks if there are any."""
    return config.model.freeze == FROZEN


def on_features(config: ml_collections.ConfigDict) -> bool:
    """Whether the experts are heads alone, on features that are computed once."""
    return adapted.on_features(config.model)


def has_contrast(config: ml_collections.ConfigDict) -> bool:
    """Whether there is self-supervision by momentum contrast. It trains its projection and what lies before it: of
    heads on a frozen backbone the adapter, and without one nothing that the scores depend on."""
    return bool(config.contrast.weight) and not (on_features(config) and not config.model.adapter)


def trunk(config: ml_collections.ConfigDict, ops: layers.Operations = layers.XLA) -> nn.Module | None:
    """The frozen backbone of all experts; None where each has its own."""
    if not is_frozen(config):
        return None
    return make_backbone(**_take(config.model, BACKBONE), precision=precision.of(config), operations=ops)


def network(
    config: ml_collections.ConfigDict,
    num_classes: int,
    ops: layers.Operations = layers.XLA,
    packed: bool = False,
) -> Network:
    """One expert's network: of images, or of what a frozen backbone makes of them."""
    head = {
        **_take(config.model, HEAD), "num_classes": num_classes,
        "projection_dim": config.contrast.dim if has_contrast(config) else 0,
    }  # fmt: skip
    if on_features(config):
        return make_heads(**head, **_take(config.model, ON_FEATURES))
    is_adapted = adapted.is_adapted(config.model)
    found = make_network(
        **head,
        **_take(config.model, BACKBONE),
        precision=precision.of(config),
        operations=ops,
        freeze=0 if is_adapted else config.model.freeze,
        remat=config.model.remat,
        packed=packed,
    )
    return adapted.upper(found, config.model, num_classes) if is_adapted else found


def _take(section: ml_collections.ConfigDict, names: Sequence[str]) -> dict:
    return {name: section[name] for name in names}


def teacher(config: ml_collections.ConfigDict, num_classes: int, ops: layers.Operations) -> Teacher | None:
    """The ensemble that a student learns from; None: there is none."""
    if not config.teacher.run:
        return None
    head = {**_take(config.teacher, HEAD), "num_classes": num_classes, "projection_dim": 0}
    is_adapted = adapted.is_adapted(config.teacher)
    if is_frozen(config) and not is_adapted:
        return Teacher(make_heads(**head, **_take(config.teacher, ON_FEATURES)), config.teacher.num_experts)
    backbone = _take(config.teacher, BACKBONE)
    found = make_network(**head, **backbone, precision=precision.of(config), operations=ops)
    of_expert = adapted.upper(found, config.teacher, num_classes) if is_adapted else found
    below = adapted.lower(trunk(config, ops), config.teacher)
    return Teacher(of_expert, config.teacher.num_experts, below)


def strategy(config: ml_collections.ConfigDict, mesh: Mesh | None) -> str:
    """How the experts are applied: by default as suits the platform and the network."""
    if config.run.strategy != "auto":
        return config.run.strategy
    if on_features(config) or (is_frozen(config) and platform(mesh) != "tpu"):
        return "vmap"  # matrix products, small or with the same frozen weights; of a TPU see docs/transformers.md
    chosen = STRATEGIES[platform(mesh)]
    # Where there is no packed form a TPU is better off with an expert's own convolutions than with grouped ones.
    return "unroll" if chosen == "packed" and config.model.backbone not in PACKED else chosen


def view_names(config: ml_collections.ConfigDict) -> list[str]:
    """The classifier's augmentation pipeline and, with self-supervision, the key encoder's."""
    return [config.data.augment, *([config.contrast.augment] if has_contrast(config) else [])]


def objective(
    config: ml_collections.ConfigDict, class_counts: Sequence[int], steps_per_epoch: int = 0
) -> methods.Objective:
    """What the method computes, with self-supervision where it is on."""
    about = {
        "cosine_scale": config.model.cosine_scale, "epochs": config.epochs,
        "steps_per_epoch": steps_per_epoch or sum(class_counts) // config.optim.batch_size,
    }  # fmt: skip
    chosen = methods.objective(config.loss.name)(class_counts, **config.loss.to_dict(), **about)
    fields = config.contrast
    if not has_contrast(config):
        return chosen
    queue = contrast(weight=fields.weight, temperature=fields.temperature, queue=fields.queue)
    return methods.together(method=chosen, contrast=queue)


def learning_rates(config: ml_collections.ConfigDict) -> np.ndarray:
    """The learning rate of every epoch, float64 [epochs]."""
    fields = config.optim
    return optimizers.learning_rates(
        fields.schedule,
        fields.learning_rate,
        config.epochs,
        warmup_epochs=fields.warmup_epochs,
        milestones=fields.milestones,
        **({"final": 0.0} if fields.name == "adamw" else {}),
    )


def optimizer(
    config: ml_collections.ConfigDict, rates: np.ndarray, steps_per_epoch: int
) -> optax.GradientTransformation:
    """The optimizer by the run's schedule and, with self-supervision, the momentum encoder in its state."""
    schedule = optimizers.per_epoch(rates, steps_per_epoch)
    chosen = optimizers.make_optimizer(
        config.optim.name, schedule, momentum=config.optim.momentum, weight_decay=config.optim.weight_decay
    )
    chosen = optimizers.scaled_backbone(chosen, config.optim.backbone_scale, config.model.freeze)
    if not has_contrast(config):
        return chosen
    fields = config.contrast
    if fields.behaviour == "moco":
        encoder = momentum.momentum_encoder(fields.momentum)
    else:
        decay = fields.momentum**config.model.num_experts
        encoder = momentum.momentum_encoder(decay, frozen=("projection",), average="before")
    return optax.chain(chosen, encoder)


def mesh(config: ml_collections.ConfigDict) -> Mesh:
    """The run's devices. Raises ConfigError if there are too few, or the batch cannot be split over them."""
    try:
        found = devices.make_mesh(config.run.data_devices, config.run.expert_devices)
    except ValueError as error:
        raise ConfigError(f"run.data_devices, run.expert_devices: {error}") from error
    if config.model.num_experts % config.run.expert_devices:
        raise ConfigError(
            f"run.expert_devices={config.run.expert_devices} must divide model.num_experts={config.model.num_experts}"
        )
    parts = config.optim.accumulate * found.shape["data"]
    if config.optim.batch_size % parts:
        raise ConfigError(
            f"optim.batch_size={config.optim.batch_size} cannot be split over {found.shape['data']} devices and "
            f"optim.accumulate={config.optim.accumulate}: change it, or run.data_devices"
        )
    return found
