"""The training step and the evaluation step: pure functions of one state, compiled by the caller."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from ncl_jax import losses, momentum
from ncl_jax.experts import apply_experts
from ncl_jax.sharding import constrain_batch, take_rows

Loss = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]
Augment = Callable[[jax.Array, jax.Array], jax.Array]


class TrainState(NamedTuple):
    """Everything that a run changes: what a checkpoint holds."""

    step: jax.Array  # int32 []: steps done
    params: Any  # {"backbone", "classifier"[, "projection"]}: [E, ...]
    batch_stats: Any  # running statistics, [E, ...]
    opt_state: optax.OptState  # with the momentum encoder, where there is one
    queue: momentum.KeyQueue | tuple  # () without self-supervision
    history: jax.Array  # float32 [steps_per_epoch, M]: the metrics of the current epoch's steps


class Contrast(NamedTuple):
    """Self-supervision by momentum contrast (NCL; MoCo)."""

    augment: Augment  # the key view's
    temperature: float
    weight: float


def make_apply(model: nn.Module, strategy: str, mesh: Mesh | None = None) -> Callable:
    """`apply(params, batch_stats, images, train) -> (outputs [E, ...], new batch_stats)` for stacked experts."""

    def apply(params, batch_stats, images, train):
        def one(variables, x):
            return model.apply(variables, x, train, mutable=["batch_stats"])

        variables = {"params": params, "batch_stats": batch_stats}
        outputs, updates = apply_experts(one, variables, images, strategy=strategy, mesh=mesh)
        return outputs, updates["batch_stats"]

    return apply


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    loss_fn: Loss,
    augment: Augment,
    *,
    batch_size: int,
    strategy: str,
    copies: int = 1,
    accumulate: int = 1,
    contrast: Contrast | None = None,
    mesh: Mesh | None = None,
) -> Callable:
    """Makes `train_step(state, key, images, labels, order) -> (state, row)`.

    Args:
      model: one expert's network.
      optimizer: its state holds the momentum encoder if there is a `contrast`.
      loss_fn: `(logits [E, N * B, C], labels [N * B], step) -> (loss, parts)`.
      augment: `(key, uint8 [B, H, W, 3]) -> float32 [B, H, W, 3]`.
      batch_size: B, images a step.
      strategy: how the experts are applied, see `apply_experts`.
      copies: N augmented copies of each image, laid out copy-major (NCL++).
      accumulate: A parts of the batch that go through the network one after the other, for batches that do not fit
        into memory; the step takes the mean of their gradients. Each part has its own batch statistics.
      contrast: self-supervision, or None.
      mesh: the devices that batch and experts are spread over; None: one device.

    The step takes the run's random `key`, of which step s uses `fold_in(key, s)` and nothing else, so that a resumed
    run is the same run; of the whole training set `images [N, H, W, 3]` uint8, spread over the devices by
    `sharding.put_rows`, and `labels [N]`; and the epoch's `order` (row numbers, at least steps_per_epoch * B). `row`
    `[M]` holds the metrics named by `metric_names`.
    """
    apply = make_apply(model, strategy, mesh)
    constrain, take = constrain_batch(mesh), take_rows(mesh)

    def gradients(state, batch_stats, views, targets, keys):
        """The new running statistics, the gradients and the metrics of one part of the batch."""

        def objective(params):
            outputs, new_stats = apply(params, batch_stats, constrain(views), True)
            loss, parts = loss_fn(outputs["logits"], targets, state.step)
            if contrast is not None:
                rowwise = losses.info_nce(outputs["projection"], keys, state.queue.keys, contrast.temperature)
                parts = parts | {"contrast": contrast.weight * rowwise.mean(-1).sum()}
                loss = loss + parts["contrast"]
            return loss, (new_stats, parts | {"loss": loss} | _diagnostics(outputs, targets))

        grads, (new_stats, values) = jax.grad(objective, has_aux=True)(state.params)
        return new_stats, grads, values

    def train_step(state, key, images, labels, order):
        slot = state.step % len(state.history)
        rows = jax.lax.dynamic_slice(order, (slot * batch_size,), (batch_size,))
        batch = constrain(take(images, rows))
        targets = jnp.tile(labels[rows], copies)
        view_key, key_key = jax.random.split(jax.random.fold_in(key, state.step))
        views = augment(view_key, jnp.tile(batch, (copies, 1, 1, 1)))
        keys = ()
        if contrast is not None:
            keys = _encode_keys(model, state, constrain(contrast.augment(key_key, batch)), strategy, mesh)
        if accumulate == 1:
            batch_stats, grads, values = gradients(state, state.batch_stats, views, targets, keys)
        else:
            parts = _parts(accumulate, copies, views, targets, keys)
            batch_stats, grads, values = _accumulate(gradients, state, parts)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        values["grad_norm"] = optax.tree.norm(grads)
        loss_parts = sorted(values.keys() - {"loss", *DIAGNOSTICS})
        row = jnp.stack([values[name] for name in ("loss", *loss_parts, *DIAGNOSTICS)])
        new_state = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
            queue=momentum.push(state.queue, keys) if contrast is not None else state.queue,
            history=jax.lax.dynamic_update_index_in_dim(state.history, row, slot, 0),
        )
        return new_state, row

    return train_step


def _parts(accumulate, copies, views, targets, keys):
    """`views [N * B, ...]`, `targets [N * B]` and `keys [E, B, dim]` (or ()) in parts, on a new leading axis A.

    Part a takes the images a, a + A, ..., so that every device holds as many images of each part.
    """

    def split(array):
        copied = array.reshape(copies, -1, accumulate, *array.shape[1:])  # [N, B / A, A, ...]
        return jnp.moveaxis(copied, 2, 0).reshape(accumulate, -1, *array.shape[1:])

    keys = jax.tree.map(lambda k: jnp.moveaxis(k.reshape(len(k), -1, accumulate, k.shape[-1]), 2, 0), keys)
    return split(views), split(targets), keys


def _accumulate(gradients, state, parts):
    """The running statistics after all parts, and the means over the parts of their gradients and metrics."""

    def body(carry, part):
        batch_stats, total = carry
        batch_stats, grads, values = gradients(state, batch_stats, *part)
        return (batch_stats, optax.tree.add(total, grads)), values

    start = (state.batch_stats, optax.tree.zeros_like(state.params))
    on_cpu = jax.default_backend() == "cpu"  # where a loop that holds weight gradients is many times slower
    (batch_stats, total), values = jax.lax.scan(body, start, parts, unroll=on_cpu)
    return batch_stats, optax.tree.scale(1 / len(parts[1]), total), jax.tree.map(lambda v: v.mean(0), values)


DIAGNOSTICS = ("train_accuracy", "grad_norm", "dead_features", "feature_mean")


def _diagnostics(outputs, targets):
    """The ensemble's accuracy on the batch, the share of the experts' features that are 0 for every image of the batch
    (rectified features that died: see docs/short_schedules.md), and the features' mean."""
    correct = jnp.argmax(outputs["logits"].mean(0), axis=-1) == targets
    dead = jnp.all(outputs["features"] <= 0, axis=1)
    return {
        "train_accuracy": correct.mean(), "dead_features": dead.mean(), "feature_mean": outputs["features"].mean()
    }  # fmt: skip


def metric_names(loss_fn: Loss, num_experts: int, num_classes: int, contrast: bool, copies: int = 1) -> tuple[str, ...]:
    """The names of a step's metrics in the order of a history row: the loss, its parts by name, the diagnostics."""
    logits = jax.ShapeDtypeStruct((num_experts, 2 * copies, num_classes), jnp.float32)
    labels = jax.ShapeDtypeStruct((2 * copies,), jnp.int32)
    _, parts = jax.eval_shape(loss_fn, logits, labels, jax.ShapeDtypeStruct((), jnp.int32))
    return ("loss", *sorted([*parts, *(["contrast"] if contrast else [])]), *DIAGNOSTICS)


def _encode_keys(model, state, images, strategy, mesh):
    """Keys `[E, B, dim]` under the momentum encoder's weights and the key view's own batch statistics."""
    encoder = optax.tree.get(state.opt_state, "encoder")
    batch_stats = {"backbone": state.batch_stats["backbone"]}  # shapes only: never read in training mode

    def one(variables, x):
        return model.apply(variables, x, method="project", mutable=["batch_stats"])[0]

    variables = {"params": encoder, "batch_stats": batch_stats}
    return apply_experts(one, variables, images, strategy=strategy, mesh=mesh)


def make_multi_step(train_step: Callable) -> Callable:
    """`multi_step(state, key, images, labels, order, count) -> (state, row of the last)`: `count` steps in one call.

    The count is dynamic, so that one program serves the epoch's rest as well. For accelerators: a CPU loop holding
    convolutions' weight gradients is many times slower than separate calls.
    """

    def multi_step(state, *arguments):
        *arguments, count = arguments
        row = jnp.zeros(state.history.shape[1:], state.history.dtype)
        body = lambda _, carry: train_step(carry[0], *arguments)  # noqa: E731
        return jax.lax.fori_loop(0, count, body, (state, row))

    return multi_step


def epoch_order(key: jax.Array, epoch: jax.Array, num_images: int) -> jax.Array:
    """The order in which epoch `epoch` (from 0) visits the images: a permutation `[num_images]` int32."""
    return jax.random.permutation(jax.random.fold_in(key, epoch), num_images).astype(jnp.int32)


def make_predict(model: nn.Module, strategy: str, mesh: Mesh | None = None) -> Callable:
    """`predict(params, batch_stats, images float32 [B, H, W, 3]) -> logits [E, B, C]` with running statistics."""
    apply = make_apply(model, strategy, mesh)
    return lambda params, batch_stats, images: apply(params, batch_stats, images, False)[0]["logits"]
