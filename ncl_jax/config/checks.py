"""Checks of a configuration, before and after the data is known."""

import pathlib
from collections.abc import Sequence
from typing import Any

import ml_collections

from ncl_jax import methods, models
from ncl_jax.config import adapted
from ncl_jax.config.fields import fields, flatten
from ncl_jax.data.sources import folder
from ncl_jax.errors import ConfigError
from ncl_jax.field import Field, is_finite, one_of
from ncl_jax.models import BACKBONES, FROZEN
from ncl_jax.runtime.files import expand

# Choices that a program of the user's may add to, and that a trained model is used without.
_OPEN = ("data.name", "data.augment", "contrast.augment", "optim.schedule")
LARGEST_PIXEL = 1e15  # normalised: the squares of larger ones, which batch statistics are made of, are infinite
# Objectives that need a classifier whose scores are cosines times a scale.
_NORMED = ("ldam", "dbm")


def validate(config: ml_collections.ConfigDict) -> None:
    """Checks all that can be checked without the data.

    Raises:
      ConfigError: naming the field, its value and what it must be.
    """
    given = flatten(config)
    for name, field in fields().items():
        field.check(name, given[name])
    _check_network(config)
    _check_parts(config.model)
    _check_pixels(config)
    _check_size(config)
    _check_source(config)
    _check_loss(config)
    _check_targets(config)
    _check_schedule(config)


def validate_saved(config: ml_collections.ConfigDict) -> None:
    """Checks what a trained model is used with, of a configuration that a run's files hold. Imports no method.

    Raises:
      ConfigError: naming the field, its value and what it must be.
    """
    given = flatten(config)
    for name, field in fields().items():
        if name not in _OPEN:
            field.check(name, given[name])
    _check_network(config)
    _check_pixels(config)
    _check_size(config)
    for name in ("loss.prior_weights", "optim.milestones"):
        _numbers(name, given[name])


def _numbers(name: str, values: Any) -> tuple:
    """A field's values, if they are numbers. Raises ConfigError otherwise."""
    values = tuple(values) if isinstance(values, Sequence) and not isinstance(values, str) else (values,)
    if not all(isinstance(v, int | float) and not isinstance(v, bool) and is_finite(v) for v in values):
        raise ConfigError(f"{name}={values} must be numbers that are finite in 32 bits, such as (1, 2)")
    return values


def _check_network(config: ml_collections.ConfigDict) -> None:
    _check_architecture("model", config.model)
    if config.teacher.run:
        _check_architecture("teacher", config.teacher)
        adapted.check_blocks("teacher", config.teacher)
    _check_heads(config.model)
    adapted.check(config.model)


def _check_parts(model: ml_collections.ConfigDict) -> None:
    """What training alone asks of the backbone's parts."""
    most = getattr(BACKBONES[model.backbone], "num_parts", 0)
    Field(0, "", at_most=most).check("model.freeze", model.freeze)
    if model.remat and not most:
        raise ConfigError(f"model.remat=True: the backbone {model.backbone} has no blocks to compute again")


def _check_heads(model: ml_collections.ConfigDict) -> None:
    """What belongs to heads on a frozen backbone, and to nothing else."""
    if model.freeze == FROZEN:
        if not model.pretrained:
            raise ConfigError(
                "model.freeze=all needs model.pretrained: the weights of the backbone that is not trained"
            )
        if model.head_start != "random" and model.classifier == "linear":
            raise ConfigError(
                f"model.head_start={model.head_start} needs model.classifier=cosine or normed, not linear; or set "
                "random"
            )
        _check_text(model)
        return
    if model.head_start == "text":
        raise ConfigError("model.head_start=text needs a frozen backbone: set model.freeze=all, or random")
    for name, none in (("adapter", 0), ("standardize", False)):  # the start of a head is not asked for
        if model[name] != none:
            raise ConfigError(f"model.{name}={model[name]} needs a frozen backbone: set model.freeze=all, or {none}")


def _check_text(model: ml_collections.ConfigDict) -> None:
    """What a start from the classes' names needs."""
    if "{name}" not in model.template or not all("{name}" in text for text in model.template.split("|")):
        raise ConfigError(f"model.template={model.template!r} must hold {{name}}, in each of its parts between |")
    if model.head_start == "text" and model.standardize:
        raise ConfigError("model.standardize=True: texts have no place among standardised features; set False")
    if model.class_vectors and model.head_start != "text":
        raise ConfigError(
            f"model.class_vectors={model.class_vectors} is for model.head_start=text: set it, or leave it out"
        )


def _check_architecture(name: str, section: ml_collections.ConfigDict) -> None:
    """Checks what `model` and `teacher` have in common."""
    for field in ("backbone", "classifier", "width", "cosine_scale", "num_experts"):
        fields()[f"model.{field}"].check(f"{name}.{field}", section[field])
    for field in ("depth", "width"):
        try:
            models.check(section.backbone, field, section[field])
        except ValueError as error:
            raise ConfigError(f"{name}.{error}") from error


def _check_pixels(config: ml_collections.ConfigDict) -> None:
    for name in ("mean", "std"):
        values = _numbers(f"data.{name}", config.data[name])
        if len(values) != 3:
            raise ConfigError(f"data.{name}={values} must be three numbers, one for each of red, green and blue")
    if min(config.data.std) <= 0:
        raise ConfigError(f"data.std={tuple(config.data.std)} must be above 0: pixels are divided by it")
    if (most := largest_pixel(config.data.mean, config.data.std)) > LARGEST_PIXEL:
        raise ConfigError(
            f"data.std={tuple(config.data.std)}, data.mean={tuple(config.data.mean)}: normalised pixels would be as "
            f"large as {most:.2g}; pixels are in [0, 1], set what ImageNet has or the images' own mean and deviation"
        )


def largest_pixel(mean: Sequence[float], std: Sequence[float]) -> float:
    """The largest absolute value of a normalised pixel: black or white, of any colour."""
    return max(max(abs(m), abs(1 - m)) / s for m, s in zip(mean, std, strict=True))


def _check_size(config: ml_collections.ConfigDict) -> None:
    if 0 < config.data.imbalance < 1:
        raise ConfigError(f"data.imbalance={config.data.imbalance} must be at least 1, or 0 for the data as it is")
    if config.data.resize and config.data.resize < config.data.image_size:
        raise ConfigError(
            f"data.resize={config.data.resize} must be at least data.image_size={config.data.image_size}, which is cut "
            "out of it"
        )


def _check_source(config: ml_collections.ConfigDict) -> None:
    """What belongs to folders of images or to lists alone."""
    of = {
        "layout": ("folder",), "group_by": ("folder", "list"), "columns.path": ("list", "tfds"),
        "columns.label": ("list", "tfds"), "columns.split": ("list", "tfds"), "columns.group": ("list",),
    }  # fmt: skip
    given = flatten(config.data)
    for name, sources in of.items():
        if given[name] != fields()[f"data.{name}"].default and config.data.name not in sources:
            those = " or ".join(sources)
            raise ConfigError(
                f"data.{name}={given[name]} is for data.name={those}, not {config.data.name}: leave it out"
            )


def _check_loss(config: ml_collections.ConfigDict) -> None:
    name, copies = config.loss.name, config.loss.copies
    if ":" not in name:
        one_of("loss.name", name, methods.objectives())
    methods.objective(name)
    if name == "nclpp" and copies < 2:
        raise ConfigError(f"loss.copies={copies} must be at least 2 for NCL++ (loss.name=nclpp)")
    if name == "ncl" and copies > 1:
        raise ConfigError(f"loss.copies={copies} needs loss.name=nclpp (method=nclpp)")
    if name == "distilled" and adapted.is_adapted(config.model) != adapted.is_adapted(config.teacher):
        raise ConfigError(
            f"model.adapters={config.model.adapters}, teacher.adapters={config.teacher.adapters}: a student has "
            "adapters if its teacher has, because both see the same; set what the teacher has, or another kind"
        )
    if name == "distilled" and (copies > 1 or config.contrast.weight):
        raise ConfigError(
            f"loss.copies={copies}, contrast.weight={config.contrast.weight}: loss.name=distilled has neither copies "
            "nor self-supervision; set 1 and 0"
        )
    if name == "distilled" and not (config.loss.distill_weight or config.loss.hard_distill_weight):
        raise ConfigError(
            "loss.distill_weight=0, loss.hard_distill_weight=0: one must be above 0 for a student to learn"
        )
    if (name == "distilled") != bool(config.teacher.run):
        raise ConfigError(
            f"loss.name={name} and teacher.run={config.teacher.run!r} do not belong together: ncl-jax distill "
            "--run=DIR sets both"
        )
    if copies > 1 and config.contrast.weight:
        raise ConfigError(
            f"loss.name={name} has no self-supervision branch: set contrast.weight=0, not {config.contrast.weight}"
        )


def _check_targets(config: ml_collections.ConfigDict) -> None:
    loss, name = config.loss, config.loss.name
    if name in _NORMED and config.model.classifier != "normed":
        raise ConfigError(f"model.classifier={config.model.classifier}: loss.name={name} needs normed")
    weights = _numbers("loss.prior_weights", loss.prior_weights)
    if name == "adjusted" and len(weights) not in (0, 1, config.model.num_experts):
        raise ConfigError(
            f"loss.prior_weights={weights} must be one number, or one for each of the model.num_experts="
            f"{config.model.num_experts} experts, or none"
        )
    if name in ("adjusted", *_NORMED) and not loss.balanced:
        raise ConfigError(f"loss.balanced=False: loss.name={name} does not read it; leave it True")
    nested = name == "ncl" and (loss.hard_weight or loss.hard_distill_weight)
    if loss.label_smoothing and ":" not in name and (nested or name not in ("ncl", "adjusted")):
        raise ConfigError(
            f"loss.label_smoothing={loss.label_smoothing}: set 0, for this method has no loss for a smooth target; ce, "
            "balanced_softmax, nbod_full, logit_adjustment and balpoe have one"
        )
    if config.data.mixup and (loss.copies > 1 or config.contrast.weight):
        raise ConfigError(
            f"data.mixup={config.data.mixup}: set 0, because the copies of nclpp and self-supervision cannot use "
            "mixed images"
        )


def _check_schedule(config: ml_collections.ConfigDict) -> None:
    milestones = _numbers("optim.milestones", config.optim.milestones) if config.optim.milestones else ()
    if any(m != int(m) or m < 1 for m in milestones):
        raise ConfigError(f"optim.milestones={milestones} must be whole numbers of epochs, from 1")
    late = [m for m in milestones if m > config.epochs]
    if config.optim.schedule == "step" and late:
        raise ConfigError(
            f"optim.milestones={milestones} are after the last epoch, {config.epochs}: scale the "
            f"whole schedule with the configuration's argument, :epochs={config.epochs}, or set optim.milestones too"
        )


def check_place(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Raises ConfigError for a run's directory that would become a part of its data: a class, with plots for images."""
    root = pathlib.Path(config.data.dir).resolve()
    if config.data.name == "folder" and folder.takes(root, workdir.resolve(), config.data.list):
        raise ConfigError(f"--workdir={workdir} lies among the images of data.dir={root}: pass one outside of it")
    cache = config.data.cache
    if cache not in ("", "none") and config.data.name == "folder":
        place = expand("data.cache", cache).resolve()
        if folder.takes(root, place, config.data.list):
            raise ConfigError(f"data.cache={cache} lies among the images of data.dir={root}: choose another folder")


def check_against_data(config: ml_collections.ConfigDict, num_images: int, num_classes: int) -> None:
    """Checks what depends on the data. Raises ConfigError."""
    if config.optim.batch_size > num_images:
        raise ConfigError(f"optim.batch_size={config.optim.batch_size} is larger than the {num_images} training images")
    if config.loss.num_hard > num_classes:
        raise ConfigError(f"loss.num_hard={config.loss.num_hard} is larger than the number of classes, {num_classes}")
