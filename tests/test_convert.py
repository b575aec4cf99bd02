"""PyTorch weights to ours and back, and the errors on what does not fit."""

import jax
import numpy as np
import pytest

from ncl_jax.models import experts, make_network
from ncl_jax.weights import torch_names


@pytest.fixture(scope="module")
def variables():
    model = make_network(
        backbone="cifar_resnet",
        depth=14,
        width=4,
        classifier="linear",
        cosine_scale=16,
        num_classes=5,
        projection_dim=6,
        precision="float32",
    )
    image = jax.ShapeDtypeStruct((2, 8, 8, 3), np.float32)
    shapes = jax.eval_shape(lambda x: experts.init_experts(model, jax.random.key(0), 2, x), image)
    # Every number different: exchanged axes, scales, means or variances show.
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


def to_torch(variables, modules):
    """The state dictionary under PyTorch's names, written the other way round than the conversion."""
    names = {("batch_stats", "mean"): "running_mean", ("batch_stats", "var"): "running_var"}
    tensors = {}
    for collection, tree in variables.items():
        for path, leaf in jax.tree.leaves_with_path(tree):
            module, *scopes, last = (entry.key for entry in path)
            if module not in modules:
                continue
            scopes = [{"hidden": "0", "out": "2"}.get(scope, scope.replace("_", ".")) for scope in scopes]
            name = names.get((collection, last), "bias" if last == "bias" else "weight")
            for index, value in enumerate(leaf):
                if value.ndim == 4:
                    value = np.moveaxis(value, (3, 2), (0, 1))  # HWIO -> OIHW
                elif value.ndim == 2:
                    value = value.T
                tensors[".".join([modules[module], str(index), *scopes, name])] = value
    return tensors


MODULES = {"backbone": "backbone", "classifier": "classifier_ce", "projection": "classifier"}


def test_round_trip(variables):
    tensors = to_torch(variables, MODULES)
    assert tensors["backbone.1.layer2.0.conv1.weight"].shape == (8, 4, 3, 3)
    assert tensors["classifier_ce.0.weight"].shape == (5, 16) and tensors["classifier.1.2.weight"].shape == (6, 16)
    extra = {"backbone.0.bn1.num_batches_tracked": np.array(3), "MOCO.0.queue": np.zeros((6, 8))}
    converted = torch_names.from_torch(tensors | extra, torch_names.SELF_SUPERVISED)
    torch_names.check_same_structure(converted, variables)
    jax.tree.map(np.testing.assert_array_equal, converted, dict(variables))
    assert {leaf.dtype for leaf in jax.tree.leaves(converted)} == {np.dtype(np.float32)}


def test_supervised_names_and_float64_tensors(variables):
    tensors = to_torch(variables, {"backbone": "backbone", "classifier": "classifier"})
    converted = torch_names.from_torch({k: v.astype(np.float64) for k, v in tensors.items()}, torch_names.SUPERVISED)
    assert set(converted["params"]) == {"backbone", "classifier"}
    assert {leaf.dtype for leaf in jax.tree.leaves(converted)} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(
        converted["params"]["classifier"]["kernel"], variables["params"]["classifier"]["kernel"]
    )


def test_ten_experts_stay_in_numerical_order():
    tensors = {f"classifier.{e}.bias": np.full(3, e) for e in range(11)}
    bias = torch_names.from_torch(tensors, {"classifier": "classifier"})["params"]["classifier"]["bias"]
    np.testing.assert_array_equal(bias[:, 0], np.arange(11))


def test_missing_modules_experts_and_tensors_are_named(variables):
    tensors = to_torch(variables, MODULES)
    with pytest.raises(ValueError, match=r"\['backbone_MA', 'classifier_MA'\].*backbone\.0"):
        torch_names.from_torch(tensors, torch_names.MOMENTUM_ENCODER)
    with pytest.raises(ValueError, match="no tensors"):
        torch_names.from_torch({}, torch_names.SUPERVISED)
    gap = {name.replace(".1.", ".2.", 1) if name.split(".")[1] == "1" else name: v for name, v in tensors.items()}
    with pytest.raises(ValueError, match=r"experts \[0, 2\]"):
        torch_names.from_torch(gap, torch_names.SELF_SUPERVISED)
    del tensors["backbone.1.layer3.1.bn2.weight"]
    with pytest.raises(ValueError, match="do not all have the same tensors"):
        torch_names.from_torch(tensors, torch_names.SELF_SUPERVISED)


def test_structure_differences_name_the_leaf_and_both_shapes(variables):
    other = jax.tree.map(lambda leaf: leaf, dict(variables))
    other["params"]["classifier"]["bias"] = np.zeros((2, 7))
    with pytest.raises(ValueError, match=r"1 tensors.*classifier.*bias.*expected \(2, 5\), got \(2, 7\)"):
        torch_names.check_same_structure(other, variables)
    other["params"]["classifier"]["extra"] = np.zeros(1)
    del other["params"]["backbone"]["conv1"]
    with pytest.raises(ValueError, match=r"3 tensors") as error:
        torch_names.check_same_structure(other, variables)
    assert "got nothing" in str(error.value) and "expected nothing" in str(error.value)
