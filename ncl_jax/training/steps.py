"""The training step: a pure function of one state, one key and one batch, compiled by the caller."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from ncl_jax import losses
from ncl_jax.data.feeds.feed import Batch
from ncl_jax.methods import Objective
from ncl_jax.models.experts import apply_experts, make_apply, on_trunk, with_shared
from ncl_jax.runtime.devices import constrain_batch

Augment = Callable[..., jax.Array]
Metrics = dict[str, Any]


class TrainState(NamedTuple):
    """Everything that a run changes: what a checkpoint holds."""

    step: jax.Array  # int32 []: steps done
    params: Any  # {"backbone", "classifier"[, "projection"]}: [E, ...]
    batch_stats: Any  # running statistics, [E, ...]
    opt_state: optax.OptState  # with the momentum encoder, where there is one
    memory: Any  # the method's own, see `Objective`


class ModelState(NamedTuple):
    """The part of a `TrainState` that a model needs, under the same names and in the same order."""

    step: jax.Array
    params: Any
    batch_stats: Any


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    objective: Objective,
    augment: Augment,
    *,
    strategy: str,
    copies: int = 1,
    accumulate: int = 1,
    mixup: float = 0.0,
    unroll: bool = False,
    key_augment: Augment | None = None,
    teacher: Callable[[Any, jax.Array], jax.Array] | None = None,
    mesh: Mesh | None = None,
    lower: nn.Module | None = None,
    progress: Callable[[jax.Array], jax.Array] | None = None,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Makes `train_step(state, key, batch) -> (state, metrics by name)`; of experts that share a frozen backbone
    `train_step(state, key, batch, frozen)`, with its variables.

    The step takes the run's random `key`, of which step s uses `fold_in(key, s)` and nothing else, so that a resumed
    run is the same run. The metrics are scalars: `loss`, its `parts` by name, and diagnostics.

    Args:
      model: one expert's network.
      optimizer: its state holds the momentum encoder if there is a `key_augment`.
      objective: what the method computes.
      augment: `(key, uint8 [B, H, W, 3]) -> float32 [B, size, size, 3]`, see `views.make_view`.
      strategy: how the experts are applied, see `apply_experts`.
      copies: N augmented copies of each image, laid out copy-major (NCL++).
      accumulate: A parts of the batch that go through the network one after the other, for batches that do not fit
        into memory; the step takes the mean of their gradients. Each part has its own batch statistics.
      mixup: a of the Beta(a, a) by which every view is mixed with another one of the batch, see `_mix`; 0: none is.
      unroll: whether the parts are written out rather than looped over: for CPUs, where a loop that holds weight
        gradients is many times slower.
      key_augment: the momentum encoder's view of the images; None: there is no such encoder.
      teacher: `(variables, views) -> raw scores [1, B, C]`, of a network that stays as it is; its variables are the
        memory's `teacher`, and the frozen backbone's. The objective finds its scores among the outputs; None: there
        is no teacher.
      mesh: the devices that batch and experts are spread over; None: one device.
      lower: the first blocks of the frozen backbone that the experts share, which run once for all of them.
      progress: step -> the share of the epochs that are done, which the views take as well; None: they do not.
    """
    apply, constrain = make_apply(model, strategy, mesh), constrain_batch(mesh)
    apply = apply if lower is None else on_trunk(lower, apply, shared=True)

    def compute(outputs, targets, share, step, memory):
        """The objective; of mixed views its parts for both targets [B, 2], averaged, and its memory after the first."""
        if share is None:
            return objective.compute(outputs, targets, step, memory)
        (own, new), (others, _) = [objective.compute(outputs, labels, step, memory) for labels in targets.T]
        return jax.tree.map(lambda a, b: share * a + (1 - share) * b, own, others), new

    def gradients(state, frozen, batch_stats, share, views, targets, fixed):
        """Of one part of the batch: the gradients, and (statistics, memory, metrics, outputs)."""

        def loss_of(params):
            variables = {"params": params, "batch_stats": batch_stats, **_trunk(frozen)}
            outputs, new_stats = apply(variables, constrain(views), True)
            outputs |= fixed
            parts, memory = compute(outputs, targets, share, state.step, state.memory)
            loss = losses.total(parts)
            metrics = {"loss": loss, "parts": parts, **_diagnostics(outputs, targets, share)}
            return loss, (new_stats, memory, metrics, outputs)

        return jax.grad(loss_of, has_aux=True)(state.params)

    def train_step(state: TrainState, key: jax.Array, batch: Batch, frozen: Any = None) -> tuple[TrainState, Metrics]:
        images, targets = constrain(batch.images), jnp.tile(batch.labels, copies)
        view_key, key_key = jax.random.split(jax.random.fold_in(key, state.step))
        done = () if progress is None else (progress(state.step),)
        with jax.named_scope("augment"):
            views, share = augment(view_key, _copy_major(images, copies), *done), None
            if mixup:
                views, targets, share = _mix(jax.random.fold_in(view_key, 1), views, targets, mixup)
        fixed = {}  # outputs without a gradient
        if key_augment is not None:
            with jax.named_scope("augment"):
                key_views = constrain(key_augment(key_key, images[:, -1], *done))
            with jax.named_scope("keys"):
                seen = key_views if lower is None else lower.apply(frozen, key_views, False)
                fixed["keys"] = _encode_keys(model, state, seen, frozen, strategy, mesh)
        if teacher is not None:
            fixed["teacher"] = teacher(state.memory["teacher"] | _trunk(frozen), constrain(views))
        of_part = functools.partial(gradients, state, frozen)
        if accumulate == 1:
            grads, (batch_stats, memory, metrics, _) = of_part(state.batch_stats, share, views, targets, fixed)
        else:
            parts = _split(accumulate, copies, views, targets, fixed)
            grads, batch_stats, metrics, outputs = _accumulate(of_part, state, share, parts, unroll)
            _, memory = compute(_join(outputs, copies), targets, share, state.step, state.memory)
        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
        new_state = TrainState(state.step + 1, params, batch_stats, opt_state, memory)
        return new_state, metrics | {"grad_norm": optax.tree.norm(grads)}

    return train_step


def _trunk(frozen):
    """The variables of a frozen backbone under the name that `make_apply` finds them by, where there is one."""
    return {} if frozen is None else {"trunk": frozen}


def _copy_major(images, copies):
    """`images [B, V, ...]` to `[N * B, ...]`: the views of copy 0 of every image, then of copy 1, ..."""
    batch, number, *shape = images.shape
    if number == 1:
        return jnp.tile(images[:, 0], (copies, *[1] * len(shape)))
    return jnp.moveaxis(images[:, :copies], 1, 0).reshape(copies * batch, *shape)


def _mix(key, views, targets, mixup):
    """mixup (Zhang et al., arXiv 1710.09412): `share * views + (1 - share) * partners`, targets `[B, 2]`, the share.

    One share per batch, as in the authors' program, whose partners are a random permutation; here the batch, which is
    in random order already, is turned round.
    """
    share = jax.random.beta(key, mixup, mixup)
    return share * views + (1 - share) * views[::-1], jnp.stack([targets, targets[::-1]], axis=1), share


def _split(accumulate, copies, views, targets, fixed):
    """`views [N * B, ...]`, `targets [N * B]` and outputs without a gradient `[E, B, dim]` in parts, on a new leading
    axis A.

    Part a takes the images a, a + A, ..., so that every device holds as many images of each part.
    """

    def split(array):
        copied = array.reshape(copies, -1, accumulate, *array.shape[1:])  # [N, B / A, A, ...]
        return jnp.moveaxis(copied, 2, 0).reshape(accumulate, -1, *array.shape[1:])

    fixed = jax.tree.map(lambda k: jnp.moveaxis(k.reshape(len(k), -1, accumulate, k.shape[-1]), 2, 0), fixed)
    return split(views), split(targets), fixed


def _join(outputs, copies):
    """The parts' outputs `[A, E, N * B / A, ...]` in the whole batch's order, `[E, N * B, ...]`: undoes `_split`."""

    def join(path, array):
        parts, num_experts, rows, *rest = array.shape
        number = 1 if path[0].key == "keys" else copies
        array = array.reshape(parts, num_experts, number, rows // number, *rest)
        return jnp.moveaxis(array, 0, 3).reshape(num_experts, parts * rows, *rest)

    return jax.tree_util.tree_map_with_path(join, outputs)


def _accumulate(gradients, state, share, parts, unroll):
    """The means over the parts of their gradients and metrics, the running statistics after all, and all outputs."""

    def body(carry, part):
        batch_stats, total = carry
        grads, (batch_stats, _, metrics, outputs) = gradients(batch_stats, share, *part)
        return (batch_stats, optax.tree.add(total, grads)), (metrics, outputs)

    start = (state.batch_stats, optax.tree.zeros_like(state.params))
    (batch_stats, total), (metrics, outputs) = jax.lax.scan(body, start, parts, unroll=unroll)
    grads = optax.tree.scale(1 / len(parts[1]), total)
    return grads, batch_stats, jax.tree.map(lambda values: values.mean(0), metrics), outputs


def _diagnostics(outputs, targets, share):
    """The ensemble's accuracy on the batch, the share of the experts' features that are 0 for every image of the batch
    (rectified features that died: see docs/short_schedules.md), and the mean of their sizes: those of a transformer,
    normalised, have either sign."""
    chosen = jnp.argmax(outputs["logits"].mean(0), axis=-1)
    right = [jnp.mean(chosen == column) for column in jnp.atleast_2d(targets.T)]
    accuracy = right[0] if share is None else share * right[0] + (1 - share) * right[1]
    dead, mean = jnp.all(outputs["features"] == 0, axis=1).mean(), jnp.abs(outputs["features"]).mean()
    return {"train_accuracy": accuracy, "dead_features": dead, "feature_mean": mean}


def _encode_keys(model, state, images, frozen, strategy, mesh):
    """Keys `[E, B, dim]` under the momentum encoder's weights and the key view's own batch statistics."""
    encoder = optax.tree.get(state.opt_state, "encoder")
    batch_stats = {
        name: stats for name, stats in state.batch_stats.items() if name == "backbone"
    }  # shapes only: never read in training mode

    def one(variables, x, shared=None):
        return model.apply(with_shared(variables, shared), x, method="project", mutable=["batch_stats"])

    variables = {"params": encoder, "batch_stats": batch_stats}
    return apply_experts(one, variables, images, frozen, strategy=strategy, mesh=mesh)[0]


def is_inexact(leaf: Any) -> bool:
    """Whether a leaf of the state can hold anything that is not finite."""
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def are_finite(state: TrainState) -> jax.Array:
    """Whether all numbers of each leaf of the state for which `is_inexact` holds are finite: bool [leaves]."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state) if is_inexact(leaf)])


def make_advance(train_step: Callable, take: Callable, *, several: bool) -> Callable:
    """Makes the program of a run: `advance(state, history, key, source, count) -> (state, history, last metrics)`; what
    `train_step` takes beside a batch comes last, as `frozen`.

    Args:
      train_step: see `make_train_step`.
      take: a feed's `(source, step) -> Batch`.
      several: whether one call does `count` steps (dynamic, so that one program serves the epoch's rest as well) or
        one, whatever `count`: on CPU a loop that holds weight gradients is many times slower than separate calls.

    The history mirrors the metrics: arrays `[steps per epoch]`, where step s is written at s modulo their length.
    """

    def one(state, history, key, source, *frozen):
        slot = state.step % len(history["loss"])
        with jax.named_scope("take"):
            batch = take(source, state.step)
        state, metrics = train_step(state, key, batch, *frozen)
        return state, jax.tree.map(lambda values, value: values.at[slot].set(value), history, metrics), metrics

    def advance(state: TrainState, history: Metrics, key: jax.Array, source: Any, count: jax.Array, *frozen: Any):
        if not several:
            return one(state, history, key, source, *frozen)
        start = (state, history, jax.tree.map(lambda values: jnp.zeros((), values.dtype), history))
        return jax.lax.fori_loop(0, count, lambda _, carry: one(carry[0], carry[1], key, source, *frozen), start)

    return advance


def zero_history(
    train_step: Callable, take: Callable, state: TrainState, key: jax.Array, source: Any, length: int, *frozen: Any
) -> Metrics:
    """The history of an epoch that has not begun: zeros `[length]` for every metric, named as the step names it.

    `state`, `key`, `source` and `frozen` (see `make_advance`) may be shapes.
    """
    step = lambda state, key, source, *frozen: train_step(state, key, take(source, state.step), *frozen)[1]  # noqa: E731
    shapes = jax.eval_shape(step, state, key, source, *frozen)
    return jax.tree.map(lambda shape: np.zeros(length, shape.dtype), shapes)
