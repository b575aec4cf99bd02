"""Every field of the configuration, declared once: default, meaning, source, bounds; and what is made of them."""

from typing import Any

import ml_collections

from ncl_jax import methods
from ncl_jax.data.augment.views import VIEWS
from ncl_jax.data.images.transforms import INTERPOLATIONS
from ncl_jax.data.sources import SOURCES
from ncl_jax.data.sources.levels import LAYOUTS
from ncl_jax.field import Field
from ncl_jax.models import BACKBONES, FROZEN, HEADS
from ncl_jax.models.adapters import ADAPTERS, NONE
from ncl_jax.models.experts import STRATEGIES
from ncl_jax.training.optimizers import OPTIMIZERS, SCHEDULES

AUTHORS = "the authors' program"
# Where and how a run is computed, not what: these may differ when it is continued.
MAY_CHANGE = ("version", "extend", "prior_power", "pixels", "scaled", "split_rule", "data_changed", "steps_per_epoch",
              "eval_minutes", "checkpoint_minutes", "data.dir", "data.list.", "data.labels", "data.download",
              "data.threads", "data.workers", "data.cache", "run.", "teacher.run")  # fmt: skip

# Bounds that no work comes near. What a run takes in memory is estimated (`costs`); far beyond these it would also
# never begin, or its tables, one row an epoch, would be what fills the memory.
EPOCHS = 10**6
MINUTES = 10**6  # between evaluations or checkpoints
SIDE, CHANNELS = 2**14, 2**14  # pixels; channels of the first stage, size of a projected feature
LAYERS = 1202  # the deepest of He et al. 2016
EXPERTS, COPIES = 32, 32  # each is a part of the program

RUN = {
    "seed": Field(0, "random seed of initial weights, order and augmentation; the long-tailed subset does not depend "
                  "on it", at_least=0, at_most=2**32 - 1),
    "epochs": Field(400, "number of training epochs", AUTHORS, at_least=1, at_most=EPOCHS),
    "eval_every": Field(10, "epochs between evaluations; the first and the last epoch are always evaluated",
                        at_least=1),
    "eval_minutes": Field(10.0, "minutes after an evaluation from which on the next end of an epoch is evaluated too; "
                          "0: by epochs alone", at_least=0, at_most=MINUTES),
    "checkpoint_every": Field(10, "epochs between checkpoints; the last epoch is always saved", at_least=1),
    "checkpoint_minutes": Field(10.0, "minutes after a checkpoint from which on the next step is saved too; 0: by "
                                "epochs alone", at_least=0, at_most=MINUTES),
    "precision": Field("auto", "number format that the backbone computes in; auto: bfloat16 for the features of a "
                       "frozen one on a GPU or TPU, otherwise float32", choices=("auto", "float32", "bfloat16")),
}  # fmt: skip
DATA = {
    "data.name": Field("cifar100", "dataset reader", choices=SOURCES),
    "data.dir": Field("data", "folder of the images, of CIFAR's archive or of a prepared TFDS dataset"),
    "data.download": Field(True, "download CIFAR's archive if the folder does not have it"),
    "data.imbalance": Field(100.0, "images of the largest class over those of the smallest: 1 or more; 0: the data as "
                            "it is", at_least=0),
    "data.eval_split": Field("test", "the split that is evaluated", choices=("test", "val")),
    "data.test_share": Field(0.2, "share of each class that is split off for testing if the data has neither test nor "
                             "val", at_least=0, below=1),
    "data.val_share": Field(0.0, "share of each class of the training images that is held out as val, for "
                            "temperature=val", at_least=0, below=1),
    "data.skip_unreadable": Field(False, "skip files that cannot be read, and rows of lists without a file or a label; "
                                  "otherwise they stop the run"),
    "data.layout": Field("auto", "levels of a folder of images: class/group, or group/class for cameras, sites or "
                         "patients above the classes; auto: class/group, unless names that recur make that unclear",
                         choices=LAYOUTS),
    "data.group_by": Field("", "groups that stay whole in automatic splits and folds: folder (that of the layout, or "
                           "of a list's paths), column (of a list), or a regular expression of paths; empty: folder if "
                           "data.layout is group/class, otherwise none"),
    "data.labels": Field("", "CSV file of corrected labels of training images, with the columns file and label, as "
                         "ncl-jax inspect writes it; the label - removes an image. --labels=FILE sets it"),
    "data.image_size": Field(0, "side of the square that the network sees, in pixels; 0: that of the images, if all "
                             "have the same", at_least=0, at_most=SIDE),
    "data.resize": Field(0, "shorter side, in pixels, before the centre is cut out for testing; 0: image_size",
                         at_least=0, at_most=SIDE),
    "data.feed": Field("auto", "data loader: resident (decoded once, kept on the devices), stream (decoded when "
                       "needed), auto (by size)", choices=("auto", "resident", "stream")),
    "data.threads": Field(0, "threads that decode a stream, in each process or worker; 0: one for each core",
                          at_least=0, at_most=1024),
    "data.workers": Field(0, "processes that decode a stream; 0: threads of this process", at_least=0,
                          at_most=256),
    "data.interpolation": Field("bilinear", "how images are scaled", "torchvision",
                                choices=INTERPOLATIONS),
    "data.cached_views": Field(4, "training views of each image whose features are cached, with a frozen backbone",
                               at_least=1, at_most=64),
    "data.flip": Field(True, "flip cached training views left to right in half of the draws; not for text or classes "
                       "that differ by the side"),
    "data.cache": Field("", "folder of cached features; empty: the user's cache directory; none: nothing is kept"),
    "data.mixup": Field(0.0, "a of the distribution Beta(a, a) by which pairs of images are mixed; 0: no mixing",
                        "mixup, arXiv 1710.09412", at_least=0, at_most=1000),
    "data.mean": Field((0.4914, 0.4822, 0.4465), "mean of red, green and blue, in [0, 1]", AUTHORS),
    "data.std": Field((0.2023, 0.1994, 0.2010), "standard deviation of red, green and blue", AUTHORS),
    "data.augment": Field("autoaugment", "augmentation pipeline of the classifier", AUTHORS, choices=VIEWS),
    "data.list.train": Field("", "list of training images, for data.name=list: text, CSV or JSON; a path, or a name in "
                             "data.dir. For data.name=folder the folder of the training images in data.dir, if its "
                             "name does not say so; . is data.dir itself"),
    "data.list.val": Field("", "list of validation images, likewise"),
    "data.list.test": Field("", "list of test images, likewise"),
    "data.columns.path": Field("", "column of a list's paths, if it is none of the usual names"),
    "data.columns.label": Field("", "column of a list's labels, likewise"),
    "data.columns.split": Field("", "column of a list that says train, val or test, likewise"),
    "data.columns.group": Field("", "column of a list's groups, for data.group_by=column, likewise"),
    "data.list.classes": Field("", "file of class names, one a line; otherwise they follow from labels or paths"),
}  # fmt: skip
MODEL = {
    "model.backbone": Field("cifar_resnet", "network; cifar_resnet is for small images", AUTHORS, choices=BACKBONES),
    "model.depth": Field(32, "layers of the network: 6 n + 2 for cifar_resnet; 18, 34, 50, 101 or 152 for resnet; 50 "
                         "for resnext; 0, the variant, for efficientnet_lite; 18 or 36 for convnext; blocks of a "
                         "transformer", AUTHORS, at_least=0, at_most=LAYERS),
    "model.width": Field(16, "channels of the first stage: 16 for cifar_resnet, 64 for resnet, 32 for "
                         "efficientnet_lite, 96 for convnext; size of a transformer's token", "He et al. 2016",
                         at_least=1, at_most=CHANNELS),
    "model.classifier": Field("linear", "classifier; normed is cosine without a bias", AUTHORS, choices=HEADS),
    "model.cosine_scale": Field(16.0, "factor of a cosine or normed classifier's scores", "authors, ImageNet-LT",
                                above=0),
    "model.num_experts": Field(3, "experts: networks that learn the task together", "NCL, experiments", at_least=1,
                               at_most=EXPERTS),
    "model.pretrained": Field("", "weights to start from: a file, a run's directory or ORG/NAME of the hub"),
    "model.pretrained_expert": Field(-1, "expert of a run in model.pretrained that all start from; -1: each from its "
                                     "own", at_least=-1),
    "model.freeze": Field(0, "parts of the backbone that are not trained: 1 the stem, 2 the first stage too, ...; all: "
                          "the whole, one copy for all experts, whose features are computed once", at_least=-1,
                          words={"all": FROZEN}),
    "model.adapter": Field(0, "hidden units of each expert's residual adapter on the features of a frozen backbone; 0: "
                           "no adapter", "Houlsby et al. 2019", at_least=0, at_most=CHANNELS),
    "model.adapters": Field(NONE, "what each expert trains in the last blocks of a frozen vision transformer, beside "
                            "its head: adaptformer, lora, vpt (prompts), bitfit (biases), layernorm; none: nothing",
                            "LIFT, arXiv 2309.10019", choices=(NONE, *ADAPTERS)),
    "model.adapted_blocks": Field(0, "blocks of the transformer, the last ones, that have adapters; the others run "
                                  "once for all experts; 0: all have", at_least=0, at_most=LAYERS),
    "model.adapter_width": Field(0, "hidden units of an adapter in a block, its rank (lora) or its number of prompts; "
                                 "0: by LIFT's rule from the number of classes, 10 prompts", "LIFT", at_least=0,
                                 at_most=CHANNELS),
    "model.standardize": Field(False, "standardise the features of a frozen backbone by the training set's means and "
                               "deviations"),
    "model.head_start": Field("random", "how a cosine or normed classifier on a frozen backbone starts: at random, at "
                              "the means of the classes, or at the classes' names as CLIP's or SigLIP's text tower "
                              "sees them", choices=("random", "class_mean", "text")),
    "model.template": Field("a photo of a {name}.", "text about a class, for head_start=text; several, whose vectors "
                            "are averaged, with | between them", "CLIP, LIFT"),
    "model.text": Field("", "weights of the text tower, a file with its vocabulary beside it, or ORG/NAME of the hub; "
                        "empty: those of model.pretrained"),
    "model.class_vectors": Field("", "for head_start=text: a file with a vector for every class, [C, d], .npy, .npz or "
                                 ".safetensors, in place of a text tower"),
    "model.remat": Field(False, "compute blocks again for the gradient: less memory, more time, the same numbers"),
}  # fmt: skip
LOSS = {
    "loss.name": Field("ncl", "what is computed, or FILE.py:FUNCTION for your own; method=NAME sets it with the rest"),
    "loss.balanced": Field(True, "add the log class prior to the scores (balanced softmax)", AUTHORS),
    "loss.num_hard": Field(30, "hard categories of each image, its own class included: about 0.3 of the classes",
                           AUTHORS, at_least=1),
    "loss.hard_weight": Field(1.0, "weight of the cross-entropy over the hard categories (NIL)", AUTHORS, at_least=0),
    "loss.distill_weight": Field(0.6, "weight of the distillation between experts over all classes (NBOD)", AUTHORS,
                                 at_least=0),
    "loss.hard_distill_weight": Field(0.6, "weight of the distillation over the hard categories", AUTHORS, at_least=0),
    "loss.hard_scores": Field("first", "whose scores choose the hard categories: the first expert's (authors) or each "
                              "expert's own (equations)", AUTHORS, choices=("first", "own")),
    "loss.non_hard": Field("zero", "the other classes' scores among the hard categories: set to zero (authors) or "
                           "excluded (equations)", AUTHORS, choices=("zero", "exclude")),
    "loss.distill_normalization": Field("per_expert", "factor of the distillation: 1/(E-1) (authors), or mean_pair "
                                        "1/(E(E-1)) (equations); ncl and dbm only", AUTHORS,
                                        choices=("per_expert", "mean_pair")),
    "loss.copies": Field(1, "augmented copies of each image: 1 for ncl, 2 or more for nclpp (authors: 4)", AUTHORS,
                         at_least=1, at_most=COPIES),
    "loss.label_smoothing": Field(0.0, "share of the target that is spread over all classes", "arXiv 1512.00567",
                                  at_least=0, below=1),
    "loss.ramp_steps": Field(0, "steps over which the three weights above grow from 0; 0: at once", AUTHORS,
                             at_least=0),
}  # fmt: skip
CONTRAST = {
    "contrast.weight": Field(0.0, "weight of momentum contrast (self-supervision); 0: without (authors: 1)",
                             at_least=0),
    "contrast.behaviour": Field("moco", "moco as published, or the authors' program with its departures from it",
                                choices=("moco", "authors")),
    "contrast.augment": Field("moco_key", "augmentation pipeline of the key encoder", AUTHORS, choices=VIEWS),
    "contrast.momentum": Field(0.999, "momentum of the key encoder, per step", AUTHORS, at_least=0, below=1),
    "contrast.queue": Field(1024, "keys per expert in the queue", "authors, CIFAR", at_least=1, at_most=2**24),
    "contrast.temperature": Field(0.2, "temperature of the contrastive scores", AUTHORS, above=0),
    "contrast.dim": Field(64, "size of a projected feature", "authors, CIFAR", at_least=1, at_most=CHANNELS),
}  # fmt: skip
TEACHER = {
    "teacher.run": Field("", "run whose ensemble one network learns from; ncl-jax distill sets this section"),
    "teacher.backbone": Field("", "the teacher's network, as in model"),
    "teacher.depth": Field(0, "likewise", at_least=0, at_most=LAYERS),
    "teacher.width": Field(0, "likewise", at_least=0, at_most=CHANNELS),
    "teacher.classifier": Field("", "likewise"),
    "teacher.cosine_scale": Field(0.0, "likewise", at_least=0),
    "teacher.adapter": Field(0, "likewise", at_least=0, at_most=CHANNELS),
    "teacher.standardize": Field(False, "likewise"),
    "teacher.adapters": Field(NONE, "likewise", choices=(NONE, *ADAPTERS)),
    "teacher.adapted_blocks": Field(0, "likewise", at_least=0, at_most=LAYERS),
    "teacher.adapter_width": Field(0, "likewise", at_least=0, at_most=CHANNELS),
    "teacher.num_experts": Field(0, "likewise", at_least=0, at_most=EXPERTS),
}
OPTIM = {
    "optim.batch_size": Field(64, "images per step, over all devices", AUTHORS, at_least=1, at_most=2**20),
    "optim.accumulate": Field(1, "micro-batches that a batch is processed in, if it does not fit in memory; each has "
                              "its own batch statistics", at_least=1, at_most=1024),
    "optim.name": Field("sgd", "optimizer: sgd with Nesterov momentum (authors), momentum (sgd with the plain one), "
                        "adamw", AUTHORS, choices=OPTIMIZERS),
    "optim.learning_rate": Field(0.1, "base learning rate", AUTHORS, above=0),
    "optim.schedule": Field("step", "learning-rate schedule: step (authors), cosine (arXiv 2412.15477), or annealing "
                            "(cosine from the base rate to 0, LIFT)", AUTHORS, choices=SCHEDULES),
    "optim.warmup_epochs": Field(5, "epochs of linear warm-up from a third of the base rate", AUTHORS, at_least=0),
    "optim.milestones": Field((320, 360), "epochs at which schedule=step divides the rate by 10", AUTHORS),
    "optim.backbone_scale": Field(1.0, "the backbone's learning rate over that of the rest", at_least=0),
    "optim.momentum": Field(0.9, "momentum of sgd and momentum", AUTHORS, at_least=0, below=1),
    "optim.weight_decay": Field(2e-4, "weight decay of every trained parameter: decoupled with adamw, coupled (an "
                                "L2 penalty) with the others", AUTHORS, at_least=0),
}  # fmt: skip
DEVICES = {
    "run.conv": Field("auto", "convolutions on one CPU: xla, native (our own kernels) or auto (native if available)",
                      choices=("auto", "xla", "native"), developer=True),
    "run.strategy": Field("auto", "how the experts are applied", choices=("auto", *STRATEGIES), developer=True),
    "run.steps_per_call": Field(0, "training steps in one device call; 0: the platform's default", at_least=0,
                                at_most=1000, developer=True),
    "run.patience": Field(0, "epochs without a higher mean of the classes' accuracies on the val split after which "
                          "training ends; 0: never", at_least=0, at_most=EPOCHS),
    "run.eval_batch": Field(500, "test images per step", at_least=1),
    "run.data_devices": Field(0, "devices that share a batch; 0: all that are not taken by experts", at_least=0),
    "run.expert_devices": Field(1, "devices that the experts are spread over; must divide the number of experts",
                                at_least=1),
}  # fmt: skip


def fields() -> dict[str, Field]:
    """All fields by name, in the order of the configuration."""
    of_methods = {f"loss.{name}": field for name, field in methods.declared().items()}
    return RUN | DATA | MODEL | LOSS | of_methods | CONTRAST | TEACHER | OPTIM | DEVICES


METHOD_FILE = "method_sha256"  # of a method of the user's own: its file's content
# What stands beside the fields in a run's `config.json`.
NOTES = (
    "version", "extend", "prior_power", "pixels", "scaled", "split_rule", "data_changed", "steps_per_epoch",
    METHOD_FILE,
)  # fmt: skip


def base_config() -> ml_collections.ConfigDict:
    """The CIFAR-100-LT recipe of the authors (NCL's experiments, their program); configuration files change parts."""
    config = ml_collections.ConfigDict(nested({name: field.default for name, field in fields().items()}))
    config.loss.own = ml_collections.ConfigDict()
    config.lock()  # a misspelt field in a configuration file is an error
    config.loss.own.unlock()
    return config


def without_notes(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """A copy without what a run's `config.json` notes beside the fields."""
    return ml_collections.ConfigDict({name: v for name, v in config.to_dict().items() if name not in NOTES})


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """`{"optim": {"momentum": 0.9}, ...}` from the values by dotted name."""
    found: dict[str, Any] = {}
    for name, value in flat.items():
        *sections, leaf = name.split(".")
        section = found
        for part in sections:
            section = section.setdefault(part, {})
        section[leaf] = value
    return found


def flatten(config: ml_collections.ConfigDict | dict) -> dict[str, Any]:
    """`{"optim.momentum": 0.9, ...}`, tuples as lists as they come back from JSON."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict | dict):
            flat |= {f"{name}.{key}": leaf for key, leaf in flatten(value).items()}
        else:
            flat[name] = list(value) if isinstance(value, tuple) else value
    return flat


def complete(stored: dict) -> ml_collections.ConfigDict:
    """A configuration from a run's file: a field that the file lacks takes its default.

    Raises:
      TypeError: a field holds a value of another type than its default.
    """
    defaults, given = flatten(base_config()), flatten(stored)
    for name, value in given.items():
        number = isinstance(value, int) and isinstance(defaults.get(name), float)
        if any(other.startswith(f"{name}.") for other in defaults):
            raise TypeError(f"{name}={value!r} is not a section")
        if name in defaults and type(value) is not type(defaults[name]) and not number:
            raise TypeError(f"{name}={value!r} is not of type {type(defaults[name]).__name__}")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in (defaults | given).items()}
    return ml_collections.ConfigDict(nested(values))


def differences(old: ml_collections.ConfigDict, new: ml_collections.ConfigDict) -> list[str]:
    """One line for every field that differs and may not: `optim.momentum: 0.9 saved, 0.8 given`."""
    before, after = identities(flatten(old), flatten(new))
    names = [name for name in sorted(before.keys() | after.keys()) if not name.startswith(MAY_CHANGE)]
    lines: list[tuple[str, Any, Any]] = [(n, before.get(n, "absent"), after.get(n, "absent")) for n in names]
    said = {METHOD_FILE: f"{METHOD_FILE}, of the content of loss.name's file"}
    return [f"{said.get(name, name)}: {old} saved, {new} given" for name, old, new in lines if old != new]


def identities(*configs: dict[str, Any]) -> list[dict[str, Any]]:
    """What makes runs the same: of a method's own file the content, wherever the file lies. Runs before that was noted
    have the path alone."""
    if all(METHOD_FILE in config for config in configs):
        return [config | {"loss.name": config["loss.name"].rpartition(":")[2]} for config in configs]
    return [{name: value for name, value in config.items() if name != METHOD_FILE} for config in configs]
