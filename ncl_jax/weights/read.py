"""Files of weights: names to arrays, whoever wrote them. PyTorch is not needed."""

import hashlib
from pathlib import Path

import numpy as np

from ncl_jax.errors import DataError
from ncl_jax.weights import torch_file


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file by name: safetensors, or PyTorch's .pth in either format (`torch_file.read`).

    Raises:
      DataError: the file cannot be read, is damaged, or asks for anything but tensors.
    """
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    if torch_file.is_zip(head) or torch_file.is_legacy(head):
        return torch_file.read(path)
    if head[8:9] != b"{":
        raise DataError(f"{path} holds no weights: give a file in safetensors or PyTorch's format (.safetensors, .pth)")
    return _read_safetensors(path)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is cut short or damaged ({error})") from error


def digest(path: Path) -> str:
    """The file's SHA-256, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
