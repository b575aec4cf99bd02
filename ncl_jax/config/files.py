"""Configuration files: found by path or by name, and run with errors that name the file and the line."""

import hashlib
import importlib.util
import os
import pathlib
import traceback
from types import ModuleType

import ml_collections

from ncl_jax.errors import ConfigError, NclError, did_you_mean
from ncl_jax.runtime.files import expand

LONGEST_NAME = 255  # bytes of a directory's name
INSTALLED = pathlib.Path(__file__).parent.parent / "configs"


def names() -> list[str]:
    """The names of the installed configurations."""
    return sorted(path.stem for path in INSTALLED.glob("*.py"))


def find(name: str) -> pathlib.Path:
    """The file of a configuration: the installed one of this name, or `name` itself.

    Raises:
      ConfigError: there is neither.
    """
    if name in names():
        return INSTALLED / f"{name}.py"
    path = expand("--config", name)
    if path.is_file():
        return path
    near, installed = did_you_mean(name, names()), ", ".join(names())
    raise ConfigError(f"the configuration file {name!r} does not exist{near}; installed are: {installed}")


def run_name(config: str) -> str:
    """The name of a run's directory: `configs/cifar100lt.py:imbalance=50` gives `cifar100lt-imbalance=50`.

    One that is too long for a directory is cut, and ends in a checksum of the whole.
    """
    path, _, arguments = config.partition(":")
    name = "-".join(filter(None, [pathlib.Path(path).stem, arguments.replace("/", "_").replace('"', "")]))
    whole = os.fsencode(name)
    if len(whole) <= LONGEST_NAME:
        return name
    return f"{whole[: LONGEST_NAME - 30].decode(errors='ignore')}-{hashlib.sha256(whole).hexdigest()[:8]}"


def load(config: str) -> ml_collections.ConfigDict:
    """The configuration of `FILE[:ARGUMENTS]` or `NAME[:ARGUMENTS]`: what the file's `get_config(ARGUMENTS)` returns.

    Raises:
      ConfigError: there is no such file, it cannot be run, or it returns something else.
    """
    name, _, arguments = config.partition(":")
    path = find(name)
    get_config = getattr(_run(path, lambda: _import(path)), "get_config", None)
    if not callable(get_config):
        raise ConfigError(f"{path} defines no function get_config(arguments): see configs/quickstart.py")
    result = _run(path, lambda: get_config(arguments or None))
    if not isinstance(result, ml_collections.ConfigDict):
        raise ConfigError(f"{path}: get_config returned {type(result).__name__}, not the ConfigDict of base_config")
    return result.lock()


def _import(path: pathlib.Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError("it is not a Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run(path, function):
    """The function's result; whatever the file's code raises becomes a ConfigError that names the line."""
    try:
        return function()
    except NclError:
        raise
    except Exception as error:  # a configuration file is the user's program
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        where = f"{path}, line {line}" if line else str(path)
        text = " ".join(str(error).split())
        raise ConfigError(f"{where}: {type(error).__name__}: {text}") from error
