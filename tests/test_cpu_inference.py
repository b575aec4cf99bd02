"""The C++ kernels for inference equal the operations that they stand for, and the networks made of them XLA's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_vit
from quick import quick_jit
from scipy import special

from ncl_jax.models import cpu, layers, resnet, vit
from ncl_jax.models.cpu import folded, library
from ncl_jax.models.cpu.library import call

PANEL = 2 * library.lanes()

pytestmark = pytest.mark.usefixtures("kernels")


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def close(found, expected, share=2e-6):
    """Whether two arrays differ by a share of the largest number at most."""
    return float(np.abs(found - expected).max()) <= share * float(np.abs(expected).max())


# height, width, kernel, stride, channels in and out: every rest of rows and columns, one band of rows and several
CONVOLUTIONS = [
    (7, 9, 3, 1, PANEL, 2 * PANEL), (8, 6, 3, 1, 2 * PANEL, PANEL), (1, 1, 3, 1, PANEL, PANEL),
    (13, 10, 7, 2, 3, PANEL),
    (9, 12, 3, 2, 8, PANEL), (6, 5, 1, 1, 24, PANEL), (7, 8, 1, 2, 24, PANEL), (70, 70, 5, 1, 64, PANEL),
]  # fmt: skip


@pytest.mark.parametrize("shape", CONVOLUTIONS)
@pytest.mark.parametrize("ends", [False, True])
def test_a_convolution_with_what_follows_it(shape, ends):
    height, width, size, stride, inputs, outputs = shape
    x, kernel, bias = normal(3, height, width, inputs), normal(size, size, inputs, outputs), normal(outputs)
    expected = layers.convolve(x, kernel, stride, size // 2) + bias
    more = normal(*expected.shape) if ends else None
    expected = jnp.maximum(expected + more, 0) if ends else expected
    filters = folded.filters(kernel, stride)
    assert filters == (size == 3 and stride == 1)
    by = (folded.transformed if filters else folded.panels)(kernel, bias)
    found = folded.convolve(x, by, stride, add=more, most=folded.RELU if ends else folded.NOTHING)
    assert close(found, expected)


@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 5, 3), (61, PANEL, PANEL + 1), (300, 100, 3 * PANEL)])
@pytest.mark.parametrize(
    ("act", "function"),
    [("", lambda x: x), ("gelu", lambda x: x * special.ndtr(x)), ("quick", lambda x: x * special.expit(1.702 * x))],
)
@pytest.mark.parametrize("epsilon", [0, 1e-5])
def test_a_layer_with_what_is_around_it(rows, inputs, outputs, act, function, epsilon):
    x, kernel, bias, more = normal(rows, inputs), normal(inputs, outputs), 3 * normal(outputs), normal(rows, outputs)
    wide = x.astype(float)
    if epsilon:
        wide = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + epsilon)
    expected = function(wide @ kernel + bias + more)
    found = folded.dense(x, folded.panels(kernel, bias), outputs, add=more, epsilon=epsilon, act=act)
    assert close(found, expected)


@pytest.mark.parametrize(("number", "heads", "size"), [(1, 1, 8), (5, 2, 12), (197, 2, 64)])
def test_attention(number, heads, size):
    x = 3 * normal(2, number, 3, heads, size)
    expected = jax.nn.dot_product_attention(*(x[:, :, part] for part in range(3)))
    width = heads * size
    found = call("NclAttention", (2, number, width), x.reshape(2, number, 3 * width), size=size)
    assert close(found, expected.reshape(found.shape), 5e-6)


class Rotary(tiny_vit.TinyVit):
    """All that tells vision transformers apart but pooling."""

    form = vit.Form(patch=8, head=8, registers=2, layer_scale=True, rotary=True, first_norm=True, quick=True)


class Pooling(tiny_vit.TinyVit):
    """With attention pooling."""

    form = vit.Form(patch=8, head=8, pools=True)


NETWORKS = [
    (resnet.ResNet(18, 32), (33, 47)), (resnet.ResNet(50, 32), (40, 33)),
    *((kind(2, 16), (16, 24)) for kind in (tiny_vit.TinyVit, Rotary, Pooling)),
]  # fmt: skip


@pytest.mark.parametrize(("network", "size"), NETWORKS, ids=lambda value: type(value).__name__)
def test_a_network_gives_the_features_that_xla_gives(network, size):
    """With weights and running statistics that are far from the initial ones."""
    x = normal(2, *size, 3)
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), x, False))
    variables = jax.tree.map(lambda leaf: 0.2 * normal(*leaf.shape), shapes)
    if "batch_stats" in variables:
        variables["batch_stats"] = jax.tree.map(lambda leaf: 1 + np.abs(leaf), variables["batch_stats"])
    ready, apply = cpu.inference(network)
    program = quick_jit(apply)
    assert "Ncl" in program.lower(ready(variables), x).as_text()
    expected = quick_jit(lambda v, x: network.apply(v, x, False))(variables, x)
    assert close(program(ready(variables), x), expected, 2e-5)


@pytest.mark.parametrize(
    "network",
    [
        resnet.ResNeXt(50, 32),
        resnet.ResNet(50, 16),
        resnet.ResNet(18, 32, jnp.bfloat16),
        tiny_vit.TinyVit(2, 16, since=1),
    ],
    ids=["groups", "width", "bfloat16", "tokens"],
)
def test_every_other_network_is_xlas(network):
    ready, _ = cpu.inference(network)
    variables = {"params": {}}
    assert ready(variables) is variables


def test_what_is_no_number_stays_so():
    """Weights that are damaged are noticed by their features."""
    x, kernel = normal(1, 8, 8, 3), normal(7, 7, 3, PANEL)
    kernel[0, 0, 0, 0] = np.nan
    found = call("NclStem", (1, 2, 2, PANEL), x, *folded.panels(kernel, normal(PANEL)), kernel_size=7)
    assert np.isnan(found[..., 0]).all() and not np.isnan(found[..., 1:]).any()
    for act in folded.ACTS:
        assert np.isnan(folded.dense(x * np.nan, folded.panels(normal(3, 5), normal(5)), 5, act=act)).all()
    assert np.isnan(call("NclAttention", (1, 8, 8), normal(1, 8, 24) * np.nan, size=8)).all()
