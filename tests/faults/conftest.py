"""The finished run that the rows of the tables spoil copies of."""

import shutil

import harness
import pytest


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished run; not to be changed."""
    return harness.finished_run(tmp_path_factory.mktemp("faults") / "run")


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it."""
    return shutil.copytree(finished, tmp_path / "run")
