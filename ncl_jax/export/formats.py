"""Export formats by name. One more is one file and one line here."""

from collections.abc import Callable

from ncl_jax.export import onnx, safetensors, stablehlo
from ncl_jax.export.artifact import Artifact

# Each turns a model into the content of a file.
FORMATS: dict[str, Callable[[Artifact], bytes]] = {
    "stablehlo": stablehlo.serialize,
    "safetensors": safetensors.serialize,
    "onnx": onnx.serialize,
}
