"""A vision transformer of 16 numbers a token, "tiny_vit", which is compiled in a fraction of a real one's time."""

import seeded

from ncl_jax import models
from ncl_jax.models import vit

DEPTH, WIDTH, PATCH = 2, 16, 8


class TinyVit(vit.VisionTransformer):
    """Two heads of eight numbers."""

    form = vit.Form(patch=PATCH, head=8, hidden=2.0)


models.BACKBONES["tiny_vit"] = TinyVit
FIELDS = {"model.backbone": "tiny_vit", "model.depth": DEPTH, "model.width": WIDTH, "model.freeze": "all",
          "data.resize": 0}  # fmt: skip


def state_dict(side=16):
    """Seeded weights by timm's names, for images of a side."""
    return seeded.vit_tensors(DEPTH, WIDTH, PATCH, side)
