"""Our large networks under torchvision's weights give its features and logits (tools/make_torchvision_golden.py)."""

import re

import jax
import numpy as np
import pytest
import seeded

from ncl_jax.models import make_network
from ncl_jax.weights import torch_names

NETWORKS = {
    "resnet18": ("resnet", 18), "resnet34": ("resnet", 34), "resnet50": ("resnet", 50), "resnet101": ("resnet", 101),
    "resnet152": ("resnet", 152), "resnext50_32x4d": ("resnext", 50),
}  # fmt: skip
LARGE = ("resnet101", "resnet152")


def state_dict(golden, name):
    """The seeded tensors by torchvision's names."""
    tensors = {}
    for line in golden("torchvision")[f"{name}/names"]:
        key, shape = re.fullmatch(r"(\S+) \((.*)\)", line).groups()
        dims = tuple(int(number) for number in shape.replace(",", " ").split())
        tensors[key] = seeded.tensor(key, dims) if dims else np.array(7)
    return tensors


def network(backbone, depth, num_classes=1000):
    return make_network(
        backbone=backbone, depth=depth, width=64, classifier="linear", cosine_scale=16, num_classes=num_classes,
        projection_dim=0, precision="float32",
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet152", "resnext50_32x4d"])  # each kind of block
def test_features_and_logits_are_torchvisions(golden, name):
    backbone, depth = NETWORKS[name]
    tensors = state_dict(golden, name)
    assert torch_names.network(tensors) == (backbone, depth, 64)
    variables = torch_names.from_torchvision(tensors)
    variables["params"]["classifier"] = {"kernel": tensors["fc.weight"].T, "bias": tensors["fc.bias"]}
    model = network(backbone, depth)
    expected = jax.eval_shape(lambda: model.init(jax.random.key(0), np.zeros((2, 32, 32, 3), np.float32), False))
    torch_names.check_same_structure(variables, expected)
    for side in (97,) if name in LARGE else (224, 97):
        outputs = model.apply(variables, seeded.images(side), False)  # by operations: deep networks repeat a few
        for kind in ("features", "logits"):
            theirs = golden("torchvision")[f"{name}/{side}/{kind}"]
            ours = np.asarray(outputs[kind])[:, : theirs.shape[1]]
            assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max(), (side, kind)
