"""Writes the notebooks in colab/ from their sources here, with links to `project.urls.Repository` of pyproject.toml.

python tools/make_notebooks.py
"""

import json
import pathlib
import tomllib
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parent.parent


class Cell(NamedTuple):
    """Markdown, or code with a tag for the tests: "setup" is skipped there, "parameters" followed by their own."""

    kind: str
    source: str
    tag: str = ""


class Site(NamedTuple):
    """Where a notebook runs: its name, the address that opens one (before `.../blob/main/FILE`), its metadata."""

    name: str
    address: str
    metadata: dict


def text(source: str) -> Cell:
    """A cell of Markdown."""
    return Cell("markdown", source.strip())


def code(source: str, tag: str = "") -> Cell:
    """A cell of code."""
    return Cell("code", source.strip(), tag)


def read_address() -> str:
    """The repository's address: the one place where it stands."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]


ADDRESS = read_address()
ON_COLAB = ADDRESS.replace("github.com", "colab.research.google.com/github", 1)
COLAB, COLAB_TPU = Site("Colab", ON_COLAB, {}), Site("Colab", ON_COLAB, {"accelerator": "TPU"})
KAGGLE = Site(
    "Kaggle",
    f"https://kaggle.com/kernels/welcome?src={ADDRESS}",
    {"kaggle": {"accelerator": "none", "isInternetEnabled": True}},
)
TPU_ON_COLAB = "Runtime > Change runtime type > TPU; a GPU (`ncl-jax[cuda12]` below) or a CPU (`ncl-jax`) works too."
INSTALL = code(f'%pip install -q "ncl-jax[tpu] @ git+{ADDRESS}"', "setup")
INSTALL_LITE = code(f'%pip install -q "ncl-jax[lite,hub] @ git+{ADDRESS}"', "setup")
DRIVE = code("""
from google.colab import drive

drive.mount("/content/drive")
""", "setup")  # fmt: skip
FIELDS = 'fields = ""  # any field: "--config.optim.batch_size=128 --config.seed=1"; ncl-jax train --help lists them'
ONE_PROCESS = (
    "Only one process at a time can use a TPU. From here on it is this notebook: to train again, restart its session."
)
SHOW = code("""
import html
import pathlib

from IPython.display import HTML, Image, display

display(Image(f"{run}/curve.png"))
page = html.escape(pathlib.Path(f"{run}/report.html").read_text())
HTML(f'<iframe srcdoc="{page}" width="100%" height="900"></iframe>')
""")
FEATURES = """
Training takes a network that was trained on ImageNet (EfficientNet-Lite0, 17 MB) as it is. Its features of your
photographs are computed once, and classifiers on them train in seconds, so that a CPU is enough: a few thousand
photographs take minutes in all.
"""
ARGUMENTS = 'arguments = "method=ncl_supervised"  # also backbone=dinov2_small, image_size=64, epochs=100, seed=1'

QUICKSTART = [
    text(f"""
# NCL on long-tailed images

On the images that come with the package: Fashion-MNIST, ten classes of 500 to 5 images. {TPU_ON_COLAB}
"""),
    INSTALL,
    code(f"""
config = "quickstart"  # "quickstart:method=ce,seed=1" for another method or seed
run = "runs/quickstart"  # the run's directory
{FIELDS}
""", "parameters"),
    text("## Train\n\nThe same cell continues a run that was stopped."),
    code('!ncl-jax train --config="{config}" --workdir="{run}" {fields}'),
    SHOW,
    text(f"## Use the model\n\n{ONE_PROCESS}"),
    code("""
import ncl_jax
from ncl_jax.data import sources

model = ncl_jax.load(run)
images = sources.load(sources.Request("fashion_mnist_lt")).splits["test"].images[:8]
print([model.class_names[i] for i in model(images).argmax(-1)])
"""),
]  # fmt: skip

CIFAR100LT = [
    text(f"""
# NCL on CIFAR-100-LT, continued over several sessions

The run is kept on Google Drive. When the runtime is lost, run all cells again: training resumes at the last checkpoint,
and ends with what an unbroken run ends with. {TPU_ON_COLAB}
"""),
    INSTALL,
    DRIVE,
    code(f"""
config = "cifar100lt:imbalance=100,epochs=400"  # also method=nclpp, seed=1; fewer epochs scale the schedule
data = "data"  # where CIFAR's archive lies, or is fetched to
run = "/content/drive/MyDrive/ncl_jax/cifar100lt"  # the run's directory
{FIELDS}
""", "parameters"),
    text("## Train, or continue"),
    code('!ncl-jax train --config="{config}" --workdir="{run}" --config.data.dir="{data}" {fields}'),
    text("## See\n\nWhat a run leaves when it has ended; `ncl-jax evaluate` makes it for one that has not."),
    SHOW,
]  # fmt: skip


def own_images(train: str) -> list[Cell]:
    """From a folder `images` to an exported model, after the parameters; `train` is said where training begins."""
    return [
        text("""
## Look at the images

The classes and their sizes; below it, files that cannot be read, copies (above all of test images in train), labels
that may be wrong and images unlike all others.
"""),
        code("""
import html
import pathlib

from IPython.display import HTML, Image, display

!ncl-jax inspect --config="folder:dir={images}" --out=looked --force {fields}
display(Image("looked/class_sizes.png"))
page = html.escape(pathlib.Path("looked/inspect.html").read_text())
HTML(f'<iframe srcdoc="{page}" width="100%" height="600"></iframe>')
"""),
        text(f"## Train\n\n{train}"),
        code('!ncl-jax train --config="folder:dir={images},{arguments}" --workdir="{run}" {fields}'),
        SHOW,
        text("## Name the classes of new images\n\n`--out=answers.csv` writes a table."),
        code('!ncl-jax predict --run="{run}" "{new}" --top=3'),
        text("""
## Take the model along

One file, and a description beside it, which need nothing but JAX, NumPy and Pillow, on CPU, GPU and TPU.
"""),
        code('!ncl-jax export --run="{run}" --out="{run}/model.stablehlo" --force'),
        code("""
import ncl_jax
from ncl_jax.runs.predict import find_files

model = ncl_jax.load_exported(f"{run}/model.stablehlo")
files = find_files([new])[:8]
for file, probabilities in zip(files, model(files), strict=True):
    print(file, model.class_names[probabilities.argmax()], probabilities.max())
"""),
    ]


OWN_ON_COLAB = [
    text(f"""
# Your own photographs: from a zip file to a model

The zip file holds a folder for each class, or `train/` and `test/` with such folders.
{FEATURES}"""),
    INSTALL_LITE,
    DRIVE,
    code(f"""
archive = "/content/drive/MyDrive/images.zip"
images = "images"  # where the folders of the classes are once unpacked: images/NAME if the zip file starts with NAME/
new = "/content/drive/MyDrive/new_images"  # an image or a folder of images to be classified at the end
{ARGUMENTS}
run = "/content/drive/MyDrive/ncl_jax/own_images"  # the run's directory
{FIELDS}
""", "parameters"),
    code("""
import shutil

shutil.unpack_archive(archive, "images")
"""),
    *own_images("When the runtime is lost, run all cells again: training resumes at the last checkpoint."),
]  # fmt: skip

OWN_ON_KAGGLE = [
    text(f"""
# Your own photographs, on Kaggle

Settings: Internet on. Upload > New Dataset takes a zip file and unpacks it; it holds a folder for each class, or
`train/` and `test/` with such folders.
{FEATURES}"""),
    INSTALL_LITE,
    code(f"""
images = "/kaggle/input/images"  # where the folders of the classes are
new = "/kaggle/input/new-images"  # an image or a folder of images to be classified at the end
{ARGUMENTS}
run = "/kaggle/working/own_images"  # the run's directory
{FIELDS}
""", "parameters"),
    *own_images(
        "The same cell continues a run that was stopped. Save Version keeps `/kaggle/working`: to continue in another "
        "session, add that version's output as an input and copy the run's directory back."
    ),
]  # fmt: skip

NOTEBOOKS = {
    "own_images": (COLAB, OWN_ON_COLAB),
    "kaggle": (KAGGLE, OWN_ON_KAGGLE),
    "quickstart": (COLAB_TPU, QUICKSTART),
    "cifar100lt": (COLAB_TPU, CIFAR100LT),
}


def cell(number: int, content: Cell) -> dict:
    """A cell as notebooks store it."""
    stored = {
        "cell_type": content.kind,
        "id": f"cell{number}",
        "metadata": {"tags": [content.tag]} if content.tag else {},
        "source": content.source.splitlines(keepends=True),
    }
    return stored | ({"execution_count": None, "outputs": []} if content.kind == "code" else {})


def notebook(name: str) -> str:
    """A notebook's file, under a link that opens it."""
    site, cells = NOTEBOOKS[name]
    link = text(f"[Open in {site.name}]({site.address}/blob/main/colab/{name}.ipynb)")
    content = {
        "cells": [cell(number, content) for number, content in enumerate([link, *cells])],
        "metadata": site.metadata
        | {"kernelspec": {"display_name": "Python 3", "name": "python3"}, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Writes all of them."""
    for name in NOTEBOOKS:
        (ROOT / "colab" / f"{name}.ipynb").write_text(notebook(name))


if __name__ == "__main__":
    main()
