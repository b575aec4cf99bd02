"""The notebooks in colab/, executed whole on CPU with shrunk settings: only the cells tagged `setup` are left out."""

import os
import pathlib
import pickle
import runpy
import shutil
import signal
import sys

import nbformat
import numpy as np
import programs
import pytest
import tiny
from nbclient import NotebookClient
from PIL import Image
from programs import ROOT

FOLDER = ROOT / "colab"
SHRINK = {
    "model.depth": 8, "model.width": 2, "model.num_experts": 2, "data.augment": "crop_flip", "eval_every": 1,
    "checkpoint_every": 1,
}  # fmt: skip
FIELDS = " ".join(f"--config.{name}={value}" for name, value in SHRINK.items())
# Compiling is most of the time.
QUICK = f"{os.environ['XLA_FLAGS']} --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
SUCCEEDED = nbformat.v4.new_code_cell("assert _exit_code == 0")


def shrunk(name, values):
    """The notebook without its setup, with other values after its parameters, and with its commands' success asked."""
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    cells, notebook.cells = notebook.cells, []
    for cell in cells:
        tags = cell.metadata.get("tags", ())
        if "setup" in tags:
            continue
        notebook.cells.append(cell)
        if "parameters" in tags:
            assert values.keys() <= {line.partition(" = ")[0] for line in cell.source.splitlines()}
            source = "\n".join(f"{name} = {value!r}" for name, value in values.items())
            notebook.cells.append(nbformat.v4.new_code_cell(source))
        elif cell.cell_type == "code" and "!ncl-jax" in cell.source:
            notebook.cells.append(SUCCEEDED)
    return notebook


def execute(name, folder, cache, **values):
    """Executes a notebook in a folder, on this Python; returns what its cells showed as text."""
    notebook = shrunk(name, values)
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": folder}})
    path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    own = {"IPYTHONDIR": str(folder / "ipython"), "PATH": path, "XLA_FLAGS": QUICK}
    client.execute(env=programs.environment(cache) | own)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any("<iframe" in output.get("data", {}).get("text/html", "") for output in outputs)
    return "".join(output.get("text", "") for output in outputs)


def test_the_notebooks_are_what_the_tool_writes():
    tool = runpy.run_path(str(ROOT / "tools" / "make_notebooks.py"))
    assert {path.stem for path in FOLDER.iterdir()} == set(tool["NOTEBOOKS"])
    for name in tool["NOTEBOOKS"]:
        written = (FOLDER / f"{name}.ipynb").read_text()
        assert written == tool["notebook"](name), "python tools/make_notebooks.py writes it again"
        nbformat.validate(nbformat.reads(written, as_version=4))


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("own_images", "https://colab.research.google.com/github/"),
        ("kaggle", "https://kaggle.com/kernels/welcome?src=https://github.com/"),
    ],
)
def test_a_notebook_begins_with_the_link_that_opens_it(name, start):
    first = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells[0].source
    assert f"({start}" in first and first.endswith(f"/ncl_jax/blob/main/colab/{name}.ipynb)")


@pytest.mark.slow
def test_the_quickstart(tmp_path, cache):
    output = execute("quickstart", tmp_path, cache, config="quickstart:epochs=1,method=ce", fields=FIELDS)
    assert "ensemble" in output and "T-shirt/top" in output.splitlines()[-1]


def write_cifar100(folder):
    """A data set in the layout of CIFAR-100's unpacked archive: five training images a class, and one to test."""
    rng = np.random.default_rng(0)
    for name, each in (("train", 5), ("test", 1)):
        rows = rng.integers(0, 256, (100 * each, 3072), np.uint8)
        (folder / name).write_bytes(pickle.dumps({b"data": rows, b"fine_labels": [*range(100)] * each}, 2))
    (folder / "meta").write_bytes(pickle.dumps({b"fine_label_names": [b"class %d" % i for i in range(100)]}, 2))


@pytest.mark.slow
def test_cifar100lt_goes_on_where_the_runtime_was_lost(tmp_path, cache, monkeypatch):
    write_cifar100(tmp_path)
    config, run = "cifar100lt:imbalance=1,epochs=3,method=ce", tmp_path / "drive" / "run"
    begun = [sys.executable, "-m", "ncl_jax.main", f"--config={config}", f"--workdir={run}", *FIELDS.split()]
    monkeypatch.setenv("XLA_FLAGS", QUICK)
    programs.stop_after_epoch([*begun, f"--config.data.dir={tmp_path}"], cache, run, 2, signal.SIGKILL)
    output = execute("cifar100lt", tmp_path, cache, config=config, data=".", run=str(run), fields=FIELDS)
    assert "continuing at step" in output and "ensemble" in output


@pytest.fixture
def pictures(tmp_path):
    """A folder of classes, of the embedded images: 12, 8 and 4 to train and 4 to test; and a folder without classes."""
    for split, (images, labels) in tiny.load_source("fashion_mnist_lt", "").splits.items():
        for label, count in enumerate((12, 8, 4)):
            for number, image in enumerate(images[labels == label][: count if split == "train" else 4]):
                path = tmp_path / "pictures" / split / f"class {label}" / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path)
    shutil.copytree(tmp_path / "pictures" / "test" / "class 0", tmp_path / "new")
    return tmp_path / "pictures"


def assert_own_images(output, run):
    """What the notebook for own images must have shown and left."""
    for shown in ("imbalance factor 3", "ensemble", "new/0.png: class"):
        assert shown in output
    assert sum("new/" in line and " class " in line for line in output.splitlines()[-4:]) == 4
    assert (run / "model.stablehlo").exists()


OWN = {"new": "new", "arguments": "epochs=1,method=ce", "fields": FIELDS}


@pytest.mark.slow
def test_own_images_from_a_zip_file(tmp_path, pictures, cache):
    archive = shutil.make_archive(tmp_path / "pictures", "zip", tmp_path, "pictures")
    shutil.rmtree(pictures)
    values = OWN | {"archive": archive, "images": "images/pictures", "run": str(tmp_path / "a drive" / "run")}
    assert_own_images(execute("own_images", tmp_path, cache, **values), tmp_path / "a drive" / "run")


def test_kaggles_code_is_that_of_own_images_from_the_folder_on():
    """So that one of the two is executed for both."""
    colab, kaggle = (
        [cell for cell in nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells if cell.cell_type == "code"]
        for name in ("own_images", "kaggle")
    )
    parameters = [cell for cell in kaggle if "parameters" in cell.metadata.get("tags", ())]
    assert {line.partition(" = ")[0] for line in parameters[0].source.splitlines()} == {*OWN, "images", "run"}
    rest = [cell.source for cell in kaggle if not cell.metadata.get("tags")]
    assert len(rest) > 5 and rest == [cell.source for cell in colab][-len(rest) :]
