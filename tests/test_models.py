"""Layers, heads and the ResNet against NumPy, parameter counts by hand, and the initial weights' distributions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_jit

from ncl_jax.models import cifar_resnet, heads, layers, make_network, resnet


def network(**changed):
    arguments = {"backbone": "cifar_resnet", "depth": 8, "width": 4, "classifier": "linear", "cosine_scale": 16}
    return make_network(**arguments | {"num_classes": 5, "projection_dim": 0, "precision": "float32"} | changed)


def draw(model, size=8):
    """Variables of the model's shapes, random everywhere: drawing them by its own initialisers takes seconds."""
    rng = np.random.default_rng(0)
    leaves = {"scale": lambda x: 1 + 0.3 * x, "var": lambda x: np.exp(0.3 * x)}
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.float32(leaves.get(path[-1].key, lambda x: 0.3 * x)(rng.normal(size=leaf.shape))),
        shapes_of(model, size),
    )


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def shapes_of(model, size=32):
    image = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, False), image)


def test_resnet32_has_the_known_number_of_parameters():
    """Counted by hand: one first convolution, ten a stage, a BatchNorm after each; no option B shortcuts."""
    variables = shapes_of(network(depth=32, width=16, num_classes=100))
    convolutions = 432 + 10 * 2304 + (4608 + 9 * 9216) + (18432 + 9 * 36864)
    assert count(variables["params"]["backbone"]) == convolutions + 2 * (11 * 16 + 10 * 32 + 10 * 64) == 463_504
    assert count(variables["params"]) == 463_504 + 6_500
    assert count(variables["batch_stats"]) == 2 * (11 * 16 + 10 * 32 + 10 * 64)


@pytest.mark.parametrize(("depth", "parameters"), [(50, 23_508_032), (101, 42_500_160), (152, 58_143_808)])
def test_large_resnets_have_the_known_number_of_parameters(depth, parameters):
    """Of torchvision's models of these names, without their classifiers."""
    variables = shapes_of(network(backbone="resnet", depth=depth, width=64))
    assert count(variables["params"]["backbone"]) == parameters


def test_a_large_resnet_has_the_papers_feature_maps():
    model = network(backbone="resnet", depth=50, width=64)
    image = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
    init = lambda x: model.init_with_output(  # noqa: E731
        jax.random.key(0), x, False, mutable=["params", "batch_stats", "intermediates"], capture_intermediates=True
    )
    outputs, variables = jax.eval_shape(init, image)
    maps = variables["intermediates"]["backbone"]
    assert maps["conv1"]["__call__"][0].shape == (2, 112, 112, 64)
    last = [maps[f"layer{stage}_{block}"]["__call__"][0].shape for stage, block in ((1, 2), (2, 3), (3, 5), (4, 2))]
    assert last == [(2, 56, 56, 256), (2, 28, 28, 512), (2, 14, 14, 1024), (2, 7, 7, 2048)]
    assert outputs["features"].shape == (2, 2048)


@pytest.mark.slow
def test_a_bottleneck_block_against_its_definition():
    """The stride sits in the 3x3 convolution; the shortcut is a strided 1x1 convolution."""
    block = resnet.Bottleneck(3, stride=2)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 6, 5)), jnp.float32)
    variables = block.init(jax.random.key(0), x, False)
    p, s = variables["params"], 1 / np.sqrt(1 + 1e-5)  # fresh running statistics: mean 0, variance 1
    hidden = nn.relu(jnp.einsum("bhwi,io->bhwo", x, p["conv1"]["kernel"][0, 0]) * s)
    hidden = nn.relu(layers.convolve(hidden, p["conv2"]["kernel"], 2, 1) * s)
    expected = jnp.einsum("bhwi,io->bhwo", hidden, p["conv3"]["kernel"][0, 0]) * s
    expected += jnp.einsum("bhwi,io->bhwo", x[:, ::2, ::2], p["downsample_conv"]["kernel"][0, 0]) * s
    np.testing.assert_allclose(block.apply(variables, x, False), nn.relu(expected), rtol=1e-4, atol=1e-5)


def test_projection_head_has_its_two_layers():
    params = shapes_of(network(depth=8, width=16, projection_dim=24))["params"]
    shapes = jax.tree.map(lambda leaf: leaf.shape, params["projection"])
    assert shapes == {
        "hidden": {"kernel": (64, 64), "bias": (64,)},
        "out": {"kernel": (64, 24), "bias": (24,)},
    }


@pytest.mark.parametrize("size", [8, 9])
def test_output_shapes_and_types(size):
    model = network(projection_dim=6)
    image = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    outputs = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x, False)[0], image)
    assert {name: (leaf.shape, leaf.dtype.name) for name, leaf in outputs.items()} == {
        "features": ((2, 16), "float32"),
        "logits": ((2, 5), "float32"),
        "projection": ((2, 6), "float32"),
    }


def test_depths_that_a_backbone_does_not_come_in_are_refused():
    with pytest.raises(ValueError, match=r"depth=10 .*8, 14, 20"):
        network(depth=10)
    with pytest.raises(ValueError, match=r"depth=32 .*50, 101, 152"):
        network(backbone="resnet", depth=32)


# Convolution and shortcut


def conv_oracle(x, kernel, stride, padding):
    size = kernel.shape[0]
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    rows, columns = ((n + 2 * padding - size) // stride + 1 for n in x.shape[1:3])
    out = np.zeros((len(x), rows, columns, kernel.shape[-1]))
    for i, j in np.ndindex(rows, columns):
        window = padded[:, i * stride : i * stride + size, j * stride : j * stride + size]
        out[:, i, j] = np.tensordot(window, kernel, axes=3)
    return out


@pytest.mark.parametrize("size", [8, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_pads_one_pixel_on_each_side(stride, size):
    """padding="SAME" at stride 2 on an even size pads (0, 1), which shifts every window by a pixel."""
    rng = np.random.default_rng(stride)
    x = rng.normal(size=(2, size, size, 3)).astype(np.float32)
    conv = layers.Conv(5, stride=stride)
    variables = conv.init(jax.random.key(0), x)
    assert set(variables["params"]) == {"kernel"}  # no bias
    expected = conv_oracle(x.astype(float), np.asarray(variables["params"]["kernel"], float), stride, 1)
    np.testing.assert_allclose(conv.apply(variables, x), expected, rtol=1e-4, atol=1e-5)


def test_option_a_shortcut():
    x = np.arange(2 * 4 * 4 * 4, dtype=np.float32).reshape(2, 4, 4, 4) + 1
    out = np.asarray(cifar_resnet.shortcut_a(jnp.asarray(x), 8, 2))
    expected = np.zeros((2, 2, 2, 8), np.float32)
    for row, column in np.ndindex(2, 2):
        expected[:, row, column, 2:6] = x[:, 2 * row, 2 * column]  # C / 4 = 2 zero channels on each side
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(cifar_resnet.shortcut_a(jnp.asarray(x), 4, 1), x)


def test_features_are_the_rectified_last_stage_averaged_over_pixels():
    """A network whose convolutions are all 0 leaves only the shortcuts and the BatchNorm biases."""
    model = cifar_resnet.CifarResNet(8, 4)
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes_of(model, 8))
    bias = jnp.array([1.0, -2.0, 3.0, 0.5])
    variables["params"]["bn1"]["bias"] = bias
    variables["params"]["layer3_0"]["bn2"]["bias"] = jnp.full(16, 0.25)
    expected = np.full(16, 0.25)
    expected[6:10] += [1.0, 0.0, 3.0, 0.5]  # two widenings: 2 and 4 zero channels in front
    features = quick_jit(lambda v: model.apply(v, x, False))(variables)
    np.testing.assert_allclose(features, np.tile(expected, (2, 1)), rtol=1e-6)


# Batch normalisation


def test_batch_normalisation_normalises_biased_and_keeps_unbiased():
    rng = np.random.default_rng(0)
    norm = layers.BatchNorm()
    batches = [rng.normal(3.0, 2.0, size=(2, 3, 2, 4)).astype(np.float32) for _ in range(3)]
    variables = norm.init(jax.random.key(0), batches[0], True)
    np.testing.assert_array_equal(variables["batch_stats"]["mean"], np.zeros(4))
    np.testing.assert_array_equal(variables["batch_stats"]["var"], np.ones(4))
    scale, bias = rng.normal(size=(2, 4)).astype(np.float32)
    params = {"scale": jnp.asarray(scale), "bias": jnp.asarray(bias)}
    stats, mean, var = variables["batch_stats"], np.zeros(4), np.ones(4)
    for batch in batches:
        wide = batch.astype(np.float64)
        out, updated = norm.apply({"params": params, "batch_stats": stats}, batch, True, mutable=["batch_stats"])
        centred = wide - wide.mean((0, 1, 2))
        expected = scale * centred / np.sqrt(wide.var((0, 1, 2)) + 1e-5) + bias
        np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
        mean = 0.9 * mean + 0.1 * wide.mean((0, 1, 2))
        var = 0.9 * var + 0.1 * wide.var((0, 1, 2), ddof=1)  # of 12 values: the biased one is 9 % smaller
        stats = updated["batch_stats"]
        np.testing.assert_allclose(stats["mean"], mean, rtol=1e-5)
        np.testing.assert_allclose(stats["var"], var, rtol=1e-5)
    out = norm.apply({"params": params, "batch_stats": stats}, batches[0], False)
    np.testing.assert_allclose(out, scale * (batches[0] - mean) / np.sqrt(var + 1e-5) + bias, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_batch_normalisation_of_constant_and_of_single_values_is_finite():
    norm = layers.BatchNorm()
    for x in (jnp.full((4, 2, 2, 3), 7.0), jnp.full((1, 1, 1, 3), 7.0)):
        variables = norm.init(jax.random.key(0), x, True)

        def loss(x, variables=variables):
            out, stats = norm.apply(variables, x, True, mutable=["batch_stats"])
            return out.sum(), stats

        (total, stats), gradient = jax.value_and_grad(loss, has_aux=True)(x)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((total, stats, gradient)))


def test_evaluation_uses_the_running_statistics_and_leaves_them():
    model = network()
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    variables = draw(model)
    evaluate = quick_jit(lambda x: model.apply(variables, x, False, mutable=["batch_stats"]))
    outputs, updated = evaluate(x)
    jax.tree.map(np.testing.assert_array_equal, updated["batch_stats"], variables["batch_stats"])
    # Alone or in company, an image has the same logits; padding to the same shape with other images.
    other, _ = evaluate(x.at[1:].set(9.0))
    np.testing.assert_allclose(other["logits"][0], outputs["logits"][0], rtol=1e-5)


def test_project_uses_the_batch_statistics_of_its_own_view():
    model = network(projection_dim=6)
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    variables = draw(model)
    project = quick_jit(lambda v: model.apply(v, x, method="project", mutable=["batch_stats"])[0])
    keys = project(variables)
    shifted = variables | {"batch_stats": jax.tree.map(lambda leaf: leaf + 5, variables["batch_stats"])}
    np.testing.assert_array_equal(project(shifted), keys)
    trained = quick_jit(lambda: model.apply(variables, x, True, mutable=["batch_stats"])[0]["projection"])()
    np.testing.assert_allclose(keys, trained, rtol=1e-4, atol=1e-5)


# Heads


def test_cosine_classifier_equals_its_formula():
    rng = np.random.default_rng(0)
    x, kernel = 5 * rng.normal(size=(3, 4)), 0.2 * rng.normal(size=(4, 6))
    bias = rng.normal(size=6)
    params = {"params": {"kernel": jnp.float32(kernel), "bias": jnp.float32(bias)}}
    logits = heads.CosineClassifier(6, scale=32.0).apply(params, jnp.float32(x))
    expected = np.zeros((3, 6))
    for b, c in np.ndindex(3, 6):
        cosine = x[b] @ kernel[:, c] / (np.linalg.norm(x[b]) * np.linalg.norm(kernel[:, c]))
        expected[b, c] = 32 * cosine + bias[c]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_linear_and_projection_equal_their_formulas():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(3, 4)).astype(np.float32)
    head = heads.Projection(2)
    variables = head.init(jax.random.key(0), x)
    hidden, out = (variables["params"][name] for name in ("hidden", "out"))
    middle = np.maximum(x @ np.asarray(hidden["kernel"]) + hidden["bias"], 0)
    assert (middle == 0).any() and (middle > 0).any()
    np.testing.assert_allclose(head.apply(variables, x), middle @ np.asarray(out["kernel"]) + out["bias"], rtol=1e-5)


@pytest.mark.parametrize("head", [heads.Linear(300), heads.CosineClassifier(300)])
def test_heads_start_uniform_within_the_fan_in_bound(head):
    """Weights and biases uniform in +-1/sqrt(D): standard deviation bound / sqrt(3), both ends reached."""
    params = head.init(jax.random.key(0), jnp.zeros((1, 64)))["params"]
    for name, leaf in params.items():
        values = np.asarray(leaf)
        assert np.abs(values).max() <= 1 / 8
        assert values.max() > 0.97 / 8 and values.min() < -0.97 / 8, name
        np.testing.assert_allclose(values.std(), 1 / 8 / np.sqrt(3), rtol=0.06)
    assert abs(np.corrcoef(params["kernel"][0], params["bias"])[0, 1]) < 0.3


def test_convolutions_start_kaiming_normal_over_the_fan_in():
    """Not truncated, and neither fan-out (twice the features here) nor a gain of 1."""
    kernel = np.asarray(layers.Conv(64).init(jax.random.key(0), jnp.zeros((1, 4, 4, 32)))["params"]["kernel"])
    expected = np.sqrt(2 / (9 * 32))
    np.testing.assert_allclose(kernel.std(), expected, rtol=0.03)
    assert abs(kernel.mean()) < 0.03 * expected
    assert np.abs(kernel).max() > 3.3 * expected


def test_bfloat16_computes_coarsely_and_returns_float32():
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    exact, coarse = network(projection_dim=6), network(projection_dim=6, precision="bfloat16")
    variables = draw(coarse)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(shapes_of(coarse))} == {"float32"}
    results = [
        quick_jit(lambda v, m=model: m.apply(v, x, True, mutable=["batch_stats"]))(variables)
        for model in (exact, coarse)
    ]
    assert {leaf.dtype.name for leaf in jax.tree.leaves(results[1])} == {"float32"}
    difference = np.abs(results[0][0]["features"] - results[1][0]["features"]).max()
    assert 1e-4 < difference < 0.1
