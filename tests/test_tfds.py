"""Reading a data set that TensorFlow Datasets prepared.

`data/tfds_cifar10.zip` was prepared by TFDS 4.9.10's own cifar10 builder (format array_record) from CIFAR-10's binary
layout with 5 batches of 4 images and 10 test images, the ones of `images` below.
"""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tiny

from ncl_jax.data import longtail, sources
from ncl_jax.data.sources import tfds_files

FIXTURE = Path(__file__).parent / "data" / "tfds_cifar10.zip"


def images(first, count):
    """What the builder was given as images first, first + 1, ... (of both splits together)."""
    index = np.arange(first, first + count)[:, None, None, None] * 5
    row, column, channel = np.arange(32)[:, None, None], np.arange(32)[:, None], np.arange(3)
    return ((index + row + 2 * column + 50 * channel) % 256).astype(np.uint8)


@pytest.fixture
def prepared(tmp_path):
    """A data directory with cifar10/3.0.2 in it."""
    with zipfile.ZipFile(FIXTURE) as file:
        file.extractall(tmp_path)
    return tmp_path


def installed():
    pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("array_record")


def test_rows_are_in_the_order_of_the_archive(prepared):
    installed()
    data = tiny.load_source("cifar10", prepared, download=False)
    np.testing.assert_array_equal(data.splits["train"].images, images(0, 20))
    np.testing.assert_array_equal(data.splits["test"].images, images(20, 10))
    np.testing.assert_array_equal(data.splits["train"].labels, np.arange(20) * 3 % 10)
    np.testing.assert_array_equal(data.splits["test"].labels, np.arange(20, 30) * 3 % 10)
    assert data.splits["train"].labels.dtype == np.int32 and data.class_names[0] == "airplane"
    expected = longtail.select(np.arange(20) * 3 % 10, 2, 10)
    np.testing.assert_array_equal(longtail.select(data.splits["train"].labels, 2, 10), expected)
    assert "tensorflow" not in sys.modules


def test_the_folder_of_the_version_is_found_too(prepared):
    installed()
    assert (
        tiny.load_source("cifar10", prepared / "cifar10" / "3.0.2", download=False).splits["train"].images.shape[0]
        == 20
    )


def test_damaged_file(prepared):
    installed()
    file = next(prepared.glob("cifar10/3.0.2/*train*"))
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(sources.DataError, match="cannot be read.*prepare it again"):
        tiny.load_source("cifar10", prepared, download=False)


def test_newest_version_is_taken(tmp_path):
    for version in ("3.0.2", "3.0.10", "x.y.z", "3.0.9"):
        folder = tmp_path / "cifar10" / version
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").write_text(json.dumps({"name": "cifar10"}))
    assert tfds_files.find("cifar10", tmp_path).name == "3.0.10"
    assert tfds_files.find("cifar100", tmp_path) is None


def test_tfrecord_is_refused(prepared):
    path = prepared / "cifar10" / "3.0.2" / "dataset_info.json"
    path.write_text(path.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(sources.DataError, match="tfrecord.*file_format='array_record'"):
        tiny.load_source("cifar10", prepared, download=False)


def test_missing_package_is_named(prepared, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    monkeypatch.setitem(sys.modules, "array_record", sys)
    with pytest.raises(sources.DataError, match=r"tensorflow_datasets.*tensorflow-datasets"):
        tiny.load_source("cifar10", prepared, download=False)


@pytest.mark.parametrize("ids", [[0, 0], [0, 2], [-1, 1]])
def test_ids_must_be_the_rows(ids):
    source = [{"id": b"train_%05d" % i, "image": np.zeros((32, 32, 3), np.uint8), "label": 0} for i in ids]
    with pytest.raises(ValueError, match="occurs twice, or does not fit 2 images"):
        tfds_files._split(source, "train")
