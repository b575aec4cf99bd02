"""Images and labels: dataset readers, the long-tailed subset, data loaders, samplers, augmentation on the device."""

import importlib
from typing import Any

__all__ = ["augment", "dataset", "feeds", "images", "longtail", "samplers", "sources", "types"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'ncl_jax.data' has no attribute {name!r}")
    return importlib.import_module(f"ncl_jax.data.{name}")
