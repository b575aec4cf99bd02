"""Writes tests/golden/timm.npz: what timm's own networks give for seeded weights and images, at two image sizes.

    python tools/make_timm_figures.py [--out=tests/golden/timm.npz]
    python tools/make_timm_figures.py --whole=dinov2_small --out=FILE.npz

Needs torch and timm, not ncl_jax. The weights are not kept: tests/seeded.py makes them from their names and shapes.
With --whole a network of the table of named backbones in its own size, for tools/compare_timm.py.
"""

import argparse
import pathlib
import sys

import numpy as np
import timm
import torch
from timm.layers import resample_abs_pos_embed

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "tests"))
from seeded import images, tensor

SMALL = {"embed_dim": 128, "num_heads": 2, "depth": 4}
TOKEN = {"global_pool": "token"}  # as the authors of DINOv3 do; timm's own default is another
DINOV3, CLIP = "vit_small_patch16_dinov3", "vit_base_patch16_clip_quickgelu_224"
# By our backbone: timm's name, what makes it small, the side of its images in pixels, and another.
NETWORKS = {
    "vit": ("vit_small_patch16_224", SMALL, 64, 96),
    "dinov2": ("vit_small_patch14_dinov2", SMALL, 56, 42),
    "dinov2_reg4": ("vit_small_patch14_reg4_dinov2", SMALL, 56, 84),
    "dinov3": (DINOV3, SMALL | TOKEN, 64, 96),
    "dinov3 with biases": (f"{DINOV3}_qkvb", SMALL | TOKEN, 64, 48),
    "clip_patch16": (CLIP, SMALL, 64, 96),
    "clip_patch14": ("vit_large_patch14_clip_quickgelu_224", SMALL, 56, 84),
    "siglip": ("vit_base_patch16_siglip_224", SMALL, 64, 96),
    "siglip_so400m": ("vit_so400m_patch14_siglip_224", SMALL | {"embed_dim": 144}, 56, 84),
    "convnext": ("convnext_tiny", {"dims": (8, 16, 32, 64)}, 64, 97),
}
WHOLE = {
    "vit_small": ("vit_small_patch16_224", {}, 224, 160),
    "vit_base": ("vit_base_patch16_224", {}, 224, 160),
    "dinov2_small": ("vit_small_patch14_dinov2", {}, 518, 224),
    "dinov2_reg4_small": ("vit_small_patch14_reg4_dinov2", {}, 518, 224),
    "dinov3_small": (DINOV3, TOKEN, 256, 160),
    "clip_base": (CLIP, {}, 224, 160),
    "siglip_base": ("vit_base_patch16_siglip_224", {}, 224, 160),
    "convnext_tiny": ("convnext_tiny", {}, 224, 161),
}


def make(name: str, side: int, fields: dict) -> torch.nn.Module:
    """A network of timm's without its classifier."""
    fields = fields if name.startswith("convnext") else fields | {"img_size": side}
    return timm.create_model(name, num_classes=0, **fields).eval()


def at_side(state: dict, model: torch.nn.Module) -> dict:
    """The state with the position embedding of a network for another image size."""
    if "pos_embed" not in state:
        return state
    position, grid = state["pos_embed"], list(model.patch_embed.grid_size)
    prefix = model.pos_embed.shape[1] - grid[0] * grid[1]
    return state | {"pos_embed": resample_abs_pos_embed(position, grid, num_prefix_tokens=prefix)}


def figures_of(name: str, fields: dict, sides: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The features at each side, and the tensors' names and shapes."""
    model = make(name, sides[0], fields)
    state = {key: torch.from_numpy(tensor(key, tuple(value.shape))) for key, value in model.state_dict().items()}
    found = {"names": np.array([f"{key} {tuple(value.shape)}" for key, value in state.items()])}
    for side in sides:
        model = make(name, side, fields)
        model.load_state_dict(at_side(state, model))
        with torch.no_grad():
            found[str(side)] = model(torch.from_numpy(images(side)).permute(0, 3, 1, 2)).numpy()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("tests/golden/timm.npz"))
    parser.add_argument("--whole", choices=WHOLE, help="this network alone")
    args = parser.parse_args()
    torch.set_num_threads(2)
    figures = {"timm": np.array(timm.__version__)}
    for kind, (name, fields, *sides) in ({args.whole: WHOLE[args.whole]} if args.whole else NETWORKS).items():
        found = figures_of(name, fields, tuple(sides))
        figures |= {f"{kind}/{key}": value for key, value in found.items()}
        print(kind, {side: f"{np.abs(found[str(side)]).mean():.3f}" for side in sides})
    if not args.whole:
        position = torch.from_numpy(tensor("pos_embed", (1, 26, 3)))
        for side in (3, 7):
            figures[f"position/{side}"] = resample_abs_pos_embed(position, [side, side]).numpy()
    np.savez_compressed(args.out, **figures)


if __name__ == "__main__":
    main()
