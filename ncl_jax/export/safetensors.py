"""Weights for PyTorch, as safetensors: all experts in the names of the authors' program, or one in torchvision's."""

import jax
from safetensors.numpy import save

from ncl_jax.errors import ExportError
from ncl_jax.export.artifact import Artifact
from ncl_jax.weights import torch_names


def serialize(artifact: Artifact) -> bytes:
    """The file's content: float32, convolutions OIHW, linear layers [out, in].

    All experts: `backbone.E.layer1.0.conv1.weight`, `classifier.E.weight` (with self-supervision, as the authors have
    it, `classifier_ce.E.weight`, and `classifier.E.0.weight` for the projection). One expert: torchvision's names with
    `fc` for a linear classifier, and `classifier` for a cosine one, which torchvision has not.

    Raises:
      ExportError: the networks have no batch normalisation, and so no names there.
    """
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
    return save(tensors, {name: str(value) for name, value in artifact.about.items()})
