"""NCL and NCL++: nested collaborative learning for long-tailed visual recognition, in JAX.

Axes used throughout: E experts, N copies of an image, B batch, C classes, H hard categories, D features, Q queue.
"""

from typing import TYPE_CHECKING, Any

from ncl_jax._version import __version__

if TYPE_CHECKING:
    from ncl_jax.exported import load_exported
    from ncl_jax.model import Model, load

__all__ = ["Model", "__version__", "load", "load_exported"]


def __getattr__(name: str) -> Any:
    # Commands import the package before they can answer Ctrl-C: JAX comes only when it is needed.
    if name in ("Model", "load"):
        from ncl_jax import model

        return getattr(model, name)
    if name == "load_exported":
        from ncl_jax import exported

        return exported.load_exported
    raise AttributeError(f"module 'ncl_jax' has no attribute {name!r}")
