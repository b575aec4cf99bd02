"""A vision transformer that a CPU trains in a few minutes: on the even ones of CIFAR-100's classes, all of whose
images it sees, so that the odd ones, cut to a long tail, are new to it.

    ncl-jax train --config=benchmarks/tiny_vit.py --config.data.dir=DIR --workdir=runs/tiny_vit
    ncl-jax train --config=benchmarks/tiny_vit.py:backbone=tiny_vit,recipe=lift,pretrained=runs/tiny_vit \\
        --config.model.pretrained_expert=0 --config.data.dir=DIR

Without arguments the first, with those of cifar100lt the second.
"""

import functools

import numpy as np

from ncl_jax.config import cifar_long_tailed
from ncl_jax.config.fields import base_config
from ncl_jax.data.sources import SOURCES, cifar
from ncl_jax.data.types import Request, Source, Split
from ncl_jax.models import BACKBONES, vit
from ncl_jax.models.named import NAMED, Named

NAME, BALANCED, LONG_TAILED = "tiny_vit", "cifar100_even", "cifar100_odd"
DEPTH, WIDTH, SIDE = 4, 64, 32
PRETRAINING = f"backbone={NAME},pretrained=none,method=ce,imbalance=1,epochs=10"
FIELDS = {
    "optim.name": "adamw", "optim.learning_rate": 2e-3, "optim.weight_decay": 0.05, "optim.schedule": "cosine",
    "optim.warmup_epochs": 2, "optim.batch_size": 64, "data.augment": "crop_flip", "eval_every": 5,
    "model.num_experts": 1, "loss.ramp_steps": 0,
}  # fmt: skip


class TinyVit(vit.VisionTransformer):
    """Patches of eight pixels, two heads."""

    form = vit.Form(patch=8, head=32)


def half(remainder: int, request: Request) -> Source:
    """CIFAR-100's classes of an even number, `remainder` 0, or of an odd one, 1, in their order."""
    whole = cifar.read(request._replace(name="cifar100"))
    splits = {name: _of_classes(split, remainder) for name, split in whole.splits.items()}
    return whole._replace(class_names=whole.class_names[remainder::2], splits=splits)


def _of_classes(split, remainder):
    rows = np.flatnonzero(split.labels % 2 == remainder)
    return Split(split.images[rows], split.labels[rows] // 2)


BACKBONES[NAME] = TinyVit
SOURCES.update({BALANCED: functools.partial(half, 0), LONG_TAILED: functools.partial(half, 1)})
_COLOURS = base_config().data
NAMED[NAME] = Named(
    NAME, DEPTH, WIDTH, SIDE, SIDE, "bilinear", tuple(_COLOURS.mean), tuple(_COLOURS.std), "", "", "", ""
)


def get_config(arguments: str | None = None):
    """Arguments: those of cifar100lt; none: the pretraining."""
    if arguments:
        return cifar_long_tailed(arguments, LONG_TAILED, num_hard=15)
    config = cifar_long_tailed(PRETRAINING, BALANCED, num_hard=15)
    config.update_from_flattened_dict(FIELDS)
    return config
