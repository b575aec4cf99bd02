"""The views of the training recipes, as data: operations with their parameters, in their order.

An operation is a function `(key, images uint8 [B, H, W, 3]) -> images` on the device. Those of `ON_HOST` bring images
of any size to the network's; they take that as `size`, must come first, and have a counterpart
`(numpy generator, image [H, W, 3], size=...) -> image` that a streamed feed calls before an image goes to the device.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ncl_jax.data.augment import randaugment
from ncl_jax.data.augment.operations import (
    random_blur,
    random_crop,
    random_cutout,
    random_flip,
    random_grayscale,
    random_jitter,
    random_policy,
    random_resized_crop,
    random_square_crop,
)
from ncl_jax.data.images import transforms

View = Callable[..., jax.Array]

_CLASSIFIER_CROP = partial(random_resized_crop, scale=(0.08, 1.0))
_JITTER = partial(random_jitter, hue=0.0, probability=1.0)

VIEWS: dict[str, tuple[Callable, ...]] = {
    "none": (),
    "crop_flip": (random_crop, random_flip),
    # the classifier's view on CIFAR (authors)
    "autoaugment": (random_crop, random_flip, random_policy, random_cutout),
    # the momentum encoder's view on CIFAR (authors)
    "moco_key": (
        partial(random_resized_crop, scale=(0.2, 1.0)),
        random_flip, random_jitter, random_grayscale, random_blur,
    ),
    # ImageNet-LT and iNaturalist 2018 (authors)
    "imagenet": (_CLASSIFIER_CROP, random_flip, _JITTER, randaugment.random_augment),
    # Places-LT, both views (authors)
    "places": (_CLASSIFIER_CROP, _JITTER, random_grayscale, random_blur, random_flip),
    # LIFT, and LIFT+
    "resized_flip": (_CLASSIFIER_CROP, random_flip),
    "growing_crop": (random_square_crop,),
}  # fmt: skip

ON_HOST: dict[Callable, Callable] = {
    random_resized_crop: transforms.random_resized_crop, random_square_crop: transforms.random_square_crop,
}  # fmt: skip
CHANGING = (random_square_crop,)  # that take the share of the epochs that are done, `progress`


def resizes(name: str) -> bool:
    """Whether a view begins by bringing images to the network's size."""
    return bool(VIEWS[name]) and _function(VIEWS[name][0]) in ON_HOST


def changes(name: str) -> bool:
    """Whether a view is another in every epoch."""
    return any(_function(operation) in CHANGING for operation in VIEWS[name])


def host_part(name: str, size: int) -> Callable[[np.random.Generator, np.ndarray], np.ndarray] | None:
    """What the host does for a view when images are streamed; None: the test transform, which is the same each time."""
    if not resizes(name):
        return None
    first: Any = VIEWS[name][0]
    return partial(ON_HOST[_function(first)], **getattr(first, "keywords", {}), size=size)


def make_view(name: str, *, size: int, mean: Sequence[float], std: Sequence[float], cut: bool = False) -> View:
    """A view by its name in `VIEWS`.

    Args:
      name: of the view.
      size: of the images that it gives.
      mean, std: three numbers each, of pixels scaled to [0, 1].
      cut: whether the host has done its part.

    Returns:
      f(key, images uint8 [B, H, W, 3]) -> float32 [B, size, size, 3], normalised. "none" does not use its key. Of a
      view that `changes` it takes the share of the epochs that are done as a third, `progress`, from 0 to 1.

    Raises:
      ValueError: unknown name.
    """
    if name not in VIEWS:
        raise ValueError(f"unknown view {name!r}: use one of {', '.join(map(repr, VIEWS))}")
    operations = [partial(f, size=size) if _function(f) in ON_HOST else f for f in VIEWS[name]]

    def view(key, images, progress=1.0):
        keys = jax.random.split(key, len(operations)) if operations else ()
        first = 1 if cut and resizes(name) else 0
        for operation, operation_key in list(zip(operations, keys, strict=True))[first:]:
            more = {"progress": progress} if _function(operation) in CHANGING else {}
            images = operation(operation_key, images, **more)
        return normalize(images, mean, std)

    return view


def _function(operation: Any) -> Callable:
    return getattr(operation, "func", operation)


def normalize(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """uint8 [..., 3] to float32: scaled to [0, 1], then mean subtracted and divided by std (three numbers each)."""
    shape = (1,) * (images.ndim - 1) + (3,)
    centre, scale = (np.asarray(values, np.float32).reshape(shape) for values in (mean, std))
    return (images.astype(jnp.float32) / 255.0 - centre) / scale
