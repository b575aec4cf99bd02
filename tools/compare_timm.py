"""Compares whole networks of the table of named backbones with timm's, with the same random weights and images.

    python tools/compare_timm.py --torch=PYTHON [--names=vit_small,dinov2_small,...]

PYTHON has torch and timm. For each network, at two image sizes: the largest difference of a feature, as a share of the
largest feature, both in float32 on this machine.
"""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

import jax
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "tests"))
from seeded import images, tensor

from ncl_jax.models import make_backbone
from ncl_jax.models.named import NAMED
from ncl_jax.weights import names, vit_names

ROOT = pathlib.Path(__file__).parent.parent
NAMES = (
    "vit_small", "vit_base", "dinov2_small", "dinov2_reg4_small", "dinov3_small", "clip_base", "siglip_base",
    "convnext_tiny",
)  # fmt: skip


def compare(name: str, figures: dict[str, np.ndarray]) -> dict[int, float]:
    """The largest difference at each image size, as a share of the largest feature."""
    row, tensors, found = NAMED[name], {}, {}
    for line in figures.pop("names"):
        key, _, shape = line.partition(" ")
        tensors[key] = tensor(key, tuple(int(number) for number in re.findall(r"\d+", shape)))
    network = make_backbone(backbone=row.backbone, depth=row.depth, width=row.width, precision="float32")
    variables = names.from_torch(tensors)
    apply = jax.jit(lambda variables, images: network.apply(variables, images, False))
    for side in sorted(map(int, figures)):
        patch = network.form.patch if hasattr(network, "form") else side
        own = {kind: tree["backbone"] for kind, tree in vit_names.at_grid(variables, side // patch).items()}
        theirs = figures[str(side)]
        found[side] = float(np.abs(apply(own, images(side)) - theirs).max() / np.abs(theirs).max())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch", required=True, help="Python with torch and timm")
    parser.add_argument("--names", default=",".join(NAMES))
    args = parser.parse_args()
    for name in args.names.split(","):
        with tempfile.TemporaryDirectory() as folder:
            out = f"{folder}/figures.npz"
            tool = ROOT / "tools" / "make_timm_figures.py"
            subprocess.run([args.torch, tool, f"--whole={name}", f"--out={out}"], check=True, stdout=subprocess.PIPE)
            with np.load(out) as file:
                figures = {key.removeprefix(f"{name}/"): file[key] for key in file.files if key != "timm"}
        shown = ", ".join(f"{share:.1e} at {side}" for side, share in compare(name, figures).items())
        print(f"{name}: {shown}", flush=True)


if __name__ == "__main__":
    main()
