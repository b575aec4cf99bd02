"""Writes tests/golden/torchvision.npz: what torchvision's own networks give for seeded weights and images.

    python tools/make_torchvision_golden.py [--out=tests/golden/torchvision.npz]

Needs torch and torchvision, not ncl_jax. The weights are not kept: tests/seeded.py makes them from their names and
shapes, running statistics included.
"""

import argparse
import pathlib
import sys

import numpy as np
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "tests"))
from seeded import images, tensor

NETWORKS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d")
SIDES = (224, 97)
KEPT = 64  # features and logits of each image that are kept


def import_torchvision():
    """Torchvision, whose compiled operators a CPU build of torch may lack: none of them is needed here."""
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms", "roi_align", "_roi_align_backward", "roi_pool", "_roi_pool_backward", "ps_roi_align",
                 "_ps_roi_align_backward", "ps_roi_pool", "_ps_roi_pool_backward", "deform_conv2d",
                 "_deform_conv2d_backward", "image_undefined"):  # fmt: skip
        library.define(f"{name}(Tensor x) -> Tensor")
    import torchvision

    return torchvision, library


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("tests/golden/torchvision.npz"))
    args = parser.parse_args()
    torchvision, _library = import_torchvision()
    figures = {}
    for name in NETWORKS:
        model = getattr(torchvision.models, name)(weights=None).eval()
        state = {
            key: torch.from_numpy(tensor(key, tuple(value.shape))) if value.is_floating_point() else value
            for key, value in model.state_dict().items()
        }
        model.load_state_dict(state)
        captured = {}
        model.fc.register_forward_pre_hook(lambda _, inputs, kept=captured: kept.update(features=inputs[0]))
        for side in SIDES:
            with torch.no_grad():
                logits = model(torch.from_numpy(images(side)).permute(0, 3, 1, 2))
            figures[f"{name}/{side}/features"] = captured["features"].numpy()[:, :KEPT]
            figures[f"{name}/{side}/logits"] = logits.numpy()[:, :KEPT]
        figures[f"{name}/names"] = np.array([f"{key} {tuple(value.shape)}" for key, value in state.items()])
        print(name, f"mean feature {captured['features'].mean():.3f}")
    figures["torchvision"] = np.array(torchvision.__version__)
    np.savez_compressed(args.out, **figures)


if __name__ == "__main__":
    main()
