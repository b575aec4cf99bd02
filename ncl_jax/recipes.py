"""Recipes: the authors' for the large benchmarks, and one for anybody's folder of images."""

import ml_collections
import numpy as np

from ncl_jax.config import base_config, choose_method, expand, parse_arguments, shorten
from ncl_jax.data import decoding, pipeline, sources
from ncl_jax.errors import ConfigError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HARD_SHARE = 0.3  # hard categories of all (authors)
LARGEST_SMALL = 64  # pixels: up to it the CIFAR ResNet and its views
# The arguments of a recipe for own images, with their defaults.
OWN = {
    "image_size": 0, "imbalance": 0.0, "method": "ncl_supervised", "semantics": "official", "epochs": 30, "seed": 0,
}  # fmt: skip
FEW_IMAGES = 20_000  # training images below which a ResNet-50 is more than the data bears


def large(arguments: str | None, name: str, method: str, **fields: object) -> ml_collections.ConfigDict:
    """The authors' recipe for a large benchmark: ResNet, cosine classifier, 224 pixels, cosine schedule.

    Args:
      arguments: `method`, `semantics` (`choose_method`), `epochs` (`scale_schedule`), `seed`.
      name: of the source.
      method: the authors' choice.
      fields: what this benchmark has of its own, `optim__batch_size=512`.
    """
    config = base_config()
    common = {
        "data.name": name, "data.imbalance": 0.0, "data.image_size": 224, "data.resize": 256,
        "data.augment": "imagenet", "data.mean": IMAGENET_MEAN, "data.std": IMAGENET_STD,
        "model.backbone": "resnet", "model.depth": 50, "model.width": 64, "model.classifier": "cosine",
        "optim.batch_size": 256, "optim.learning_rate": 0.2, "optim.schedule": "cosine", "optim.warmup_epochs": 0,
        "optim.milestones": (), "run.eval_batch": 256,
    }  # fmt: skip
    config.update_from_flattened_dict(common | {key.replace("__", "."): value for key, value in fields.items()})
    defaults = {"method": method, "semantics": "official", "epochs": config.epochs, "seed": 0}
    args = parse_arguments(arguments, **defaults)
    config.seed = args.seed
    shorten(config, args.epochs)
    choose_method(config, args.method, args.semantics)
    return config


def folder(arguments: str | None) -> ml_collections.ConfigDict:
    """A recipe for a folder of images, chosen by what it holds: the size of the images, their number, the classes.

    Args:
      arguments: `dir`, the folder (`sources.folder.read` says what it may look like); `image_size`, in pixels, 0 for
        the one of 32, 64, 128 and 224 that suits the images; `imbalance` to cut the data to a profile, 0 for the data
        as it is; `method`, `semantics`, `epochs`, `seed`.
    """
    return _own_images("folder", parse_arguments(arguments, dir="", **OWN), {})


def listed(arguments: str | None) -> ml_collections.ConfigDict:
    """The same for images that lists name.

    Args:
      arguments: those of `folder`; `train`, `val`, `test` and `classes` are the fields of data.list.
    """
    args = parse_arguments(arguments, dir="", train="", val="", test="", classes="", **OWN)
    return _own_images("list", args, {name: args[name] for name in ("train", "val", "test", "classes")})


def _own_images(name, args, lists):
    if not args.dir:
        raise ConfigError(f"the folder of the images is missing: give --config={name}:dir=DIR")
    request = sources.Request(name, expand("dir", args.dir), lists=lists)
    source = sources.load(request)
    train, num_classes = source.splits["train"], len(source.class_names)
    if num_classes < 2:
        raise ConfigError(f"{args.dir} has one class, {source.class_names[0]}: a classifier needs two or more")
    if args.imbalance:
        train, _ = pipeline.long_tailed(train, args.imbalance, source.class_names, request)
    size = args.image_size or suitable_size(train)
    config = base_config()
    config.seed = args.seed
    config.update_from_flattened_dict({
        "data.name": name, "data.dir": args.dir, "data.imbalance": args.imbalance, "data.image_size": size,
        **{f"data.list.{key}": value for key, value in lists.items()},
        "data.eval_split": "test" if "test" in source.splits else "val",
        "data.mean": IMAGENET_MEAN, "data.std": IMAGENET_STD,
        "loss.num_hard": num_hard(num_classes), "optim.schedule": "cosine",
        **(_small() if size <= LARGEST_SMALL else _photographs(size, len(train))),
    })  # fmt: skip
    fit_batch(config, len(train))
    shorten(config, args.epochs)
    choose_method(config, args.method, args.semantics)
    return config


def _small():
    return {"data.augment": "autoaugment", "model.backbone": "cifar_resnet", "model.depth": 32}


def _photographs(size, num_images):
    return {
        "data.resize": round(size * 256 / 224), "data.augment": "imagenet", "contrast.augment": "places",
        "model.backbone": "resnet", "model.depth": 18 if num_images < FEW_IMAGES else 50, "model.width": 64,
        "model.classifier": "cosine", "optim.learning_rate": 0.05, "run.eval_batch": 128,
    }  # fmt: skip


def num_hard(num_classes: int) -> int:
    """Hard categories for a number of classes, the target included."""
    return min(num_classes, max(2, round(HARD_SHARE * num_classes)))


def fit_batch(config: ml_collections.ConfigDict, num_images: int) -> None:
    """Halves the batch, and the learning rate with it, until an epoch has ten steps or the batch is 8."""
    while config.optim.batch_size > 8 and num_images < 10 * config.optim.batch_size:
        config.optim.batch_size //= 2
        config.optim.learning_rate /= 2
    config.contrast.queue = min(config.contrast.queue, 16 * config.optim.batch_size)


def suitable_size(train: sources.Split, sample: int = 200) -> int:
    """The side, of 32, 64, 128 and 224 pixels, that loses little of the images: from their median shorter side."""
    rows = np.linspace(0, len(train) - 1, min(sample, len(train))).astype(int)
    sizes = decoding.sizes(train.take(rows), "reading the images' sizes", unreadable=(0, 0))
    if not sizes.any():
        raise ConfigError("none of the images can be read, so that their size is not known: give it, image_size=64")
    return size_for(sizes)


def size_for(sizes: np.ndarray) -> int:
    """The same from heights and widths, int [N, 2]; 0 for images that cannot be read, which do not count."""
    shorter = float(np.median(sizes.min(1)[sizes.min(1) > 0]))
    return next((size for size in (32, 64, 128) if shorter <= 1.25 * size), 224)
