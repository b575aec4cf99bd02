"""Faults of the data: missing, damaged, incomplete, or meaning harm. One line, and no run directory is made."""

import harness
import numpy as np
import pytest
from harness import FIELDS, TRAIN, Fault
from test_own_images import CLASSES, FOLDERS, make_folder
from test_sources import LAYOUT, NAMES, batch, files, packed, py3_pickle, unpacked

COMMAND = (
    *TRAIN, "--workdir={tmp}/new", "--config.data.name=cifar10", "--config.data.dir={tmp}/data",
    "--config.data.download=False", "--config.data.imbalance=1",
)  # fmt: skip


def folder(**changed):
    """A CIFAR-10 folder in which files have another content, or None for none."""

    def make(data):
        contents = {name: content for name, content in (files() | changed).items() if content is not None}
        unpacked(data / LAYOUT.folder, contents)

    return make


def archive(change):
    """A CIFAR-10 archive whose bytes are changed."""

    def make(data):
        data.mkdir()
        packed(data / LAYOUT.archive, files())
        path = data / LAYOUT.archive
        path.write_bytes(change(path.read_bytes()))

    return make


def without_dogs():
    """Batches that hold every class but one."""
    labels = [label for label in range(10) if NAMES[label] != "dog"]
    images = np.zeros((9, 3072), np.uint8)
    return {name: py3_pickle({b"labels": labels, b"data": images}) for name in LAYOUT.train_files}


class Harm:
    """What a harmful pickle asks for."""

    def __reduce__(self):
        return print, ("harm",)


FAULTS = {
    "no folder": (None, "cifar-10-python.tar.gz .*/data"),
    "an empty folder": (lambda data: data.mkdir(), "cifar-10-python.tar.gz"),
    "a file instead": (lambda data: data.write_text(""), "data"),
    "a batch missing": (folder(data_batch_3=None), "data_batch_3.*cifar-10-python.tar.gz"),
    "the names missing": (folder(**{"batches.meta": None}), "batches.meta"),
    "a batch empty": (folder(data_batch_2=b""), "data_batch_2"),
    "a batch cut": (folder(data_batch_2=files()["data_batch_2"][:500]), "data_batch_2"),
    "a batch of text": (folder(test_batch=b"hello"), "test_batch"),
    "a batch of something else": (folder(test_batch=py3_pickle([1, 2])), r"data.*cifar-10|CIFAR"),
    "a batch that means harm": (folder(test_batch=py3_pickle(Harm())), r"refused to unpickle \w+.print"),
    "a label too many": (
        folder(data_batch_1=py3_pickle(batch(0) | {b"labels": [10] * 6})), "label 10.*10 class"
    ),
    "labels missing": (
        folder(data_batch_1=py3_pickle(batch(0) | {b"labels": [1] * 5})), "train has 30 images.*shape"
    ),
    "a class without images": (folder(**without_dogs()), r"1 classes \(dog\)"),
    "an empty archive": (archive(lambda content: b""), "cifar-10-python.tar.gz"),
    "half an archive": (archive(lambda content: content[: len(content) // 2]), "cifar-10-python.tar.gz"),
    "an archive that is none": (archive(lambda content: b"<html>"), "cifar-10-python.tar.gz"),
}  # fmt: skip


FOLDER = ("train", "--config=folder:dir={tmp}/data,image_size=16", "--workdir={tmp}/new", *FIELDS)
LIST = (
    "train", "--config=list:dir={tmp}/data,train={tmp}/train.txt,test={tmp}/train.txt,image_size=16",
    "--workdir={tmp}/new", *FIELDS,
)  # fmt: skip


def one_more(line):
    """A folder of images, and a list of it with a line more."""

    def make(data):
        make_folder(data)
        lines = [f"train/{name}/0.jpg {label}" for label, name in enumerate(CLASSES)]
        (data.parent / "train.txt").write_text("\n".join([*lines, line]))

    return make


OWN = {
    "no folder of images": (FOLDER, None, "data.dir=.*/data"),
    "no class": (FOLDER, lambda data: data.mkdir(), "/data.*class"),
    **{f"a folder with {name}": (FOLDER, *row) for name, row in FOLDERS.items() if name not in ("no class",)},
    "a list without a label": (LIST, one_more("train/cat/1.jpg"), "line 4.*'train/cat/1.jpg'.*label"),
    "a list out of its root": (LIST, one_more("../x.jpg 0"), r"'../x.jpg'.*data.dir"),
    "a list of what is not there": (LIST, one_more("train/cow/1.jpg 0"), "cow/1.jpg"),
    "a list with a negative label": (LIST, one_more("train/cat/1.jpg -2"), "train list.*'-"),
    "no list": (LIST, lambda data: make_folder(data), "list .*train.txt"),
    **{f"no {name}": (("train", f"--config={name}", "--workdir={tmp}/new", "--config.data.dir={tmp}/data"), None,
                      f"{name}: .*data") for name in ("imagenet_lt", "places_lt", "inaturalist2018")},
    "no validation split": (
        (*FOLDER, "--config.data.eval_split=val"), lambda data: make_folder(data), "data.eval_split=val.*test"
    ),
    "files of no known size": (
        (*FOLDER, "--config.data.image_size=0"), lambda data: make_folder(data), "data.image_size=0"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OWN)
def test_a_fault_of_own_images_is_one_line(name, tmp_path, capfd):
    command, make, said = OWN[name]
    if make:
        make(tmp_path / "data")
    (tmp_path / "run").mkdir()
    harness.attempt(Fault(name, command, said), tmp_path / "run", tmp_path, capfd)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_data_is_one_line(name, tmp_path, capfd):
    make, said = FAULTS[name]
    if make:
        make(tmp_path / "data")
    (tmp_path / "run").mkdir()
    harness.attempt(Fault(name, COMMAND, said), tmp_path / "run", tmp_path, capfd)
    assert not (tmp_path / "new").exists()
