"""From a configuration to the pieces of a run: the only place that translates fields into arguments."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from jax.sharding import Mesh

from ncl_jax import experts, methods, momentum, optim, priors, sharding, steps
from ncl_jax.data import pipeline, views
from ncl_jax.errors import ConfigError
from ncl_jax.methods.contrast import contrast
from ncl_jax.models import PACKED, Network, cpu, layers, make_network
from ncl_jax.predict import Predictor

ARCHITECTURE = ("backbone", "depth", "width", "classifier", "cosine_scale")  # of `model` and `teacher`


class Keys(NamedTuple):
    """The run's independent random streams."""

    init: jax.Array
    order: jax.Array
    step: jax.Array
    memory: jax.Array


def keys(seed: int) -> Keys:
    """The streams of a seed."""
    return Keys(*jax.random.split(jax.random.key(seed), 4))


def platform(mesh: Mesh | None) -> str:
    """What the run computes on: "cpu", "gpu" or "tpu"."""
    return jax.default_backend() if mesh is None else mesh.devices.flat[0].platform


def operations(config: ml_collections.ConfigDict, mesh: Mesh | None) -> layers.Operations:
    """The networks' operations: our own on one CPU device (a program for several must be able to split them).

    Raises:
      ConfigError: run.conv=native, and our own cannot be had here.
    """
    wanted = config.run.conv
    if wanted == "xla" or (wanted == "auto" and not for_one_cpu(mesh)):
        return layers.XLA
    reason = cpu.load() if for_one_cpu(mesh) else "they are for one CPU device"
    if reason and wanted == "native":
        raise ConfigError(f"run.conv=native cannot be had: {reason}. Set run.conv=auto")
    return layers.XLA if reason else cpu.OPERATIONS


def operations_name(config: ml_collections.ConfigDict, mesh: Mesh | None) -> str:
    """The value of run.conv that says which operations the run has."""
    return "native" if operations(config, mesh) is cpu.OPERATIONS else "xla"


def for_one_cpu(mesh: Mesh | None) -> bool:
    """Whether our own operations, which are for one CPU device, are meant here."""
    return platform(mesh) == "cpu" and (mesh is None or mesh.size == 1)


def notes(config: ml_collections.ConfigDict, mesh: Mesh) -> list[str]:
    """What to tell the user of choices that cost time."""
    slow = config.run.conv == "auto" and for_one_cpu(mesh) and cpu.load()
    return [f"on this CPU training takes several times as long as it could: {slow}"] if slow else []


def network(
    config: ml_collections.ConfigDict,
    num_classes: int,
    ops: layers.Operations = layers.XLA,
    packed: bool = False,
) -> Network:
    """One expert's network."""
    return make_network(
        **_architecture(config.model),
        num_classes=num_classes,
        projection_dim=config.contrast.dim if config.contrast.weight else 0,
        precision=config.precision,
        operations=ops,
        freeze=config.model.freeze,
        remat=config.model.remat,
        packed=packed,
    )


def _architecture(section: ml_collections.ConfigDict) -> dict[str, Any]:
    return {name: section[name] for name in ARCHITECTURE}


def teacher(
    config: ml_collections.ConfigDict, num_classes: int, mesh: Mesh | None, ops: layers.Operations
) -> Callable[[Any, jax.Array], jax.Array] | None:
    """The ensemble that a student learns from, `(variables, views) -> [1, B, C]`; None: there is none."""
    if not config.teacher.run:
        return None
    model = make_network(
        **_architecture(config.teacher),
        num_classes=num_classes,
        projection_dim=0,
        precision=config.precision,
        operations=ops,
    )
    apply = experts.make_apply(model, strategy(config, mesh), mesh)
    return lambda variables, views: apply(variables, views, False)[0]["logits"].mean(0, keepdims=True)


def teacher_shapes(config: ml_collections.ConfigDict, facts: pipeline.Facts) -> Any:
    """The shapes of the teacher's variables, as a run's model has them."""
    own = ml_collections.ConfigDict(config.to_dict())
    own.model.update(_architecture(own.teacher) | {"num_experts": own.teacher.num_experts})
    start = jax.eval_shape(lambda: initial_model(own, facts))
    return {"params": start.params, "batch_stats": start.batch_stats}


STRATEGIES = {"cpu": "unroll", "gpu": "vmap", "tpu": "packed"}  # docs/accelerators.md, docs/benchmarks.md


def strategy(config: ml_collections.ConfigDict, mesh: Mesh | None) -> str:
    """How the experts are applied: by default as suits the platform and the network."""
    if config.run.strategy != "auto":
        return config.run.strategy
    chosen = STRATEGIES[platform(mesh)]
    # Where there is no packed form a TPU is better off with an expert's own convolutions than with grouped ones.
    return "unroll" if chosen == "packed" and config.model.backbone not in PACKED else chosen


def steps_per_call(config: ml_collections.ConfigDict, mesh: Mesh | None) -> int:
    """Training steps in one device call: one on CPU, where loops are slow (`steps.make_advance`)."""
    return config.run.steps_per_call or (1 if platform(mesh) == "cpu" else 20)


def predictor(
    config: ml_collections.ConfigDict,
    num_classes: int,
    mesh: Mesh | None = None,
    ops: layers.Operations | None = None,
    adjust: np.ndarray | None = None,
    temperature: float = 1.0,
) -> Predictor:
    """From images to scores, without the loss and the optimizer; `ops` None: as the configuration says.

    `adjust`, `temperature`: see `Predictor`.
    """
    model = network(config, num_classes, ops or operations(config, mesh))
    normalize = lambda images: views.normalize(images, config.data.mean, config.data.std)  # noqa: E731
    return Predictor(experts.make_apply(model, strategy(config, mesh), mesh), normalize, adjust, temperature)


def adjustment(config: ml_collections.ConfigDict, facts: pipeline.Facts, prior: str | None) -> np.ndarray | None:
    """What moves the run's logits to a prior (`priors.adjustment`); None for none: as they were trained."""
    return priors.adjustment(prior, facts.class_counts, prior_power(config, facts)) if prior else None


def prior_power(config: ml_collections.ConfigDict, facts: pipeline.Facts) -> float:
    """What the run's scores are meant for, see `methods.Objective`."""
    return objective(config, facts.class_counts).prior_power


def objective(config: ml_collections.ConfigDict, class_counts: Sequence[int]) -> methods.Objective:
    """What the method computes, with self-supervision where it is on."""
    about = {
        "cosine_scale": config.model.cosine_scale, "epochs": config.epochs,
        "steps_per_epoch": sum(class_counts) // config.optim.batch_size,
    }  # fmt: skip
    chosen = methods.objective(config.loss.name)(class_counts, **config.loss.to_dict(), **about)
    fields = config.contrast
    if not fields.weight:
        return chosen
    queue = contrast(weight=fields.weight, temperature=fields.temperature, queue=fields.queue)
    return methods.together(method=chosen, contrast=queue)


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
    sgd = optim.scaled_backbone(sgd, config.optim.backbone_scale, config.model.freeze)
    if not config.contrast.weight:
        return sgd
    fields = config.contrast
    if fields.behaviour == "moco":
        encoder = momentum.momentum_encoder(fields.momentum)
    else:
        decay = fields.momentum**config.model.num_experts
        encoder = momentum.momentum_encoder(decay, frozen=("projection",), average="before")
    return optax.chain(sgd, encoder)


def view(config: ml_collections.ConfigDict, facts: pipeline.Facts, name: str, cut: bool) -> views.View:
    """A view by name with the run's normalisation; `cut`: the feed has done the host's part."""
    return views.make_view(name, size=facts.image_shape[0], mean=config.data.mean, std=config.data.std, cut=cut)


def steps_per_epoch(config: ml_collections.ConfigDict, facts: pipeline.Facts) -> int:
    """Full batches in an epoch: the last partial one is dropped."""
    return facts.num_train // config.optim.batch_size


def initial_model(config: ml_collections.ConfigDict, facts: pipeline.Facts) -> steps.ModelState:
    """What a model needs, at step 0. Runs under `jit`."""
    sample = jnp.zeros((2, *facts.image_shape), jnp.float32)
    model = network(config, facts.num_classes)
    variables = experts.init_experts(model, keys(config.seed).init, config.model.num_experts, sample)
    return steps.ModelState(jnp.zeros((), jnp.int32), variables["params"], variables.get("batch_stats", {}))


def initial_state(config: ml_collections.ConfigDict, facts: pipeline.Facts) -> steps.TrainState:
    """The state at step 0. Runs under `jit`, so that it can be built in place or only for its shapes."""
    start = initial_model(config, facts)
    opt_state = optimizer(config, steps_per_epoch(config, facts)).init(start.params)
    if config.contrast.weight and config.contrast.behaviour == "authors":
        other = jax.random.fold_in(keys(config.seed).init, 1)
        sample = jnp.zeros((2, *facts.image_shape), jnp.float32)
        params = experts.init_experts(network(config, facts.num_classes), other, config.model.num_experts, sample)
        encoder = {name: params["params"][name] for name in ("backbone", "projection")}
        opt_state = optax.tree.set(opt_state, encoder=encoder)
    if config.teacher.run:
        memory = {"teacher": optax.tree.zeros_like(teacher_shapes(config, facts))}
    else:
        init_memory = objective(config, facts.class_counts).init_memory
        memory = init_memory(keys(config.seed).memory, outputs(config, facts, start))
    return steps.TrainState(*start, opt_state=opt_state, memory=memory)


def outputs(config: ml_collections.ConfigDict, facts: pipeline.Facts, start: steps.ModelState) -> dict:
    """The shapes of the experts' outputs for one batch; see `methods.Objective`."""
    batch = config.optim.batch_size * config.loss.copies // config.optim.accumulate
    images = jax.ShapeDtypeStruct((batch, *facts.image_shape), jnp.float32)
    apply = experts.make_apply(network(config, facts.num_classes), "vmap")
    variables = {"params": start.params, "batch_stats": start.batch_stats}
    shapes = jax.eval_shape(lambda v, x: apply(v, x, True)[0], variables, images)
    return shapes | ({"keys": shapes["projection"]} if "projection" in shapes else {})


def state_places(config: ml_collections.ConfigDict, facts: pipeline.Facts, mesh: Mesh, state: steps.TrainState) -> Any:
    """Where each leaf of the state lives; see `sharding.state_shardings`."""
    spec = objective(config, facts.class_counts).memory_spec
    return sharding.state_shardings(mesh, state, config.model.num_experts, spec)


def train_step(
    config: ml_collections.ConfigDict, facts: pipeline.Facts, mesh: Mesh | None = None, *, cut: bool = False
) -> Callable:
    """The run's training step, `(state, key, batch) -> (state, metrics by name)`; `cut` is the feed's."""
    see = functools.partial(view, config, facts, cut=cut)
    ops, applied = operations(config, mesh), strategy(config, mesh)
    return steps.make_train_step(
        network(config, facts.num_classes, ops, applied == "packed"),
        optimizer(config, steps_per_epoch(config, facts)),
        objective(config, facts.class_counts),
        see(config.data.augment),
        strategy=applied,
        copies=config.loss.copies,
        accumulate=config.optim.accumulate,
        mixup=config.data.mixup,
        unroll=platform(mesh) == "cpu",
        key_augment=see(config.contrast.augment) if config.contrast.weight else None,
        teacher=teacher(config, facts.num_classes, mesh, ops),
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
