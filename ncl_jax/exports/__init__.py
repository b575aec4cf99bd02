"""A run's model as one file, for use without the run. One more format is one file and one line in `FORMATS`."""

import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Literal

import jax
import ml_collections

from ncl_jax import build, calibration, inputs
from ncl_jax._version import __version__
from ncl_jax.config import expand
from ncl_jax.data.pipeline import Facts
from ncl_jax.errors import ConfigError, WriteError
from ncl_jax.exported import VERSION, description_of
from ncl_jax.exports import onnx, stablehlo, torch
from ncl_jax.exports.artifact import Artifact
from ncl_jax.model import restore
from ncl_jax.models.layers import XLA
from ncl_jax.rundir import RunDir

# Each turns a model into the content of a file.
FORMATS: dict[str, Callable[[Artifact], bytes]] = {
    "stablehlo": stablehlo.serialize,
    "safetensors": torch.serialize,
    "onnx": onnx.serialize,
}


def export(
    run: str | pathlib.Path,
    out: str | pathlib.Path,
    form: str | None = None,
    step: int | Literal["best"] | None = None,
    expert: int | None = None,
    force: bool = False,
    prior: str | None = None,
    temperature: str | float | None = None,
) -> None:
    """Writes a run's ensemble, or one expert, as a file, and beside it a description (`exported.description_of`).

    Args:
      run: the run's directory.
      out: the file.
      form: one of `FORMATS`; None for the one that `out` ends in, stablehlo where it ends in none of them.
      step: of the checkpoint, as for `model.load`.
      expert: its number; None for the ensemble.
      force: write over what is there.
      prior: that the program's probabilities are for, see `priors.read`; None: as trained.
      temperature: see `calibration.resolve`.

    Raises:
      ConfigError: an unknown format, a file that exists, no such expert, or a directory that holds no run.
      CheckpointError: there is no checkpoint, or it is damaged.
    """
    path = expand("--out", out)
    ending = path.suffix.removeprefix(".")
    form = form or (ending if ending in FORMATS else "stablehlo")
    if form not in FORMATS:
        raise ConfigError(f"--format={form} must be one of: {', '.join(FORMATS)}")
    if path.exists() and not force:
        raise ConfigError(f"--out={path} exists already: give another name, or --force")
    directory = RunDir(run)
    config, facts, weights = restore(directory, step)
    if expert is not None and not 0 <= expert < config.model.num_experts:
        raise ConfigError(f"--expert={expert}: the run has experts 0 to {config.model.num_experts - 1}")
    adjust = build.adjustment(config, facts, prior)
    divide = calibration.resolve(directory, config, facts, weights.variables, weights.step, expert, temperature)
    if form == "onnx":  # ONNX Runtime convolves no bfloat16, and jax2onnx knows no batch of networks
        config.precision, config.run.strategy = "float32", "unroll"
    # XLA's operations: our own are compiled for one CPU.
    predictor = build.predictor(config, facts.num_classes, ops=XLA, adjust=adjust, temperature=divide)
    chosen = weights.variables if expert is None else jax.tree.map(lambda leaf: leaf[expert][None], weights.variables)
    predict = lambda images: jax.nn.softmax(predictor.scores(chosen, images))  # noqa: E731
    about = describe(config, facts, weights.step) | {"format": form, "expert": expert, "prior": prior}
    about |= {"temperature": divide}
    content = FORMATS[form](Artifact(predict, facts.image_shape, weights.variables, expert, about))
    about |= {"sha256": hashlib.sha256(content).hexdigest()}
    try:
        path.write_bytes(content)
        description_of(path).write_text(json.dumps(about, indent=1) + "\n")
    except OSError as error:
        raise WriteError(f"--out={path} cannot be written: {error}") from error


def describe(config: ml_collections.ConfigDict, facts: Facts, step: int) -> dict:
    """What must be known of a model to use it, as JSON."""
    resize, _ = inputs.image_sizes(config, facts)
    return {
        "version": VERSION, "class_names": list(facts.class_names), "image_shape": list(facts.image_shape),
        "resize": resize, "mean": list(config.data.mean), "std": list(config.data.std),
        "classifier": config.model.classifier, "cosine_scale": config.model.cosine_scale,
        "num_experts": config.model.num_experts, "dataset": facts.name, "num_train": facts.num_train,
        "class_counts": list(facts.class_counts), "step": step, "ncl_jax": __version__, "jax": jax.__version__,
        "license": "of the data and of any pretrained weights that the run used",
    }  # fmt: skip
