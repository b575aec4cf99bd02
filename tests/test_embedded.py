"""The data set that comes with the package, and the tool that makes it."""

import gzip
import hashlib
import runpy
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny

from ncl_jax.data import longtail
from ncl_jax.data.sources.embedded import FILE

ROOT = Path(__file__).parent.parent
ORIGINAL = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist


def test_counts_types_and_names():
    data = tiny.load_source("fashion_mnist_lt", "ignored")
    assert data.splits["train"].images.shape == (1236, 28, 28, 3) and data.splits["test"].images.shape == (
        1000,
        28,
        28,
        3,
    )
    assert data.splits["train"].images.dtype == data.splits["test"].images.dtype == np.uint8
    assert data.splits["train"].labels.dtype == data.splits["test"].labels.dtype == np.int32
    np.testing.assert_array_equal(np.bincount(data.splits["train"].labels), longtail.class_counts(500, 100, 10))
    np.testing.assert_array_equal(np.bincount(data.splits["test"].labels), 100)
    assert data.class_names[0] == "T-shirt/top" and data.class_names[-1] == "Shirt"
    np.testing.assert_array_equal(data.splits["train"].images[..., 0], data.splits["train"].images[..., 2])


def test_nearest_mean_finds_the_classes():
    # A swapped label or a transposed image would not survive this.
    data = tiny.load_source("fashion_mnist_lt", "")
    train, test = (
        images[..., 0].reshape(len(images), -1) / 255
        for images in (data.splits["train"].images, data.splits["test"].images)
    )
    means = np.stack([train[data.splits["train"].labels == label].mean(0) for label in range(10)])
    nearest = ((test[:, None] - means) ** 2).sum(-1).argmin(-1)
    assert (nearest == data.splits["test"].labels).mean() > 0.6


def test_loads_in_milliseconds():
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        tiny.load_source("fashion_mnist_lt", "")
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.2


def test_file_is_small_and_its_licence_is_next_to_it():
    folder = FILE.parent
    assert FILE.stat().st_size < 1 << 20
    assert "Zalando" in (folder / "FASHION_MNIST_LICENSE").read_text("utf-8")


def make(folder, output, monkeypatch):
    """Runs the tool, and returns the file's bytes."""
    monkeypatch.setattr(sys, "argv", ["make", str(folder), str(output)])
    runpy.run_path(str(ROOT / "tools" / "make_fashion_mnist_lt.py"), run_name="__main__")
    return output.read_bytes()


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes()))


def test_tool_takes_first_images_and_repeats_itself(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    for split in ("train", "t10k"):
        labels = np.tile(np.arange(10, dtype=np.uint8), 500)
        write_idx(tmp_path / f"{split}-labels-idx1-ubyte.gz", labels)
        images = generator.integers(0, 256, (5000, 2, 2), np.uint8)
        write_idx(tmp_path / f"{split}-images-idx3-ubyte.gz", images)
    made = [make(tmp_path, tmp_path / name, monkeypatch) for name in ("a.npz", "b.npz")]
    assert hashlib.sha256(made[0]).digest() == hashlib.sha256(made[1]).digest()
    with np.load(tmp_path / "a.npz") as file:
        np.testing.assert_array_equal(file["test_images"][-100:], images[labels == 6][:100])  # Shirt comes last


@pytest.mark.skipif(not ORIGINAL.is_dir(), reason=f"no original files in {ORIGINAL}")
def test_tool_makes_the_file_that_is_shipped(tmp_path, monkeypatch):
    make(ORIGINAL, tmp_path / "made.npz", monkeypatch)
    with (
        np.load(tmp_path / "made.npz") as made,
        np.load(FILE) as kept,
    ):
        assert set(made) == set(kept)
        for name in kept:
            np.testing.assert_array_equal(made[name], kept[name])
