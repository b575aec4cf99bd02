"""JAX's settings that decide what a run computes, or whether it can: ours, whatever the environment says.

Numbers must not depend on a variable that was set for another program, and a checkpoint of one shell must fit the
next. A command drops such variables before JAX is imported; functions of the Python interface hold the settings only
while they run, in their own thread, and leave the user's as they are.
"""

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

SETTINGS: dict[str, Any] = {
    "jax_enable_x64": False,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_enable_custom_prng": False,
    "jax_legacy_prng_key": "allow",
    "jax_random_seed_offset": 0,
    "jax_default_matmul_precision": None,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_disable_jit": False,
    "jax_debug_nans": False,  # a run checks its figures itself, and says which step it was
    "jax_debug_infs": False,
    "jax_debug_key_reuse": False,
    "jax_check_tracer_leaks": False,
    "jax_transfer_guard": "allow",
    "jax_transfer_guard_host_to_device": "allow",
    "jax_transfer_guard_device_to_device": "allow",
    "jax_transfer_guard_device_to_host": "allow",
}
OFF = ("0", "false", "no", "off", "f", "n", "")  # as JAX reads them, and nothing
SCREENS = {"MPLBACKEND": "agg"}  # plots are files: no screen, and no name that Matplotlib does not know


def forget() -> list[str]:
    """Drops the variables from the environment, for this program and those that it starts; returns what was dropped.

    To be called before JAX and Matplotlib are imported. Those that say what holds anyway are not listed.
    """
    os.environ.update({name: value for name, value in SCREENS.items() if name in os.environ})
    dropped = {name.upper(): os.environ.pop(name.upper(), None) for name in SETTINGS}
    return [f"{name}={value}" for name, value in dropped.items() if value is not None and not _ours(name, value)]


def keep_search_path() -> None:
    """Lets the programs that this one starts, such as workers, look for modules in the working directory only where it
    does so itself: Python would run what lies there under a library's name."""
    with contextlib.suppress(OSError):  # it has been deleted
        if not {"", os.getcwd()} & set(sys.path):  # noqa: PTH109 - as it stands in the path
            os.environ["PYTHONSAFEPATH"] = "1"


def _ours(name: str, value: str) -> bool:
    wanted, word = SETTINGS[name.lower()], value.lower()
    return word in OFF if not wanted else word == str(wanted).lower() or (wanted is True and word not in OFF)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """While active, JAX computes in this thread by our settings."""
    import jax  # commands call `forget` before

    with contextlib.ExitStack() as stack:
        for name, value in SETTINGS.items():
            context = getattr(jax, name.removeprefix("jax_"), None)
            if context is not None:  # a few have none: they are for the environment alone
                stack.enter_context(context(value))
        yield


def holding(function: Callable[P, R]) -> Callable[P, R]:
    """A function that runs while the settings are `held`."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with held():
            return function(*args, **kwargs)

    return wrapped
