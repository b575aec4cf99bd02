"""The optimizers and their learning rate: SGD with coupled weight decay, or AdamW; one rate per epoch."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ncl_jax.models.layers import part_of

SCHEDULES = ("step", "cosine", "annealing")
OPTIMIZERS = ("sgd", "momentum", "adamw")


def make_optimizer(
    name: str, learning_rate: optax.ScalarOrSchedule, *, momentum: float, weight_decay: float
) -> optax.GradientTransformation:
    """An optimizer of `OPTIMIZERS`: "sgd" with Nesterov's momentum, "momentum" with the plain one, or AdamW, which has
    its usual 0.9 and 0.999 for `momentum`."""
    if name == "adamw":
        return optax.adamw(learning_rate, weight_decay=weight_decay)
    return sgd(learning_rate, momentum=momentum, weight_decay=weight_decay, nesterov=name == "sgd")


def learning_rates(
    schedule: str,
    base: float,
    epochs: int,
    *,
    warmup_epochs: int = 0,
    milestones: Sequence[int] = (),
    final: float = 1e-4,
) -> np.ndarray:
    """The learning rate of every epoch, float64 `[epochs]` (entry 0 is epoch 1).

    Epochs count from 1. With a warm-up of w epochs, epoch t < w uses `base * (1/3 * (1 - t/w) + t/w)`. Afterwards
    "step" uses `base * 0.1 ** (number of milestones <= t)`,
    "cosine" `final + (base - final) * (1 + cos(pi t / epochs)) / 2`,
    "annealing" `base * (1 + cos(pi (t - 1) / epochs)) / 2`, as PyTorch's `CosineAnnealingLR`: the first epoch has the
    base rate, and the last one is not 0.
    The first two are equivalent to the authors' schedules (their Networks start at a third of the rate, not at 0).

    Raises:
      ValueError: for an unknown schedule.
    """
    t = np.arange(1, epochs + 1, dtype=np.float64)
    if schedule == "step":
        rates = base * 0.1 ** np.sum(t[:, None] >= np.asarray(milestones, np.float64), axis=1)
    elif schedule == "cosine":
        rates = final + (base - final) * (1 + np.cos(np.pi * t / epochs)) / 2
    elif schedule == "annealing":
        rates = base * (1 + np.cos(np.pi * (t - 1) / epochs)) / 2
    else:
        raise ValueError(f"schedule={schedule!r} must be one of {SCHEDULES}")
    share = t / max(warmup_epochs, 1)
    return np.where(t < warmup_epochs, base * ((1 - share) / 3 + share), rates)


def per_epoch(values: np.ndarray, steps_per_epoch: int) -> optax.Schedule:
    """An optax schedule: step s (from 0) uses `values[s // steps_per_epoch]`, the last value for ever after."""
    table = jnp.asarray(values, jnp.float32)
    return lambda step: table[jnp.minimum(step // steps_per_epoch, len(table) - 1)]


def scaled_backbone(optimizer: optax.GradientTransformation, scale: float, freeze: int) -> optax.GradientTransformation:
    """The optimizer with `scale` times the learning rate for the backbone, and none for its first `freeze` parts.

    The parameters are `{"backbone": {module: ...}, ...}`; a module's part is `layers.part_of` its name.
    """
    if scale == 1 and not freeze:
        return optimizer

    def groups(params):
        def group(path, _):
            if path[0].key != "backbone":
                return "rest"
            return "frozen" if part_of(path[1].key) < freeze else "backbone"

        return jax.tree_util.tree_map_with_path(group, params)

    shares = {"rest": optax.identity(), "backbone": optax.scale(scale), "frozen": optax.set_to_zero()}
    return optax.chain(optimizer, optax.partition(shares, groups))


def sgd(
    learning_rate: optax.ScalarOrSchedule, *, momentum: float, weight_decay: float, nesterov: bool = True
) -> optax.GradientTransformation:
    """SGD with `weight_decay` times the parameter added to every gradient (coupled L2).

    Equivalent to `torch.optim.SGD(parameters, lr, momentum, weight_decay=weight_decay, nesterov=nesterov)`: BatchNorm
    parameters and biases decay too, as in the authors' recipe.
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate, momentum=momentum, nesterov=nesterov)
    )
