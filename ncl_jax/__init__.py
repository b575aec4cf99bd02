"""NCL and NCL++: nested collaborative learning for long-tailed visual recognition, in JAX.

Axes used throughout: E experts, N copies of an image, B batch, C classes, H hard categories, D features, Q queue.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ncl_jax._version import __version__

if TYPE_CHECKING:
    from ncl_jax import data, errors, losses, methods, models
    from ncl_jax.evaluation import metrics
    from ncl_jax.export.load import load_exported
    from ncl_jax.runs.load import Model, load
    from ncl_jax.runs.train import train

# Commands import the package before they can answer Ctrl-C, and exported models need little of it: each name is
# imported when it is first asked for. An empty second part: the module itself.
_PLACES = {
    "Model": ("ncl_jax.runs.load", "Model"),
    "data": ("ncl_jax.data", ""),
    "errors": ("ncl_jax.errors", ""),
    "load": ("ncl_jax.runs.load", "load"),
    "load_exported": ("ncl_jax.export.load", "load_exported"),
    "losses": ("ncl_jax.losses", ""),
    "methods": ("ncl_jax.methods", ""),
    "metrics": ("ncl_jax.evaluation.metrics", ""),
    "models": ("ncl_jax.models", ""),
    "train": ("ncl_jax.runs.train", "train"),
}

__all__ = [
    "Model", "__version__", "data", "errors", "load", "load_exported", "losses", "methods", "metrics", "models",
    "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'ncl_jax' has no attribute {name!r}")
    module, attribute = _PLACES[name]
    found = importlib.import_module(module)
    return getattr(found, attribute) if attribute else found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
