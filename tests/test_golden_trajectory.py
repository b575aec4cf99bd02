"""Six training steps from the authors' PyTorch weights reproduce the authors' program (docs/fidelity.md)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from quick import quick_jit

from ncl_jax import methods
from ncl_jax.config import base_config
from ncl_jax.data.feeds.feed import Batch
from ncl_jax.evaluation.predictor import Predictor
from ncl_jax.methods import momentum
from ncl_jax.methods.contrast import contrast
from ncl_jax.models import cpu, experts, layers, make_network
from ncl_jax.training import optimizers, steps
from ncl_jax.weights import torch_names


@pytest.fixture(params=["xla", "kernels"])
def operations(request):
    """XLA's convolutions, and those of one CPU device."""
    if request.param == "kernels":
        request.getfixturevalue("kernels")
    return cpu.OPERATIONS if request.param == "kernels" else layers.XLA


def supervised(data):
    """NCL's losses with the defaults: the authors' semantics."""
    fields = dict(base_config().loss) | {"num_hard": 3}
    return methods.objective("ncl")(data["class_counts"], **fields)


def setup(data, operations, modules, projection_dim, encoder=(), packed=False):
    tensors = {name.removeprefix("init/"): data[name] for name in data.files if name.startswith("init/")}
    variables = torch_names.from_torch(tensors, modules)
    model = make_network(
        backbone="cifar_resnet",
        depth=8,
        width=16,
        classifier="linear",
        cosine_scale=16,
        num_classes=10,
        projection_dim=projection_dim,
        precision="float32",
        operations=operations,
        packed=packed,
    )
    optimizer = optax.chain(optimizers.sgd(0.005, momentum=0.9, weight_decay=2e-4), *encoder)
    params = jax.tree.map(jnp.asarray, variables["params"])
    state = steps.TrainState(
        jnp.zeros((), jnp.int32),
        params,
        jax.tree.map(jnp.asarray, variables["batch_stats"]),
        optimizer.init(params),
        (),
    )
    return model, optimizer, state, tensors


def run(data, model, optimizer, state, objective, key_augment=None, strategy="unroll"):
    """Six steps on the fixed batches. The augmentation picks one view of [..., query RGB + key RGB]."""
    views = [data["images"], data["key_images"]] if key_augment else [data["images"]]
    images = np.concatenate(views, axis=-1)
    step = quick_jit(
        steps.make_train_step(
            model,
            optimizer,
            objective,
            lambda key, images: images[..., :3],
            strategy=strategy,
            key_augment=key_augment,
        )
    )
    losses = []
    for batch in zip(images, data["labels"], strict=True):
        state, metrics = step(state, jax.random.key(0), Batch(batch[0][:, None], batch[1]))
        losses.append(metrics["loss"])
    return state, np.array(losses)


def to_torch(kernels):
    return np.asarray(kernels).transpose(0, 4, 3, 1, 2)


def assert_final_state_matches(data, model, state):
    """Stated tolerances: weights 1e-4, running statistics 1e-5, evaluation logits 5e-4 (absolute, of about 2)."""
    np.testing.assert_allclose(to_torch(state.params["backbone"]["conv1"]["kernel"]), data["final_conv1"], atol=1e-4)
    stats = state.batch_stats["backbone"]["bn1"]
    np.testing.assert_allclose(stats["mean"], data["final_bn1_mean"], atol=1e-5)
    np.testing.assert_allclose(stats["var"], data["final_bn1_var"], rtol=1e-5)
    predictor = Predictor(experts.make_apply(model, "unroll"), lambda images: images)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits = quick_jit(predictor.logits)(variables, data["images"][0])
    np.testing.assert_allclose(logits, data["eval_logits"], atol=5e-4)


@pytest.mark.slow
def test_supervised_steps_match_the_authors(golden, operations):
    data = golden("official_trajectory")
    model, optimizer, state, _ = setup(data, operations, torch_names.SUPERVISED, 0)
    state, losses = run(data, model, optimizer, state, supervised(data))
    np.testing.assert_allclose(losses, data["losses"], rtol=1e-5)
    assert_final_state_matches(data, model, state)


@pytest.mark.slow
def test_steps_in_packed_form_match_the_authors(golden, operations):
    data = golden("official_trajectory")
    model, optimizer, state, _ = setup(data, operations, torch_names.SUPERVISED, 0, packed=True)
    state, losses = run(data, model, optimizer, state, supervised(data), strategy="packed")
    np.testing.assert_allclose(losses, data["losses"], rtol=1e-5)
    assert_final_state_matches(data, model, state)


@pytest.mark.slow
def test_self_supervised_steps_match_the_authors(golden, operations):
    """Every row of the authors' column: own start of the encoder, frozen key projection, m ** E, one step behind."""
    data = golden("official_trajectory_moco")
    encoder = momentum.momentum_encoder(0.999**2, frozen=("projection",), average="before")
    model, optimizer, state, tensors = setup(data, operations, torch_names.SELF_SUPERVISED, 16, [encoder])
    start = jax.tree.map(jnp.asarray, torch_names.from_torch(tensors, torch_names.MOMENTUM_ENCODER)["params"])
    queue = np.stack([tensors[f"MOCO.{e}.queue"].T for e in range(2)])
    state = state._replace(
        opt_state=optax.tree.set(state.opt_state, encoder=start),
        memory={"method": (), "contrast": momentum.KeyQueue(jnp.asarray(queue), jnp.zeros((), jnp.int32))},
    )
    objective = methods.together(method=supervised(data), contrast=contrast(weight=1.0, temperature=0.2, queue=64))
    state, losses = run(data, model, optimizer, state, objective, lambda key, batch: batch[..., 3:])
    np.testing.assert_allclose(losses, data["losses"], rtol=1e-5)
    assert_final_state_matches(data, model, state)
    np.testing.assert_allclose(state.memory["contrast"].keys[0].T, data["final_queue0"], atol=1e-4)
    kernel = optax.tree.get(state.opt_state, "encoder")["backbone"]["conv1"]["kernel"]
    np.testing.assert_allclose(to_torch(kernel)[0], data["final_conv1_ma0"], atol=1e-6)
