"""ONNX by jax2onnx: one graph with its weights, for ONNX Runtime and whatever else reads it, and any number of images.

To use it: `onnxruntime.InferenceSession(FILE).run(None, {"images": images})`; that needs ONNX Runtime alone.
"""

import json
import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ncl_jax.data import sources
from ncl_jax.data.images.decode import prepare
from ncl_jax.data.types import Request
from ncl_jax.errors import ConfigError, ExportError, one_line
from ncl_jax.export.artifact import Artifact
from ncl_jax.runtime import extras

OPSET = 21
BATCHES = (1, 5)  # images in each comparison
MOST = 1e-4  # that a log-probability may be off


def serialize(artifact: Artifact) -> bytes:
    """The graph: `images` uint8 `[batch, H, W, 3]` in, `probabilities` float32 `[batch, C]` out.

    What must be known to use it is in `metadata_props`, as JSON where it is not text.

    Raises:
      ConfigError: the packages are not installed.
      ExportError: the network cannot be converted, or the graph gives other probabilities than JAX, see `check`.
    """
    content = convert(artifact)
    check(content, artifact)
    return content


def convert(artifact: Artifact) -> bytes:
    """The graph as jax2onnx makes it; see `serialize`."""
    logging.getLogger("jax2onnx").setLevel(logging.CRITICAL)  # it tells of libraries that it could not find
    try:
        import jax2onnx
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"--format=onnx needs packages ({error}): {extras.install('onnx')}") from error
    images = jax.ShapeDtypeStruct(("batch", *artifact.image_shape), jnp.uint8)
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["probabilities"], "model_name": "ncl_jax"}
    try:
        model = jax2onnx.to_onnx(artifact.predict, [images], opset=OPSET, **names)
        for name, value in artifact.about.items():
            model.metadata_props.add(key=name, value=value if isinstance(value, str) else json.dumps(value))
        return model.SerializeToString()
    except Exception as error:  # whatever an operation provokes that it does not know, or more than 2 GiB
        raise ExportError(f"--format=onnx: jax2onnx cannot convert this network: {one_line(error)}") from error


def check(content: bytes, artifact: Artifact) -> None:
    """Compares a graph with the model on real images, in batches of several sizes.

    The run's own images may be elsewhere by now: these are test images of the data set that comes with the package,
    brought to the model's size by its test transform.

    Raises:
      ExportError: ONNX Runtime cannot run it, or one of its log-probabilities differs from JAX's by more than `MOST`.
    """
    images = sample(artifact)
    expected = np.asarray(jax.jit(artifact.predict)(images))
    difference = float(np.abs(_log(run(content, images)) - _log(expected)).max())
    if not difference <= MOST:
        raise ExportError(
            f"--format=onnx: ONNX Runtime's log-probabilities differ from JAX's by {difference:.2g}, more than {MOST}: "
            "nothing was written"
        )


def sample(artifact: Artifact) -> np.ndarray:
    """Images to compare on, as many as `BATCHES` need, of different classes: uint8 `[B, H, W, 3]`."""
    images = sources.load(Request("fashion_mnist_lt")).splits["test"].images
    rows = np.linspace(0, len(images) - 1, sum(BATCHES)).astype(int)
    shape = artifact.image_shape
    return prepare(
        [images[row] for row in rows],
        shape,
        artifact.about["resize"],
        shape[0],
        artifact.about.get("interpolation", "bilinear"),
    )


def run(content: bytes, images: np.ndarray) -> np.ndarray:
    """The probabilities `[B, C]` that ONNX Runtime gives on the CPU, in `BATCHES`. Raises ExportError."""
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        parts = np.split(images, np.cumsum(BATCHES)[:-1])
        return np.concatenate([session.run(None, {"images": part})[0] for part in parts])
    except Exception as error:  # its own classes, which derive from nothing more
        raise ExportError(f"--format=onnx: ONNX Runtime cannot run the graph: {one_line(error)}") from error


def _log(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
