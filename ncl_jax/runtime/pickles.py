"""Pickles of others: read without running anything that they ask for."""

import pickle
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from ncl_jax.errors import DataError


class RestrictedUnpickler(pickle.Unpickler):
    """Builds numbers, strings, bytes and containers of them; of classes and functions only what stands in a table.

    Args:
      file: the pickle.
      allowed: what stands in for a class or function, by module and name. It must have no attributes that a pickle
        could set: a bound method, an object with `__slots__ = ()`, a built-in type.
      reason: why anything else is refused, for the message.
      encoding: of Python 2's strings, see `pickle.Unpickler`.
      persistent: what `persistent_load` gives; None: it is refused.
    """

    def __init__(
        self,
        file: BinaryIO,
        allowed: Mapping[tuple[str, str], Any],
        reason: str,
        *,
        encoding: str = "utf-8",
        persistent: Callable[[Any], Any] | None = None,
    ):
        super().__init__(file, encoding=encoding)
        self._allowed, self._reason, self._persistent = allowed, reason, persistent

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for `module.name`. Raises DataError if there is none."""
        if (module, name) not in self._allowed:
            raise DataError(f"refused to unpickle {module}.{name}: {self._reason}")
        return self._allowed[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """See `pickle.Unpickler`. Raises DataError where the format has no such thing."""
        if self._persistent is None:
            raise DataError(f"refused to unpickle the reference {pid!r:.100}: {self._reason}")
        return self._persistent(pid)
