"""What a run computes with, made once from its configuration (`build`), and the pieces that are made of it."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from ncl_jax.data.augment import views
from ncl_jax.data.dataset import Facts
from ncl_jax.data.types import Preprocessing
from ncl_jax.errors import ConfigError
from ncl_jax.evaluation import crops, priors
from ncl_jax.evaluation.predictor import Predictor, embedding
from ncl_jax.methods import Objective
from ncl_jax.models import Network, experts, shapes_of, with_operations
from ncl_jax.models.layers import GROUPED, XLA
from ncl_jax.runtime import devices
from ncl_jax.training import steps


class Keys(NamedTuple):
    """The run's independent random streams."""

    init: jax.Array
    order: jax.Array
    step: jax.Array
    memory: jax.Array


def keys(seed: int) -> Keys:
    """The streams of a seed."""
    return Keys(*jax.random.split(jax.random.key(seed), 4))


class Loading(NamedTuple):
    """How images are loaded: the configuration's fields of the same names, in `data` and `run`."""

    feed: str
    threads: int
    workers: int
    eval_batch: int
    cache: str
    cached_views: int
    flip: bool


class Teacher(NamedTuple):
    """The ensemble that a student learns from, with the fields of a `Plan`."""

    network: Network
    num_experts: int
    lower: nn.Module | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a trained model is used with: no method, no optimizer, nothing of the user's own, no compiled kernels.

    Attributes:
      facts: what the data is.
      mesh: the devices; None: one of the default kind.
      seed: of the run.
      num_experts: E.
      network: one expert's; with a `trunk`, on its features, or on the tokens of its first blocks.
      trunk: the frozen backbone that all experts share, images to features `[B, D]`; None: each has its own.
      input_shape: of one image as an expert sees it: H, W, 3 or, with a trunk, D, or of tokens N, D.
      strategy: how the experts are applied, see `experts.apply_experts`.
      preprocessing: from an image file to what the network sees.
      loading: see `Loading`.
      prior_power: gives what the scores are meant for, see `methods.Objective`; only called where a prior is asked for.
      crop: side of the five crops of an image whose scores are averaged, see `crops.with_crops`; 0: the image itself.
      lower: the trunk's first blocks, images to tokens `[B, N, D]`, which the experts' adapted blocks follow; None: the
        experts have no adapters.
    """

    facts: Facts
    mesh: Mesh | None
    seed: int
    num_experts: int
    network: Network
    trunk: nn.Module | None
    input_shape: tuple[int, ...]
    strategy: str
    preprocessing: Preprocessing
    loading: Loading
    prior_power: Callable[[], float]
    crop: int = 0
    lower: nn.Module | None = None

    @property
    def on_features(self) -> bool:
        """Whether the experts see features of the trunk, which are computed once, rather than images."""
        return self.trunk is not None and self.lower is None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingPlan(Plan):
    """What a run is trained with.

    Attributes:
      operations: what computes the network's costly operations: "native", our own kernels, or "xla".
      step_network: the network as the training step applies it.
      objective: what the method computes.
      optimizer: with the momentum encoder in its state where there is self-supervision.
      learning_rates: of every epoch, float64 [epochs].
      steps_per_epoch: full batches in an epoch; the last partial one is dropped.
      steps_per_call: training steps in one device call.
      batch_size, copies, accumulate, mixup: see `steps.make_train_step`.
      views: the classifier's augmentation pipeline and, with self-supervision, the key encoder's, by name.
      own_keys: whether the key encoders start from weights of their own (the authors' program).
      unroll: see `steps.make_train_step`.
      teacher: what a student learns from, if it is one.
    """

    operations: str
    step_network: Network
    objective: Objective
    optimizer: optax.GradientTransformation
    learning_rates: np.ndarray
    steps_per_epoch: int
    steps_per_call: int
    batch_size: int
    copies: int
    accumulate: int
    mixup: float
    views: tuple[str, ...]
    own_keys: bool
    unroll: bool
    teacher: Teacher | None


def predictor(
    plan: Plan, adjust: np.ndarray | None = None, temperature: float = 1.0, *, on_features: bool = False
) -> Predictor:
    """From images to scores, without the loss and the optimizer; `adjust`, `temperature`: see `Predictor`. Of a plan
    `with_crops` the images are larger, and their crops' logits and features are averaged.

    `on_features`: from the features of the plan's trunk instead of images.
    """
    apply = experts.make_apply(plan.network, plan.strategy, plan.mesh)
    if on_features:
        return Predictor(apply, lambda features: features, adjust, temperature)
    if plan.lower is not None:
        apply = experts.on_trunk(plan.lower, apply, shared=True)
    elif plan.trunk is not None:
        apply = experts.on_trunk(plan.trunk, apply)
    if plan.crop:
        apply = crops.averaged(apply, plan.crop)
    return Predictor(apply, functools.partial(normalize, plan), adjust, temperature)


def embedder(plan: Plan) -> Callable[[Any, jax.Array], jax.Array]:
    """Makes `(variables, images uint8 [B, H, W, 3]) -> [B, D]`: the embedding of images (`predictor.embedding`), of a
    frozen backbone's features or else of every expert's. A pure function, for use under `jit`."""
    trunk = plan.trunk
    if trunk is None:
        outputs = predictor(plan).outputs
        return lambda variables, images: embedding(outputs(variables, images)["features"])
    apply: Callable = trunk.apply
    return lambda variables, images: embedding(apply(variables["trunk"], normalize(plan, images), False)[None])


def normalize(plan: Plan, images: jax.Array) -> jax.Array:
    """uint8 images as the network takes them, see `views.normalize`."""
    return views.normalize(images, plan.preprocessing.mean, plan.preprocessing.std)


def adjustment(plan: Plan, prior: str | None) -> np.ndarray | None:
    """What moves the run's logits to a prior (`priors.adjustment`); None for none: as they were trained.

    Raises:
      ConfigError: see `priors.read` and `build.prior_power`.
    """
    return priors.adjustment(prior, plan.facts.class_counts, plan.prior_power()) if prior else None


def to_train_prior(plan: Plan, prior: str | None) -> np.ndarray | None:
    """What moves logits that are meant for a prior, None for the run's own, to that of the training images; None where
    the run does not say what its scores are meant for."""
    try:
        wanted = priors.adjustment("train", plan.facts.class_counts, plan.prior_power())
        moved = adjustment(plan, prior)
    except ConfigError:
        return None
    return wanted if moved is None else wanted - moved


def initial_model(plan: Plan) -> steps.ModelState:
    """What a model needs, at step 0. Runs under `jit`."""
    variables = _initial_experts(plan, keys(plan.seed).init, plan.network, plan.num_experts)
    return steps.ModelState(jnp.zeros((), jnp.int32), variables["params"], variables.get("batch_stats", {}))


def _initial_experts(plan, key, network, num_experts):
    """Experts of a network at step 0."""
    images = jnp.zeros((2, *plan.input_shape), jnp.float32)
    return experts.init_experts(_by_xla(network), key, num_experts, images)


def _by_xla(network):
    """A network with XLA's operations."""
    return network.clone(backbone=with_operations(network.backbone, XLA))


def on_every_platform(plan: Plan) -> Plan:
    """The plan with operations that do not differ between platforms."""
    network = plan.network.clone(backbone=with_operations(plan.network.backbone, GROUPED))
    trunk, lower = (part and with_operations(part, GROUPED) for part in (plan.trunk, plan.lower))
    return dataclasses.replace(plan, network=network, trunk=trunk, lower=lower)


def initial_state(plan: TrainingPlan) -> steps.TrainState:
    """The state at step 0. Runs under `jit`, so that it can be built in place or only for its shapes."""
    start = initial_model(plan)
    opt_state = plan.optimizer.init(start.params)
    if plan.own_keys:
        other = _initial_experts(plan, jax.random.fold_in(keys(plan.seed).init, 1), plan.network, plan.num_experts)
        encoder = {name: other["params"].get(name, {}) for name in ("backbone", "projection")}
        opt_state = optax.tree.set(opt_state, encoder=encoder)
    if plan.teacher:
        memory = {"teacher": optax.tree.zeros_like(teacher_shapes(plan))}
    else:
        memory = plan.objective.init_memory(keys(plan.seed).memory, _outputs(plan, start))
    return steps.TrainState(*start, opt_state=opt_state, memory=memory)


def state_shapes(plan: TrainingPlan) -> steps.TrainState:
    """The shapes of the state."""
    shapes: steps.TrainState = jax.eval_shape(functools.partial(initial_state, plan))
    return shapes


def teacher_shapes(plan: TrainingPlan) -> dict[str, Any]:
    """The shapes of the teacher's variables, as a run's model has them."""
    assert plan.teacher is not None
    network, number, _ = plan.teacher
    found = jax.eval_shape(lambda: _initial_experts(plan, keys(plan.seed).init, network, number))
    return {"params": found["params"], "batch_stats": found.get("batch_stats", {})}


def _outputs(plan, start):
    """The shapes of the experts' outputs for one micro-batch; see `methods.Objective`."""
    batch = plan.batch_size * plan.copies // plan.accumulate
    images = jax.ShapeDtypeStruct((batch, *plan.input_shape), jnp.float32)
    apply = experts.make_apply(_by_xla(plan.network), "vmap")
    variables = {"params": start.params, "batch_stats": start.batch_stats}
    if plan.lower is not None:
        assert plan.trunk is not None
        variables |= {"trunk": shapes_of(plan.trunk, plan.facts.image_shape)[1]}
    shapes = jax.eval_shape(lambda v, x: apply(v, x, True)[0], variables, images)
    return shapes | ({"keys": shapes["projection"]} if "projection" in shapes else {})


def state_places(plan: TrainingPlan, state: steps.TrainState) -> Any:
    """Where each leaf of the state lives; see `devices.state_shardings`."""
    assert plan.mesh is not None
    return devices.state_shardings(plan.mesh, state, plan.num_experts, plan.objective.memory_spec)


def train_step(plan: TrainingPlan, *, cut: bool = False) -> Callable:
    """The run's training step, see `steps.make_train_step`; `cut` is the feed's."""
    augment, *of_keys = [view(plan, name, cut=cut) for name in plan.views]
    return steps.make_train_step(
        plan.step_network,
        plan.optimizer,
        plan.objective,
        augment,
        strategy=plan.strategy,
        copies=plan.copies,
        accumulate=plan.accumulate,
        mixup=plan.mixup,
        unroll=plan.unroll,
        key_augment=of_keys[0] if of_keys else None,
        teacher=_teacher(plan),
        mesh=plan.mesh,
        lower=plan.lower,
        progress=functools.partial(share_done, plan) if any(map(views.changes, plan.views)) else None,
    )


def share_done(plan: TrainingPlan, step: jax.Array) -> jax.Array:
    """The share of the epochs that are done, 0 in the first one and 1 in the last one."""
    last = len(plan.learning_rates) - 1
    return jnp.minimum(step // plan.steps_per_epoch, last) / max(last, 1)


def view(plan: Plan, name: str, *, cut: bool = False) -> views.View:
    """An augmentation pipeline by name, with the run's normalisation; `cut`: the feed has done the host's part."""
    if plan.on_features:
        return lambda key, features, *done: features
    pixels = plan.preprocessing
    return views.make_view(name, size=pixels.size, mean=pixels.mean, std=pixels.std, cut=cut)


def _teacher(plan):
    """The teacher's ensemble, `(variables, views) -> [1, B, C]`; None: there is none."""
    if plan.teacher is None:
        return None
    network, _, lower = plan.teacher
    apply = experts.make_apply(network, plan.strategy, plan.mesh)
    apply = apply if lower is None else experts.on_trunk(lower, apply, shared=True)
    return lambda variables, views: apply(variables, views, False)[0]["logits"].mean(0, keepdims=True)
