"""Six training steps from the authors' PyTorch weights reproduce the authors' program (docs/fidelity.md)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ncl_jax import convert, losses, momentum, optim, steps
from ncl_jax.models import cpu_conv, make_network


@pytest.fixture(autouse=True, params=["xla", "kernels"])
def convolution(request, monkeypatch):
    """XLA's convolutions, and those of one CPU device."""
    if request.param == "kernels" and cpu_conv.load():
        pytest.skip(cpu_conv.load())
    monkeypatch.setattr(cpu_conv, "in_use", lambda: request.param == "kernels")


def supervised_loss(logits, labels, step, *, class_counts):
    return losses.ncl_loss(logits, labels, class_counts, num_hard=3)


def setup(data, modules, projection_dim, encoder=()):
    tensors = {name.removeprefix("init/"): data[name] for name in data.files if name.startswith("init/")}
    variables = convert.from_torch(tensors, modules)
    model = make_network(
        backbone="cifar_resnet",
        depth=8,
        width=16,
        classifier="linear",
        cosine_scale=16,
        num_classes=10,
        projection_dim=projection_dim,
        precision="float32",
    )
    optimizer = optax.chain(optim.sgd(0.005, momentum=0.9, weight_decay=2e-4), *encoder)
    params = jax.tree.map(jnp.asarray, variables["params"])
    state = steps.TrainState(
        jnp.zeros((), jnp.int32),
        params,
        jax.tree.map(jnp.asarray, variables["batch_stats"]),
        optimizer.init(params),
        (),
        jnp.zeros((6, 9 + bool(projection_dim))),
    )
    return model, optimizer, state, tensors


def run(data, model, optimizer, state, contrast=None):
    """Six steps on the fixed batches. The augmentation picks one view of [..., query RGB + key RGB]."""
    loss_fn = functools.partial(supervised_loss, class_counts=jnp.asarray(data["class_counts"]))
    views = [data["images"], data["key_images"]] if contrast else [data["images"]]
    images = np.concatenate(views, axis=-1).reshape(-1, 32, 32, 3 * len(views))
    step = jax.jit(
        steps.make_train_step(
            model,
            optimizer,
            loss_fn,
            lambda key, batch: batch[..., :3],
            batch_size=8,
            strategy="unroll",
            contrast=contrast,
        )
    )
    rows = []
    for _ in range(6):
        state, row = step(state, jax.random.key(0), images, data["labels"].reshape(-1), jnp.arange(48))
        rows.append(row)
    return state, np.array(rows)


def to_torch(kernels):
    return np.asarray(kernels).transpose(0, 4, 3, 1, 2)


def assert_final_state_matches(data, model, state):
    """Stated tolerances: weights 1e-4, running statistics 1e-5, evaluation logits 5e-4 (absolute, of about 2)."""
    np.testing.assert_allclose(to_torch(state.params["backbone"]["conv1"]["kernel"]), data["final_conv1"], atol=1e-4)
    stats = state.batch_stats["backbone"]["bn1"]
    np.testing.assert_allclose(stats["mean"], data["final_bn1_mean"], atol=1e-5)
    np.testing.assert_allclose(stats["var"], data["final_bn1_var"], rtol=1e-5)
    logits = jax.jit(steps.make_predict(model, "unroll"))(state.params, state.batch_stats, data["images"][0])
    np.testing.assert_allclose(logits, data["eval_logits"], atol=5e-4)


def test_supervised_steps_match_the_authors(golden):
    data = golden("official_trajectory")
    model, optimizer, state, _ = setup(data, convert.SUPERVISED, 0)
    state, rows = run(data, model, optimizer, state)
    np.testing.assert_allclose(rows[:, 0], data["losses"], rtol=1e-5)
    assert_final_state_matches(data, model, state)


def test_self_supervised_steps_match_the_authors(golden):
    """Every row of the authors' column: own start of the encoder, frozen key projection, m ** E, one step behind."""
    data = golden("official_trajectory_moco")
    encoder = momentum.momentum_encoder(0.999**2, frozen=("projection",), average="before")
    model, optimizer, state, tensors = setup(data, convert.SELF_SUPERVISED, 16, [encoder])
    start = jax.tree.map(jnp.asarray, convert.from_torch(tensors, convert.MOMENTUM_ENCODER)["params"])
    queue = np.stack([tensors[f"MOCO.{e}.queue"].T for e in range(2)])
    state = state._replace(
        opt_state=optax.tree.set(state.opt_state, encoder=start),
        queue=momentum.KeyQueue(jnp.asarray(queue), jnp.zeros((), jnp.int32)),
    )
    contrast = steps.Contrast(lambda key, batch: batch[..., 3:], temperature=0.2, weight=1.0)
    state, rows = run(data, model, optimizer, state, contrast)
    np.testing.assert_allclose(rows[:, 0], data["losses"], rtol=1e-5)
    assert_final_state_matches(data, model, state)
    np.testing.assert_allclose(state.queue.keys[0].T, data["final_queue0"], atol=1e-4)
    kernel = optax.tree.get(state.opt_state, "encoder")["backbone"]["conv1"]["kernel"]
    np.testing.assert_allclose(to_torch(kernel)[0], data["final_conv1_ma0"], atol=1e-6)
