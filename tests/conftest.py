"""Shared settings: eight CPU devices in the tests' process, the reference figures, a compilation cache."""

import pathlib
import signal
import zipfile

import jax
import pytest

# Where the tests run in the background it is ignored, and would be so in the programs that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)

GOLDEN = pathlib.Path(__file__).parent / "golden"


def pytest_collection_modifyitems(items):
    """The slow ones first: a file stays in one worker, and the last one should be short."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture
def golden():
    """Loads a reference file of the authors' program by name."""
    import numpy as np

    return lambda name: np.load(GOLDEN / f"{name}.npz")


@pytest.fixture
def old_run(tmp_path):
    """A finished run of an older version: quickstart's method=ncl, tiny, two experts with projection heads."""
    with zipfile.ZipFile(pathlib.Path(__file__).parent / "data" / "run_v0.zip") as file:
        file.extractall(tmp_path)
    return tmp_path / "run_v0"


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A compilation cache for the programs that the tests start."""
    return tmp_path_factory.mktemp("cache")
