"""The wheel, as a user gets it: built, installed elsewhere, and trained with, in another directory."""

import os
import subprocess
import sys
import tomllib
import zipfile

import pytest
from programs import ROOT, SHRINK


@pytest.mark.slow
def test_an_installed_wheel_trains_in_any_directory(tmp_path, cache):
    """The dependencies are this environment's; the package is only the wheel's."""
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", tmp_path, str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("ncl_jax-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"ncl_jax/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")} <= set(names)
    kernels = {"ncl_jax/models/cpu/conv.cc", "ncl_jax/models/cpu/vectors.h"}
    assert kernels | {"ncl_jax/data/fashion_mnist_lt.npz"} <= set(names)
    assert not any(name.startswith(("tests", "benchmarks", "configs")) for name in names)
    target = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", target, wheel], check=True)
    fields = SHRINK | {"epochs": 1, "optim.milestones": "()", "model.num_experts": 1}
    overrides = [f"--config.{name}={value}" for name, value in fields.items()]
    command = [target / "bin" / "ncl-jax", "train", "--config=quickstart:method=ce", *overrides]
    env = os.environ | {"PYTHONPATH": str(target), "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(cache)}
    (tmp_path / "elsewhere").mkdir()
    result = subprocess.run(command, cwd=tmp_path / "elsewhere", env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "run directory runs/quickstart-method=ce" in result.stdout
    assert (tmp_path / "elsewhere" / "runs" / "quickstart-method=ce" / "results.json").exists()


def test_an_editable_install_is_a_path_not_an_import_hook():
    """A hook comes after the script's own folder, in which a clone named ncl_jax is a namespace package."""
    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert built["package-dir"] == {"": "."}
