"""Classifiers on the features of a frozen backbone that take seconds: what a trained run is worth is seen beside them.

All take training features `[N, D]`, labels int `[N]` and test features `[M, D]`, float32, and give scores `[M, C]`.
Those marked balanced are meant for classes that are equally likely, as the project's methods are.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ncl_jax.trust import left_out
from ncl_jax.trust.gaussian import class_means, shrunk_covariance
from ncl_jax.trust.neighbours import nearest, unit

NEIGHBOURS, SHARPNESS = 10, 0.07  # of the nearest neighbours' vote
EPOCHS, BATCH, RATE = 30, 128, 1e-3  # of the linear classifiers


def nearest_class_mean(train: np.ndarray, labels: np.ndarray, test: np.ndarray, num_classes: int) -> np.ndarray:
    """The cosine to the mean of every class; balanced."""
    return unit(test) @ unit(class_means(train, labels, num_classes)).T


def nearest_neighbours(train: np.ndarray, labels: np.ndarray, test: np.ndarray, num_classes: int) -> np.ndarray:
    """The votes of the nearest `NEIGHBOURS` by cosine, each `exp(cos / SHARPNESS)` over its class's size; balanced."""
    counts, scores = np.bincount(labels, minlength=num_classes), np.zeros((len(test), num_classes))
    rows, distances = nearest(test, train, NEIGHBOURS)
    votes = np.exp(-distances / SHARPNESS) / counts[labels[rows]]
    np.add.at(scores, (np.arange(len(test))[:, None], labels[rows]), votes)
    return scores


def ridge(train: np.ndarray, labels: np.ndarray, test: np.ndarray, num_classes: int) -> np.ndarray:
    """Weighted ridge regression on one-hot targets in closed form, every class with the same weight; balanced.

    The penalty is the one of `left_out.PENALTIES` with the least leave-one-out error.
    """
    found = left_out.spectrum(train, labels, num_classes)
    kernel = found.vectors @ (found.moments / (found.values + left_out.best_penalty(found))[:, None])
    return (test - found.mean) @ kernel + 1 / num_classes


def discriminant(train: np.ndarray, labels: np.ndarray, test: np.ndarray, num_classes: int) -> np.ndarray:
    """Linear discriminant analysis with the pooled covariance shrunk by OAS (Chen et al. 2010), no prior; balanced."""
    means = class_means(train, labels, num_classes).astype(np.float64)
    covariance = shrunk_covariance(train - means[labels]).matrix
    kernel = np.linalg.solve(covariance, means.T)  # [D, C]
    return test @ kernel - 0.5 * (means.T * kernel).sum(0)


def linear(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, num_classes: int, balanced: bool = False
) -> np.ndarray:
    """A linear classifier on standardised features, trained with AdamW on the cross-entropy or, `balanced`, on the
    balanced softmax (Ren et al. 2020)."""
    mean, deviation = train.mean(0), np.maximum(train.std(0), 1e-6)
    counts = np.bincount(labels, minlength=num_classes) if balanced else np.ones(num_classes)
    prior = jnp.log(jnp.asarray(counts / counts.sum(), jnp.float32))
    standard = jnp.asarray((train - mean) / deviation)
    kernel, bias = _fitted(standard, jnp.asarray(labels), prior, min(BATCH, len(labels)))
    return (test - mean) / deviation @ np.asarray(kernel) + np.asarray(bias)


@functools.partial(jax.jit, static_argnums=3)
def _fitted(features, labels, prior, batch):
    steps = len(labels) // batch
    optimizer = optax.adamw(optax.cosine_decay_schedule(RATE, EPOCHS * steps), weight_decay=1e-2)
    params = jnp.zeros((features.shape[1], len(prior))), jnp.zeros(len(prior))

    def loss(params, rows):
        logits = jnp.take(features, rows, 0) @ params[0] + params[1] + prior
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows]).mean()

    def step(carry, rows):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, rows), state, params)
        return (optax.apply_updates(params, updates), state), None

    orders = jax.vmap(lambda key: jax.random.permutation(key, len(labels))[: steps * batch])
    rows = orders(jax.random.split(jax.random.key(0), EPOCHS)).reshape(-1, batch)
    return jax.lax.scan(step, (params, optimizer.init(params)), rows)[0][0]


# By the names that tables show. One more is one line here.
BASELINES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]] = {
    "nearest class mean": nearest_class_mean,
    "nearest neighbours": nearest_neighbours,
    "ridge regression": ridge,
    "linear discriminant": discriminant,
    "linear, cross-entropy": linear,
    "linear, balanced softmax": functools.partial(linear, balanced=True),
}
