"""A run's model as one file, for use without the run. One more format is one file and one line in `FORMATS`."""

import hashlib
import itertools
import json
import math
import pathlib
from typing import Any, Literal

import jax
import ml_collections
import numpy as np

from ncl_jax._version import __version__
from ncl_jax.config import build
from ncl_jax.config.crops import with_crops
from ncl_jax.config.plan import Plan, adjustment, on_every_platform, predictor
from ncl_jax.errors import ConfigError, WriteError, did_you_mean
from ncl_jax.evaluation import priors
from ncl_jax.export.artifact import Artifact
from ncl_jax.export.formats import FORMATS
from ncl_jax.export.load import VERSION, description_of
from ncl_jax.models.experts import without_trunk
from ncl_jax.models.named import NAMED
from ncl_jax.runs import trust
from ncl_jax.runs.restore import Loaded, restore
from ncl_jax.runs.temperature import find_temperature
from ncl_jax.runtime import settings
from ncl_jax.runtime.files import expand, name_text, write_together
from ncl_jax.storage.directory import RunDir
from ncl_jax.trust import sets


@settings.holding
def export(
    run: str | pathlib.Path,
    out: str | pathlib.Path,
    form: str | None = None,
    step: int | Literal["best"] | None = None,
    expert: int | None = None,
    prior: str | None = None,
    temperature: str | float | None = None,
    crops: int = 1,
) -> None:
    """Writes a run's ensemble, or one expert, as a file, and beside it a description (`export.load.description_of`).

    Args:
      run: the run's directory.
      out: the file; one that exists is replaced.
      form: one of `FORMATS`; None for the one that `out` ends in, see `form_of`.
      step: of the checkpoint, as for `load.load`.
      expert: its number; None for the ensemble.
      prior: that the program's probabilities are for, see `priors.read`; None: as trained.
      temperature: see `temperature.find_temperature`.
      crops: see `crops.with_crops`; the program takes the larger images.

    Raises:
      ConfigError: an unknown format or ending, no such expert, or a directory that holds no run.
      CheckpointError: there is no checkpoint, or it is damaged.
      WriteError: the files cannot be written; those that were there before stay.
    """
    path = expand("--out", out)
    form = form or form_of(path)
    if form not in FORMATS:
        raise ConfigError(f"--format={form} must be one of: {', '.join(FORMATS)}")
    directory = RunDir(run)
    loaded = restore(directory, step, crops)
    config, variables = loaded.config, loaded.variables
    if form == "safetensors" and crops != 1:
        raise ConfigError(f"--crops={crops} is for formats that hold a program: leave it out, or choose another format")
    if expert is not None and not 0 <= expert < loaded.plan.num_experts:
        raise ConfigError(f"--expert={expert}: the run has experts 0 to {loaded.plan.num_experts - 1}")
    divide = find_temperature(loaded, expert, temperature)
    if form == "onnx":  # ONNX Runtime convolves no bfloat16, and jax2onnx knows no batch of networks
        config.precision, config.run.strategy = "float32", "unroll"
    plan = with_crops(build.make_plan(config, directory.read_facts()), crops)
    if form == "onnx":  # nor what differs between platforms
        plan = on_every_platform(plan)
    adjust = adjustment(plan, prior)
    model = predictor(plan, adjust, divide)
    chosen = variables if expert is None else one_expert(variables, expert)
    predict = lambda images: jax.nn.softmax(model.scores(chosen, images))  # noqa: E731
    about = describe(config, plan, loaded.step) | {"format": form, "expert": expert}
    about |= {"prior": None if prior is None else name_text(prior)}
    about |= backbone_of(loaded)
    about |= {"temperature": divide, "sets": set_rules(loaded, expert, adjust, divide) if crops == 1 else None}
    content = FORMATS[form](Artifact(predict, plan.facts.image_shape, variables, expert, about))
    about |= {"sha256": hashlib.sha256(content).hexdigest()}
    try:
        write_together({path: content, description_of(path): json.dumps(about, indent=1).encode() + b"\n"})
    except OSError as error:
        raise WriteError(f"--out={path} cannot be written: {error}") from error


def backbone_of(loaded: Loaded) -> dict[str, Any]:
    """Of experts that share a frozen backbone: which one, what identifies its weights, and the adapters in its blocks,
    as JSON; nothing of others."""
    if loaded.plan.trunk is None:
        return {}
    model, source = loaded.config.model, loaded.progress.get("pretrained") or {}
    found = {name: model[name] for name in ("backbone", "depth", "width", "adapters", "adapted_blocks")}
    found["adapter_width"] = getattr(loaded.plan.network.backbone, "adapter_width", 0)
    found |= {name: source[name] for name in ("file", "sha256", "license") if name in source}
    found |= {"name": model.pretrained} if model.pretrained in NAMED else {}
    return {"backbone": found | {"variables_sha256": loaded.progress.get("trunk", "")}}


def form_of(path: pathlib.Path) -> str:
    """The format that a file's name ends in; stablehlo for a name without an ending. Raises ConfigError for another."""
    ending = path.suffix.removeprefix(".")
    if not ending:
        return "stablehlo"
    if ending not in FORMATS:
        endings = ", ".join(f".{name}" for name in FORMATS)
        raise ConfigError(
            f"--out={path} must end in one of: {endings}{did_you_mean(ending, FORMATS)}; for another name pass "
            "--format, too"
        )
    return ending


def set_rules(loaded: Loaded, expert: int | None, adjust: np.ndarray | None, divide: float) -> dict | None:
    """What prediction sets are made with of a program's probabilities p, as JSON; None where nothing is kept that
    they can be calibrated on without the run's data.

    The calibrated probabilities are softmax(scale log p + shift). `thresholds` of their scores (`sets.scores`) are by
    promise and coverage; null: a class is in every set.
    """
    known, facts = trust.kept_calibration(loaded, expert), loaded.plan.facts
    if known is None:
        return None
    prior, scale = trust.train_prior(facts), divide / known.temperature
    shift = priors.log_ratio(prior, priors.own(facts.class_counts, loaded.plan.prior_power()))
    shift = shift if adjust is None else shift - scale * adjust
    thresholds: dict[str, dict[str, list]] = {promise: {} for promise in sets.PROMISES}
    for promise, coverage in itertools.product(sets.PROMISES, sets.COVERAGES):
        limits = sets.calibrate(known.true, known.labels, prior, coverage, promise).thresholds
        listed = [limit if math.isfinite(limit) else None for limit in limits.tolist()]
        thresholds[promise][str(coverage)] = listed
    return {"prior": prior.tolist(), "scale": scale, "shift": shift.tolist(), "thresholds": thresholds}


def one_expert(variables: Any, expert: int) -> Any:
    """The variables of an ensemble of one expert."""
    return variables | jax.tree.map(lambda leaf: leaf[expert][None], without_trunk(variables))


def describe(config: ml_collections.ConfigDict, plan: Plan, step: int) -> dict:
    """What must be known of a model to use it, as JSON."""
    facts, pixels = plan.facts, plan.preprocessing
    return {
        "version": VERSION, "class_names": list(facts.class_names), "image_shape": list(facts.image_shape),
        "resize": pixels.resize, "mean": list(pixels.mean), "std": list(pixels.std),
        "interpolation": pixels.interpolation,
        "classifier": config.model.classifier, "cosine_scale": config.model.cosine_scale,
        "num_experts": config.model.num_experts, "dataset": facts.name, "num_train": facts.num_train,
        "class_counts": list(facts.class_counts), "step": step, "pixels": config.get("pixels", 0),
        "ncl_jax": __version__, "jax": jax.__version__,
        "license": "of the data and of any pretrained weights that the run used",
    }  # fmt: skip
