"""Files of weights: names to arrays, whoever wrote them. PyTorch is not needed."""

import hashlib
from pathlib import Path

import numpy as np

from ncl_jax.errors import DataError, one_line
from ncl_jax.runtime.files import open_regular
from ncl_jax.weights import torch_file

MOST_OF_A_NAME = 300  # characters


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file by name: safetensors, or PyTorch's .pth in either format (`torch_file.read`).

    Raises:
      DataError: the file cannot be read, is damaged, asks for anything but tensors, or has a name that no module has.
    """
    try:
        with open_regular(path) as file:
            head = file.read(16)
        tensors = _reader(head, path)(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    for name, tensor in tensors.items():
        if len(name) > MOST_OF_A_NAME or not name.isprintable():
            raise DataError(f"{path} has a tensor with the name {name[:40]!a}, which no network has")
        if tensor.dtype.kind == "c":
            raise DataError(f"{path} has complex numbers in {name}, which no network here has")
    return tensors


def _reader(head, path):
    if head[8:9] == b"{":  # before it the header's length, whose bytes may be any
        return _read_safetensors
    if torch_file.is_zip(head) or torch_file.is_legacy(head):
        return torch_file.read
    raise DataError(f"{path} holds no weights: pass a file in safetensors or PyTorch's format (.safetensors, .pth)")


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except Exception as error:  # of many types, among them NumPy's for numbers of eight bits, which it does not have
        raise DataError(
            f"{path} is cut short or damaged, or has numbers of a type that is not known here ({one_line(error)})"
        ) from error


def digest(path: Path) -> str:
    """The file's SHA-256, in hexadecimal digits. Raises DataError where it cannot be read."""
    try:
        with open_regular(path) as file:
            found = hashlib.sha256()
            while chunk := file.read(1 << 20):
                found.update(chunk)
            return found.hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
