"""Compares text towers in their own size with transformers', with the same random weights and token numbers.

    python tools/compare_text.py --torch=PYTHON [--names=clip_base,siglip_base,...]

PYTHON has what tools/make_text_figures.py needs. The largest difference of a feature, as a share of the largest
feature, both in float32 on this machine.
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
from seeded import tensor

from ncl_jax.models.named import TEXT
from ncl_jax.weights import text_names

ROOT = pathlib.Path(__file__).parent.parent


def compare(figures: dict[str, np.ndarray]) -> float:
    """The largest difference, as a share of the largest feature."""
    tensors = {}
    for line in figures["names"]:
        key, _, shape = line.partition(" ")
        if key.startswith(("text_", "visual_projection")):
            tensors[key] = tensor(key, tuple(int(number) for number in re.findall(r"\d+", shape)))
    found, theirs = text_names.from_torch(tensors), figures["features"]
    ours = jax.jit(found.tower.apply)(found.variables, figures["numbers"].astype(np.int32))
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch", required=True, help="Python with torch and transformers")
    parser.add_argument("--names", default=",".join(TEXT))
    args = parser.parse_args()
    for name in args.names.split(","):
        with tempfile.TemporaryDirectory() as folder:
            out = f"{folder}/figures.npz"
            tool = ROOT / "tools" / "make_text_figures.py"
            subprocess.run([args.torch, tool, f"--whole={name}", f"--out={out}"], check=True)
            with np.load(out) as file:
                print(f"{name}: {compare(dict(file)):.1e}", flush=True)


if __name__ == "__main__":
    main()
