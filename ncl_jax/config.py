"""Configurations: every field with its unit and source, arguments of configuration files, methods by name."""

import inspect
import math
import pathlib
import re
from collections.abc import Collection
from typing import Any

import ml_collections

from ncl_jax import methods
from ncl_jax.errors import ConfigError

SHORT_SCHEDULE = 100  # epochs: a shorter run is over before collapsed features would have paid back
RAMP_STEPS = 300
SCALED = ("eval_every", "checkpoint_every", "optim.warmup_epochs", "optim.milestones")  # with the epochs


def base_config() -> ml_collections.ConfigDict:
    """The CIFAR-100-LT recipe of the authors (NCL's experiments, their program); configuration files change parts."""
    config = ml_collections.ConfigDict()
    config.seed = 0  # of initial weights, order and augmentation; the long-tailed subset has its own, fixed at 0
    config.epochs = 400  # passes over the training set
    config.eval_every = 10  # epochs between evaluations; the last epoch is always evaluated
    config.checkpoint_every = 10  # epochs between checkpoints; the last epoch is always saved
    config.precision = "float32"  # the backbone's compute type: float32 or bfloat16

    config.data = ml_collections.ConfigDict()
    config.data.name = "cifar100"  # a source: folder, list, tfds, cifar10, imagenet_lt, ... (docs/data.md)
    config.data.dir = "data"  # folder of the images, of the archives or of a prepared TFDS data set
    config.data.download = True  # fetch CIFAR's archive where the folder has none
    config.data.imbalance = 100.0  # images of the largest class over those of the smallest, >= 1; 0: as the data is
    config.data.eval_split = "test"  # the split that the run is evaluated on: test or val
    config.data.test_share = 0.2  # of every class, cut off for testing where the data has neither test nor val
    config.data.val_share = 0.0  # of every class of the training images, held out as val (evaluate --temperature=val)
    config.data.skip_unreadable = False  # leave out files that cannot be read, which otherwise stop the run
    config.data.image_size = 0  # side of what the network sees, in pixels; 0: the images' own, where all are alike
    config.data.resize = 0  # shorter side before the test transform's centre crop, >= image_size; 0: image_size
    config.data.feed = "auto"  # resident (decoded once, on the devices), stream (decoded by step) or auto (by size)
    config.data.threads = 0  # that decode a stream, in each process or worker; 0: the cores
    config.data.workers = 0  # processes that decode a stream; 0: threads of this one
    config.data.mixup = 0.0  # a of the Beta(a, a) by which two images are mixed (mixup, arXiv 1710.09412); 0: none are
    config.data.mean = (0.4914, 0.4822, 0.4465)  # of the channels in [0, 1] (authors)
    config.data.std = (0.2023, 0.1994, 0.2010)  # standard deviations likewise (authors)
    config.data.augment = "autoaugment"  # classifier view: crop_flip, autoaugment, imagenet, ... (docs/data.md)
    config.data.list = ml_collections.ConfigDict()
    config.data.list.train = ""  # of data.name=list: a file, as it is or below data.dir; text, CSV or JSON
    config.data.list.val = ""  # likewise
    config.data.list.test = ""  # likewise
    config.data.list.classes = ""  # names of the classes, one a line; without it from labels or paths

    config.model = ml_collections.ConfigDict()
    config.model.backbone = "cifar_resnet"  # cifar_resnet or, for large images, resnet or resnext
    config.model.depth = 32  # its layers: 6 n + 2 for cifar_resnet; 18, 34, 50, 101, 152 for resnet; 50 for resnext
    config.model.width = 16  # channels of its first stage: 16 for cifar_resnet, 64 for resnet (He et al. 2016)
    config.model.classifier = "linear"  # linear, cosine, or normed: cosine without a bias
    config.model.cosine_scale = 16.0  # of the last two (authors, ImageNet-LT)
    config.model.num_experts = 3  # NCL, experiments
    config.model.pretrained = ""  # weights to start from: a file, a run or ORG/NAME (docs/pretrained.md)
    config.model.pretrained_expert = -1  # of such a run: the expert that all start from; -1: each from its own
    config.model.freeze = 0  # parts of the backbone that stay as they start: 1 the stem, 2 the first stage too, ...
    config.model.remat = False  # compute blocks again for the gradient: less memory, more time, the same numbers

    config.loss = ml_collections.ConfigDict()
    config.loss.name = "ncl"  # what is computed: ncl, nclpp, adjusted, ldam, dbm or FILE.py:FUNCTION (docs/methods.md)
    config.loss.balanced = True  # add the log prior to the logits (balanced softmax)
    config.loss.num_hard = 30  # hard categories, the target included: about 0.3 of the classes (authors)
    config.loss.hard_weight = 1.0  # of the cross-entropy over the hard categories (NIL)
    config.loss.distill_weight = 0.6  # of the distillation over all classes (NBOD; authors)
    config.loss.hard_distill_weight = 0.6  # of the distillation over the hard categories (authors)
    config.loss.hard_scores = "first"  # whose scores choose the hard categories: first (authors) or own (equations)
    config.loss.non_hard = "zero"  # other classes' balanced logits: zero (authors) or exclude (equations)
    config.loss.distill_normalization = "per_expert"  # 1/(E-1) (authors); mean_pair: 1/(E(E-1)) (equations); ncl only
    config.loss.copies = 1  # augmented copies of each image: 1 for ncl, 2 or more for nclpp (authors: 4)
    config.loss.label_smoothing = 0.0  # share of the target spread over all classes, in [0, 1)
    config.loss.prior_weights = (1.0,)  # times the log prior: one for all experts, or each's; (): 0 to 2; adjusted only
    config.loss.margin = 0.1  # the smallest class's: radians of dbm, cosine of ldam (authors: 0.1, 0.5)
    config.loss.margin_power = 1.0  # how fast margins shrink as classes grow; dbm only (authors)
    config.loss.image_margin = 1.0  # of the image's part of the margin; dbm only (authors)
    config.loss.reweight_from = 0.8  # share of the epochs after which classes are weighted; ldam only (authors)
    config.loss.reweight_beta = 0.9999  # of the effective number of images, in [0, 1); ldam only (authors)
    config.loss.diversity = 0.2  # of the divergence between experts; ldam only (RIDE's program)
    config.loss.diversity_temperature = 1.0  # of the softmaxes compared, > 0; ldam only (RIDE's program)
    config.loss.diversity_spread = 0.05  # how much lower small classes' temperature is; ldam only (RIDE's program)
    config.loss.own = ml_collections.ConfigDict()  # settings of a method of your own (docs/methods.md)
    config.loss.ramp_steps = 0  # steps over which the three weights of NCL grow from 0; 0: no ramp (authors)

    config.contrast = ml_collections.ConfigDict()
    config.contrast.weight = 0.0  # of the momentum contrast; 0: no self-supervision (authors: 1)
    config.contrast.behaviour = "moco"  # moco (as intended) or authors (their program's departures, docs/fidelity.md)
    config.contrast.augment = "moco_key"  # the key encoder's view: moco_key, places or any of data.augment
    config.contrast.momentum = 0.999  # of the key encoder, per step, in [0, 1)
    config.contrast.queue = 1024  # keys per expert (authors, CIFAR)
    config.contrast.temperature = 0.2  # > 0 (authors)
    config.contrast.dim = 64  # of the projected features (authors, CIFAR)

    config.teacher = ml_collections.ConfigDict()
    config.teacher.run = ""  # whose ensemble one network learns from; this section is set by ncl-jax distill
    config.teacher.backbone = ""  # its network, as in model
    config.teacher.depth = 0  # likewise
    config.teacher.width = 0  # likewise
    config.teacher.classifier = ""  # likewise
    config.teacher.cosine_scale = 0.0  # likewise
    config.teacher.num_experts = 0  # likewise

    config.optim = ml_collections.ConfigDict()
    config.optim.batch_size = 64  # images per step, over all devices (authors)
    config.optim.accumulate = 1  # parts of a batch, one after the other, each with its own batch statistics
    config.optim.learning_rate = 0.1  # base rate (authors)
    config.optim.schedule = "step"  # step (authors) or cosine (arXiv 2412.15477)
    config.optim.warmup_epochs = 5  # from a third of the base rate, linear (authors)
    config.optim.milestones = (320, 360)  # epochs at which the rate falls to a tenth, for step only (authors)
    config.optim.backbone_scale = 1.0  # the backbone's learning rate, in learning rates of the rest
    config.optim.momentum = 0.9  # Nesterov's (authors)
    config.optim.weight_decay = 2e-4  # coupled L2 on every trained parameter (authors)

    config.run = ml_collections.ConfigDict()
    config.run.conv = "auto"  # on one CPU: xla, native (our own kernels) or auto (native where they can be had)
    config.run.strategy = "auto"  # how the experts are applied: auto, unroll, vmap or packed
    config.run.steps_per_call = 0  # training steps in one device call; 0: the platform's default
    config.run.eval_batch = 500  # test images per step
    config.run.data_devices = 0  # devices that share a batch; 0: all that are not taken by experts
    config.run.expert_devices = 1  # devices that the experts are spread over; must divide the number of experts
    config.lock()  # a misspelt field in a configuration file is an error
    config.loss.own.unlock()
    return config


def parse_arguments(text: str | None, **defaults: Any) -> ml_collections.ConfigDict:
    """Reads the arguments of a configuration file, `imbalance=50,method=ncl`, each in its default's type.

    Raises:
      ConfigError: for an unknown argument (listing the valid ones), a repeated one or a value of another type.
    """
    values: dict[str, Any] = {}
    for item in filter(None, (text or "").split(",")):
        name, equals, value = item.partition("=")
        if name not in defaults or not equals:
            valid = ", ".join(f"{key}={value}" for key, value in defaults.items())
            raise ConfigError(
                f"unknown argument {item!r}; the arguments with their defaults are: {valid}. Commas separate them, so "
                "that no value can hold one"
            )
        if name in values:
            raise ConfigError(f"argument {name!r} is given twice")
        try:
            values[name] = type(defaults[name])(value)
        except ValueError as error:
            kind = type(defaults[name]).__name__
            raise ConfigError(f"argument {name}={value!r} is not a number of type {kind}") from error
    return ml_collections.ConfigDict(defaults | values)


def choose_method(config: ml_collections.ConfigDict, method: str, semantics: str = "official") -> None:
    """Sets all fields that make up a method of `methods.METHODS`, in the authors' or the equations' semantics.

    Choosing a method after another one equals choosing it alone, but for what the other wants of the recipe
    (`methods.Method`); change single fields afterwards.

    Raises:
      ConfigError: for an unknown method or semantics.
    """
    one_of("method", method, methods.METHODS)
    one_of("semantics", semantics, methods.SEMANTICS)
    config.update_from_flattened_dict(_method_fields(method, semantics) | dict(methods.METHODS[method].wants))


def _method_fields(method: str, semantics: str) -> dict[str, Any]:
    """Every field that any method sets, as this one has it."""
    defaults = flatten(base_config())
    reset = {name: defaults[name] for name in methods.all_fields() if name in defaults}
    return reset | methods.fields(method, semantics)


def method_of(config: ml_collections.ConfigDict) -> str:
    """The name of the first method whose loss a configuration has, with any number of experts; else its loss's name."""
    given = flatten(config)
    for semantics in methods.SEMANTICS:
        for method in methods.METHODS:
            fields = flatten(ml_collections.ConfigDict(_method_fields(method, semantics), allow_dotted_keys=True))
            if all(given[name] == value for name, value in fields.items() if name != "model.num_experts"):
                return method if semantics == "official" else f"{method} ({semantics})"
    return given["loss.name"]


def cifar_long_tailed(arguments: str | None, name: str, num_hard: int) -> ml_collections.ConfigDict:
    """The authors' CIFAR recipe with the arguments of its configuration files.

    Args:
      arguments: `imbalance` (>= 1), `method` and `semantics` (`choose_method`), `epochs` (`scale_schedule`; below
        `SHORT_SCHEDULE` with the remedy against collapsing features, docs/short_schedules.md), `seed`.
      name: cifar10 or cifar100.
      num_hard: hard categories.
    """
    args = parse_arguments(arguments, imbalance=100.0, method="ncl", semantics="official", epochs=400, seed=0)
    config = base_config()
    config.seed = args.seed
    config.data.name, config.data.imbalance, config.loss.num_hard = name, args.imbalance, num_hard
    shorten(config, args.epochs)
    choose_method(config, args.method, args.semantics)
    return config


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
    share = epochs / config.epochs
    milestones = {max(2, math.ceil(m * share)) for m in config.optim.milestones}
    config.optim.milestones = tuple(sorted(m for m in milestones if m <= epochs))
    config.optim.warmup_epochs = min(config.optim.warmup_epochs, max(2, epochs // 5))
    config.eval_every = max(1, min(config.eval_every, epochs // 5))
    config.checkpoint_every = max(1, min(config.checkpoint_every, epochs // 5))
    config.epochs = epochs


def flatten(config: ml_collections.ConfigDict | dict) -> dict[str, Any]:
    """`{"optim.momentum": 0.9, ...}`, tuples as lists as they come back from JSON."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict | dict):
            flat |= {f"{name}.{key}": leaf for key, leaf in flatten(value).items()}
        else:
            flat[name] = list(value) if isinstance(value, tuple) else value
    return flat


def describe_fields() -> list[tuple[str, str, str]]:
    """Every field's name, default and comment, as they stand in `base_config`."""
    lines = re.findall(r"^    config\.(\S+) = (.+?)  # (.+)$", inspect.getsource(base_config), re.MULTILINE)
    return [(name, value, comment) for name, value, comment in lines]


def complete(stored: dict) -> ml_collections.ConfigDict:
    """A configuration from a run's file: a field that the file lacks takes its default.

    Raises:
      TypeError: a field holds a value of another type than its default.
    """
    fields: dict[str, Any] = {}
    defaults, given = flatten(base_config()), flatten(stored)
    for name, value in given.items():
        number = isinstance(value, int) and isinstance(defaults.get(name), float)
        if any(other.startswith(f"{name}.") for other in defaults):
            raise TypeError(f"{name}={value!r} is no section")
        if name in defaults and type(value) is not type(defaults[name]) and not number:
            raise TypeError(f"{name}={value!r} is not of type {type(defaults[name]).__name__}")
    for name, value in (defaults | given).items():
        *sections, leaf = name.split(".")
        section = fields
        for part in sections:
            section = section.setdefault(part, {})
        section[leaf] = tuple(value) if isinstance(value, list) else value
    return ml_collections.ConfigDict(fields)


def expand(name: str, path: str | pathlib.Path) -> pathlib.Path:
    """A path with `~` replaced. Raises ConfigError, naming the field, for one that no file system can hold."""
    try:
        expanded = pathlib.Path(path).expanduser()
        expanded.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{name}={path} cannot be used: {error}") from error
    return expanded


def one_of(name: str, value: Any, valid: Collection[str]) -> None:
    """Raises ConfigError, naming the field, where `value` is none of the valid ones."""
    if value not in valid:
        raise ConfigError(f"{name}={value!r} must be one of: {', '.join(valid)}")
