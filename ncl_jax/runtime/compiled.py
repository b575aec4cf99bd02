"""JAX's cache of compiled programs: an entry that cannot be read or was cut short is replaced.

JAX warns of such an entry, compiles, and leaves it as it is, because there is a file by that name: so it would compile
in every later program as well. The warning comes before it compiles; once the entry is gone, it writes a new one.
"""

import contextlib
import functools
import glob
import pathlib
import re
import warnings
from typing import Any

import jax

from ncl_jax.runtime import console

WARNING = "Error (reading|writing) persistent compilation cache entry for '(.*?)': (.*)"


def heal() -> None:
    """From now on such a warning is one line for all entries, and the entry is removed."""
    warnings.filterwarnings("always", message=WARNING)  # an error otherwise, where the user asks for errors
    if isinstance(warnings.showwarning, _Hook):
        return
    warnings.showwarning = _Hook(warnings.showwarning)


class _Hook:
    """Shows warnings; see `warnings.showwarning`."""

    def __init__(self, show: Any):
        self._show = show

    def __call__(self, message: Warning | str, *rest: Any, **named: Any) -> None:
        found = re.match(WARNING, str(message), re.DOTALL)
        if not found:
            return self._show(message, *rest, **named)
        folder = jax.config.jax_compilation_cache_dir or ""  # type: ignore[attr-defined]
        verb, module, reason = found.groups()
        healed = _remove(pathlib.Path(folder), module) and verb == "reading"
        _say(folder, "" if healed else " ".join(reason.split())[:200])


def _remove(folder: pathlib.Path, module: str) -> bool:
    """Removes the entries of a program, if there are any; which of them it was, JAX does not say."""
    removed = False
    with contextlib.suppress(OSError):
        for path in folder.glob(f"{glob.escape(module)}-*-cache"):
            path.unlink(missing_ok=True)
            removed = True
    return removed


@functools.cache
def _say(folder: str, reason: str) -> None:
    if reason:
        text = f"note: compiled programs cannot be kept in {folder}, which makes starts slower: {reason}"
    else:
        text = f"note: damaged compiled programs in {folder} are removed and compiled again"
    console.say(text, error=True)
