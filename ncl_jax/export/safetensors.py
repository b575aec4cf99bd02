"""Weights as safetensors: for PyTorch, all experts in the names of the authors' program, or one in torchvision's; of
experts that share a frozen backbone what is theirs."""

import json
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from safetensors.numpy import save

from ncl_jax.errors import ExportError
from ncl_jax.export.artifact import Artifact
from ncl_jax.models.experts import take_expert, without_trunk
from ncl_jax.weights import torch_names


def serialize(artifact: Artifact) -> bytes:
    """The file's content: float32, convolutions OIHW, linear layers [out, in].

    All experts: `backbone.E.layer1.0.conv1.weight`, `classifier.E.weight` (with self-supervision, as the authors have
    it, `classifier_ce.E.weight`, and `classifier.E.0.weight` for the projection). One expert: torchvision's names with
    `fc` for a linear classifier, and `classifier` for a cosine one, which torchvision has not.

    Raises:
      ExportError: the networks have no batch normalisation, and so no names there.
    """
    if "trunk" in artifact.variables:
        return beside_trunk(artifact)
    variables = jax.device_get(artifact.variables)
    if "backbone" not in variables["batch_stats"]:
        raise ExportError(
            "--format=safetensors has names for ResNets alone, not for transformers and ConvNeXts: choose stablehlo or "
            "onnx"
        )
    if artifact.expert is None:
        modules = torch_names.SELF_SUPERVISED if "projection" in variables["params"] else torch_names.SUPERVISED
        tensors = torch_names.to_torch(variables, modules)
    else:
        head = "fc" if artifact.about["classifier"] == "linear" else "classifier"
        tensors = torch_names.to_torchvision(variables, artifact.expert, head)
    return save(tensors, _metadata(artifact.about))


def beside_trunk(artifact: Artifact) -> bytes:
    """What experts on a frozen backbone have beside it, heads and adapters, under our own names and as we have it:
    `params/backbone/layer4_11/adapter/down/kernel [E, in, out]`, `params/classifier/kernel [E, D, C]`; of one expert
    without the leading axis. The metadata's `backbone` says which one it is, and what identifies its weights."""
    variables = jax.device_get(without_trunk(artifact.variables))
    if artifact.expert is not None:
        variables = take_expert(variables, artifact.expert)
    flat = flatten_dict(variables, sep="/")
    return save({name: np.ascontiguousarray(leaf) for name, leaf in flat.items()}, _metadata(artifact.about))


def _metadata(about: dict[str, Any]) -> dict[str, str]:
    return {name: json.dumps(value) if isinstance(value, dict) else str(value) for name, value in about.items()}
