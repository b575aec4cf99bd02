"""Writes tests/golden/lift.npz: ten steps of LIFT (arXiv 2309.10019) on a tiny frozen transformer, as plain loops in
PyTorch: AdaptFormer in every block, a cosine classifier that starts at the class means, logit adjustment.

    python tools/make_lift_figures.py [--out=tests/golden/lift.npz]

Needs torch, not ncl_jax. The weights and images are not kept: tests/seeded.py makes them from their names and seeds.
"""

import argparse
import math
import pathlib
import sys

import numpy as np
import torch
from torch.nn import functional

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "tests"))
from seeded import tensor, uint8_images, vit_tensors

DEPTH, WIDTH, PATCH, SIDE, HEAD, RANK = 2, 16, 8, 16, 8, 2
COUNTS = (5, 2, 1)  # images of each class, in their order: the training set
EPOCHS, BATCH, RATE, DECAY, MOMENTUM, SCALE = 5, 4, 0.01, 5e-4, 0.9, 25.0


def adapters() -> dict[str, torch.Tensor]:
    """What is trained in the blocks; what LIFT starts at 0 does."""
    found = {}
    for number in range(DEPTH):
        name = f"adapter.{number}"
        found[f"{name}.norm.weight"], found[f"{name}.norm.bias"] = torch.ones(WIDTH), torch.zeros(WIDTH)
        found[f"{name}.down.weight"] = torch.from_numpy(tensor(f"{name}.down.weight", (RANK, WIDTH)))
        found[f"{name}.down.bias"], found[f"{name}.up.bias"] = torch.zeros(RANK), torch.zeros(WIDTH)
        found[f"{name}.up.weight"], found[f"{name}.scale"] = torch.zeros(WIDTH, RANK), torch.ones(())
    return found


def block(x: torch.Tensor, p: dict, own: dict, number: int) -> torch.Tensor:
    """Tokens [B, N, D] to the same."""
    name, batch = f"blocks.{number}", len(x)

    def norm(x, which):
        return functional.layer_norm(x, (WIDTH,), p[f"{name}.{which}.weight"], p[f"{name}.{which}.bias"], 1e-6)

    def dense(x, which):
        return x @ p[f"{name}.{which}.weight"].T + p[f"{name}.{which}.bias"]

    queries, keys, values = dense(norm(x, "norm1"), "attn.qkv").reshape(batch, -1, 3, WIDTH // HEAD, HEAD).unbind(2)
    scores = torch.einsum("bnhd,bmhd->bhnm", queries, keys) / math.sqrt(HEAD)
    mixed = torch.einsum("bhnm,bmhd->bnhd", scores.softmax(-1), values).reshape(batch, -1, WIDTH)
    y = x + dense(mixed, "attn.proj")
    out = y + dense(functional.gelu(dense(norm(y, "norm2"), "mlp.fc1")), "mlp.fc2")
    a = {key.removeprefix(f"adapter.{number}."): value for key, value in own.items() if f"adapter.{number}." in key}
    if not a:
        return out
    hidden = functional.layer_norm(y, (WIDTH,), a["norm.weight"], a["norm.bias"], 1e-5) @ a["down.weight"].T
    return out + a["scale"] * (torch.relu(hidden + a["down.bias"]) @ a["up.weight"].T + a["up.bias"])


def features(images: torch.Tensor, p: dict, own: dict) -> torch.Tensor:
    """Normalised images [B, 3, H, W] to the class token's [B, D]."""
    patches = functional.conv2d(images, p["patch_embed.proj.weight"], p["patch_embed.proj.bias"], stride=PATCH)
    tokens = patches.flatten(2).transpose(1, 2)
    x = torch.cat([p["cls_token"].expand(len(images), 1, WIDTH), tokens], 1) + p["pos_embed"]
    for number in range(DEPTH):
        x = block(x, p, own, number)
    return functional.layer_norm(x, (WIDTH,), p["norm.weight"], p["norm.bias"], 1e-6)[:, 0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("tests/golden/lift.npz"))
    args = parser.parse_args()
    frozen = {name: torch.from_numpy(value) for name, value in vit_tensors(DEPTH, WIDTH, PATCH, SIDE).items()}
    images = torch.from_numpy(uint8_images(sum(COUNTS), SIDE)).permute(0, 3, 1, 2) / 255.0 / 0.5 - 1
    labels = torch.tensor(np.repeat(range(len(COUNTS)), COUNTS))
    with torch.no_grad():
        of_images = features(images, frozen, {})
    means = torch.stack([of_images[labels == label].mean(0) for label in range(len(COUNTS))])
    own = adapters() | {"classifier": functional.normalize(means, dim=1)}
    prior = torch.log(torch.tensor(COUNTS) / sum(COUNTS))
    moved, losses = {name: torch.zeros_like(value) for name, value in own.items()}, []
    for step in range(EPOCHS * (sum(COUNTS) // BATCH)):
        epoch, first = step // (sum(COUNTS) // BATCH), step % (sum(COUNTS) // BATCH) * BATCH
        rows = slice(first, first + BATCH)
        own = {name: value.detach().requires_grad_() for name, value in own.items()}
        cosines = (
            functional.normalize(features(images[rows], frozen, own), dim=1)
            @ functional.normalize(own["classifier"], dim=1).T
        )
        loss = functional.cross_entropy(SCALE * cosines + prior, labels[rows])
        loss.backward()
        losses.append(loss.item())
        rate = RATE / 2 * (1 + math.cos(math.pi * epoch / EPOCHS))
        for name, value in own.items():
            moved[name] = MOMENTUM * moved[name] + value.grad + DECAY * value.detach()
            own[name] = value.detach() - rate * moved[name]
    print(torch.__version__, losses)
    np.savez_compressed(args.out, losses=np.array(losses), **{name: value.numpy() for name, value in own.items()})


if __name__ == "__main__":
    main()
