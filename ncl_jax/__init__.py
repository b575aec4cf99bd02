"""NCL and NCL++: nested collaborative learning for long-tailed visual recognition, in JAX.

Axes used throughout: E experts, N copies of an image, B batch, C classes, H hard categories, D features, Q queue.
"""

from ncl_jax._version import __version__
from ncl_jax.model import Model, load

__all__ = ["Model", "__version__", "load"]
