"""Recipes: the authors' for the benchmarks, one for anybody's images, and the arguments of configuration files."""

import math
from collections.abc import Sequence

import ml_collections
import numpy as np

from ncl_jax.config import backbone, build_data, lift
from ncl_jax.config.arguments import parse_arguments
from ncl_jax.config.choose import choose_method
from ncl_jax.config.fields import base_config
from ncl_jax.data import dataset, holdout, sources
from ncl_jax.data.images import parallel
from ncl_jax.data.types import Split
from ncl_jax.errors import ConfigError
from ncl_jax.models.named import DEFAULT, NAMED, SEEN_IMAGENET

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HARD_SHARE = 0.3  # hard categories of all (authors)
LARGEST_SMALL = 64  # pixels: up to it the CIFAR ResNet and its views
# Arguments with their defaults: of a named backbone (`with_backbone`), and of a recipe for own images.
BACKBONE = {"backbone": "", "pretrained": "", "freeze": "all", "image_size": 0, "recipe": ""}
OWN = BACKBONE | {
    "imbalance": 0.0, "method": "ncl_supervised", "semantics": "official", "epochs": 30, "seed": 0, "group_by": "",
}  # fmt: skip
COLUMNS = ("path", "label", "split", "group")  # of a list, named by arguments such as `path_column`
HEAD_EPOCHS = 30  # of heads on frozen features
FEW_IMAGES = 20_000  # training images below which a ResNet-50 is more than the data bears


def large(arguments: str | None, name: str, method: str, **fields: object) -> ml_collections.ConfigDict:
    """The authors' recipe for a large benchmark: ResNet, cosine classifier, 224 pixels, cosine schedule.

    Args:
      arguments: `method`, `semantics` (`choose_method`), `epochs` (`scale_schedule`), `seed`, and those of
        `with_backbone`.
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
    args = parse_arguments(arguments, **defaults, **BACKBONE)
    config.seed = args.seed
    shorten(config, epochs_of(args, arguments, name))
    with_backbone(config, args)
    with_method(config, args, arguments)
    return config


def folder(arguments: str | None) -> ml_collections.ConfigDict:
    """A recipe for a folder of images, chosen by what it holds: the size of the images, their number, the classes.

    Args:
      arguments: `dir`, the folder (`sources.folder.read` says what it may look like); `train`, `val` and `test`, the
        names of the splits' folders in it where they are not clear (the fields of data.list); `layout` and `group_by`,
        see data.layout and data.group_by; `image_size`, in pixels,
        0 for the one of 32, 64, 128 and 224 that suits the images; `imbalance` to cut the data to a profile, 0 for the
        data as it is; `method`, `semantics`, `epochs`, `seed`; `backbone`, a name of `models.named.NAMED`, and
        `pretrained` and `freeze`, see `backbone.use`: photographs take the pretrained backbone `named.DEFAULT` if its
        weights are installed; `recipe`, a name of `lift.RECIPES`.
    """
    args = parse_arguments(arguments, dir="", train="", val="", test="", layout="auto", **OWN)
    return _own_images("folder", args, arguments, {name: args[name] for name in ("train", "val", "test")})


def listed(arguments: str | None) -> ml_collections.ConfigDict:
    """The same for images that lists name.

    Args:
      arguments: those of `folder`, without `layout`; `train`, `val`, `test` and `classes` are the fields of data.list,
        `path_column`, `label_column`, `split_column` and `group_column` those of data.columns.
    """
    columns = {f"{name}_column": "" for name in COLUMNS}
    args = parse_arguments(arguments, dir="", train="", val="", test="", classes="", **columns, **OWN)
    return _own_images("list", args, arguments, {name: args[name] for name in ("train", "val", "test", "classes")})


def _own_images(name, args, arguments, lists):
    if not args.dir:
        raise ConfigError(f"the folder of the images is missing: pass --config={name}:dir=DIR")
    config = base_config()
    config.update_from_flattened_dict({
        "data.name": name, "data.dir": args.dir, "data.imbalance": args.imbalance, "data.group_by": args.group_by,
        "data.layout": args.get("layout", "auto"), **{f"data.list.{key}": value for key, value in lists.items()},
        **{f"data.columns.{key}": args.get(f"{key}_column", "") for key in COLUMNS},
    })  # fmt: skip
    request = build_data.request(config)._replace(skip=True)  # whether rows may lack a file or a label is not known yet
    source = sources.load(request)
    train, num_classes = source.splits["train"], len(source.class_names)
    if num_classes < 2:
        raise ConfigError(
            f"{args.dir} has one class, {source.class_names[0]}: a classifier needs two or more; if its folders are "
            f"the classes, pass dir={args.dir}/{source.class_names[0]}"
        )
    number = len(train)
    if args.imbalance:
        train, _ = dataset.long_tailed(train, args.imbalance, source.class_names, request)
        number = len(train)
    elif source.is_cut:  # whatever the cut, so that the recipe is that of runs by another rule
        every = np.concatenate([split.labels for split in source.splits.values()])
        number -= int(holdout.stratified(every, num_classes, request.test_share).sum()) - len(source.splits["test"])
    size = args.image_size or suitable_size(train)
    named = args.backbone or (lift.DEFAULT if args.recipe else _default_backbone(size, args.pretrained))
    if args.freeze != "all" and (not named or args.pretrained == backbone.NONE):
        raise ConfigError(f"freeze={args.freeze} is for pretrained weights: add backbone={DEFAULT}, or leave it out")
    config.seed = args.seed
    config.update_from_flattened_dict({
        "data.image_size": size, "data.eval_split": "test" if "test" in source.splits else "val",
        "data.mean": IMAGENET_MEAN, "data.std": IMAGENET_STD,
        "loss.num_hard": num_hard(num_classes), "optim.schedule": "cosine",
        **(_small() if size <= LARGEST_SMALL else _photographs(size, number)),
    })  # fmt: skip
    shorten(config, epochs_of(args, arguments, name))
    if named:
        _use_backbone(config, named, args)
    fit_batch(config, number)
    with_method(config, args, arguments)
    return config


def _default_backbone(size, pretrained):
    """The pretrained backbone that photographs take where its weights are installed; empty: random weights."""
    if pretrained:
        return "" if pretrained == backbone.NONE else DEFAULT
    return DEFAULT if size > LARGEST_SMALL and backbone.is_installed(NAMED[DEFAULT]) else ""


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
    """Halves the batch, and the learning rate of sgd with it, until an epoch has ten steps or the batch is 8, and
    further where there are fewer images than 8."""
    while config.optim.batch_size > min(8, num_images) and num_images < 10 * config.optim.batch_size:
        config.optim.batch_size //= 2
        if config.optim.name != "adamw":
            config.optim.learning_rate /= 2
    config.contrast.queue = min(config.contrast.queue, 16 * config.optim.batch_size)


def suitable_size(train: Split, sample: int = 200) -> int:
    """The side, of 32, 64, 128 and 224 pixels, that loses little of the images: from their median shorter side."""
    rows = np.linspace(0, len(train) - 1, min(sample, len(train))).astype(int)
    sizes = parallel.sizes(train.take(rows), "reading the images' sizes", unreadable=(0, 0))
    if not sizes.any():
        raise ConfigError("none of the images can be read, so that their size is not known: pass it, image_size=64")
    return size_for(sizes)


def size_for(sizes: np.ndarray) -> int:
    """The same from heights and widths, int [N, 2]; 0 for images that cannot be read, which do not count."""
    shorter = float(np.median(sizes.min(1)[sizes.min(1) > 0]))
    return next((size for size in (32, 64, 128) if shorter <= 1.25 * size), 224)


SHORT_SCHEDULE = 100  # epochs: a shorter run is over before collapsed features would have paid back
RAMP_STEPS = 300
SCALED = ("eval_every", "checkpoint_every", "optim.warmup_epochs", "optim.milestones")  # with the epochs


def cifar_long_tailed(arguments: str | None, name: str, num_hard: int) -> ml_collections.ConfigDict:
    """The authors' CIFAR recipe with the arguments of its configuration files.

    Args:
      arguments: `imbalance` (>= 1), `method` and `semantics` (`choose_method`), `epochs` (`scale_schedule`; below
        `SHORT_SCHEDULE` with the remedy against collapsing features, docs/short_schedules.md), `seed`; and those of
        `with_backbone`.
      name: cifar10 or cifar100.
      num_hard: hard categories.
    """
    defaults = {"imbalance": 100.0, "method": "ncl", "semantics": "official", "epochs": 400, "seed": 0}
    args = parse_arguments(arguments, **defaults, **BACKBONE)
    config = base_config()
    config.seed = args.seed
    config.data.name, config.data.imbalance, config.loss.num_hard = name, args.imbalance, num_hard
    shorten(config, epochs_of(args, arguments, name))
    with_backbone(config, args)
    with_method(config, args, arguments)
    return config


def epochs_of(args: ml_collections.ConfigDict, arguments: str | None, data: str) -> int:
    """The epochs that are asked for; where nothing is, those of a recipe for data of that name, or those of
    heads on a backbone's features."""
    own = lift.epochs(args.recipe, data) if args.recipe else HEAD_EPOCHS if args.backbone else args.epochs
    return args.epochs if _is_given("epochs", arguments) else own


def with_method(config: ml_collections.ConfigDict, args: ml_collections.ConfigDict, arguments: str | None) -> None:
    """Sets the fields of the method that is asked for; where none is, of a recipe's own."""
    if args.recipe:
        method = args.method if _is_given("method", arguments) else ""
        lift.choose_method(config, args.recipe, method, args.semantics)
    else:
        choose_method(config, args.method, args.semantics)


def _is_given(name: str, arguments: str | None) -> bool:
    return f",{name}=" in f",{arguments or ''}"


def with_backbone(config: ml_collections.ConfigDict, args: ml_collections.ConfigDict) -> None:
    """Lets a benchmark's recipe start from a named backbone: the arguments `BACKBONE`, see `backbone.use`.

    Raises:
      ConfigError: arguments without a backbone; or ImageNet-LT with weights that have seen all of ImageNet's labels.
    """
    given = {name: args[name] for name in BACKBONE if name != "backbone"}
    name = args.backbone or (lift.DEFAULT if args.recipe else "")
    if not name:
        if any(given[name] != BACKBONE[name] for name in given):
            raise ConfigError(f"pretrained, freeze and image_size belong to a backbone: add backbone={DEFAULT}")
        return
    if config.data.name == "imagenet_lt" and not args.pretrained and name in SEEN_IMAGENET:
        raise ConfigError(
            f"backbone={name}: its weights were trained on all of ImageNet with its labels, the rare classes "
            "included, so that ImageNet-LT would measure nothing: add pretrained=none, or pretrained=FILE with others"
        )
    _use_backbone(config, name, args)


def _use_backbone(config, name, args):
    backbone.use(config, name, pretrained=args.pretrained, image_size=args.image_size, freeze=args.freeze)
    if args.recipe:
        lift.use(config, args.recipe, pretrained=args.pretrained, freeze=args.freeze)


def shorten(config: ml_collections.ConfigDict, epochs: int) -> None:
    """Scales the schedule (`scale_schedule`); a short one gets the remedy against collapsing features."""
    if epochs < min(config.epochs, SHORT_SCHEDULE):
        config.loss.ramp_steps = RAMP_STEPS
        config.optim.warmup_epochs = max(config.optim.warmup_epochs, 2)
    scale_schedule(config, epochs)


def scale_schedule(config: ml_collections.ConfigDict, epochs: int) -> None:
    """Shortens the recipe to `epochs`: milestones at the same fractions, warm-up and intervals at most a fifth.

    Two epochs of warm-up stay, one of them below the base rate: without any the features collapse
    (docs/short_schedules.md).

    Raises:
      ConfigError: for less than one epoch.
    """
    if epochs < 1:
        raise ConfigError(f"epochs={epochs} must be at least 1")
    config.optim.milestones = shortened_milestones(config.optim.milestones, epochs / config.epochs, epochs)
    config.optim.warmup_epochs = shortened_warmup(config.optim.warmup_epochs, epochs)
    config.eval_every = max(1, min(config.eval_every, epochs // 5))
    config.checkpoint_every = max(1, min(config.checkpoint_every, epochs // 5))
    config.epochs = epochs


def shortened_milestones(milestones: Sequence[int], share: float, epochs: int) -> tuple[int, ...]:
    """The milestones at `share` of their epochs, those that lie within `epochs`."""
    found = {max(2, math.ceil(m * share)) for m in milestones}
    return tuple(sorted(m for m in found if m <= epochs))


def shortened_warmup(warmup: int, epochs: int) -> int:
    """At most a fifth of the epochs, or two."""
    return min(warmup, max(2, epochs // 5))
