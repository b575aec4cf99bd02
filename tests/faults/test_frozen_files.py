"""Files of runs on a frozen backbone that somebody else made: consistent with their records, and yet no such thing."""

import json
import os
import types

import jax
import numpy as np
import one_layer
import pytest
from safetensors.numpy import save

from ncl_jax import cli
from ncl_jax.errors import CheckpointError, ConfigError, DataError
from ncl_jax.evaluation.class_vectors import ClassVectors
from ncl_jax.models import make_backbone, shapes_of
from ncl_jax.runs import class_vectors, folds, held_out, text, trunk, trust
from ncl_jax.runs.restore import restore
from ncl_jax.runtime import arrays
from ncl_jax.storage.directory import RunDir

assert one_layer.OneLayer  # imported for the backbone that it adds
SHAPE = (8, 8, 3)


@pytest.fixture(scope="module")
def plan():
    """As far as a backbone's file is concerned."""
    backbone = make_backbone(backbone="one_layer", depth=1, width=4, precision="float32")
    return types.SimpleNamespace(trunk=backbone, facts=types.SimpleNamespace(image_shape=SHAPE))


@pytest.fixture(scope="module")
def variables(plan):
    _, shapes = shapes_of(plan.trunk, SHAPE)
    return jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes)


def changed(tree, name, value):
    """The tree with another leaf; `...` removes it."""
    result, (*sections, last) = jax.tree.map(lambda leaf: leaf, tree), name.split("/")
    inner = result
    for section in sections:
        inner = inner.setdefault(section, {})
    inner[last] = value
    if value is ...:
        del inner[last]
    return result


KERNEL = "params/conv1/kernel"
TREES = {
    "of another shape": (KERNEL, np.ones((3, 3, 3, 5), np.float32)), "without a tensor": (KERNEL, ...),
    "of whole numbers": (KERNEL, np.ones((3, 3, 3, 4), np.int8)), "with a tensor more": ("params/more", np.ones(3)),
    "with another section": ("cache/x", np.ones(3)),
}  # fmt: skip


def written(tmp_path, tree):
    """A run's directory with a backbone's file, and what its record says of it."""
    directory = RunDir(tmp_path)
    trunk.write(directory, tree)
    return directory, trunk.digest(tree)


@pytest.mark.parametrize("name", TREES)
def test_a_backbone_of_another_network_is_refused(name, plan, variables, tmp_path):
    directory, digest = written(tmp_path, changed(variables, *TREES[name]))
    with pytest.raises(CheckpointError, match=r"backbone\.safetensors is not of the network of .*config\.json"):
        trunk.read(directory, digest, plan)


def eight_bits():
    """A file of safetensors with numbers of a type that NumPy does not have."""
    header = json.dumps({"a": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}).encode()
    return len(header).to_bytes(8, "little") + header + b"x"


def test_a_backbones_file_that_is_none(plan, variables, tmp_path):
    directory, digest = written(tmp_path, variables)
    found = trunk.read(directory, digest, plan)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, found, variables)))
    good = directory.backbone.read_bytes()
    both = save({"params": np.ones(3, np.float32), "params/x": np.ones(3, np.float32)})
    deep = save({50_000 * "a/": np.ones(1, np.float32)})
    for content in (b"", good[:40], good[:-1], b"\xff" * 8 + good[8:], both, b"x" * 100, save({}), deep, eight_bits()):
        directory.backbone.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"backbone\.safetensors is (damaged|not the backbone)"):
            trunk.read(directory, digest, plan)
    with directory.backbone.open("wb") as file:
        file.truncate(2**40)  # sparse: a terabyte that takes no room
    with pytest.raises(DataError, match=r"backbone\.safetensors is larger than 4,19\d,\d+ bytes"):
        trunk.read(directory, digest, plan)


def vectors(**given):
    base = ClassVectors(np.eye(10, 6, dtype=np.float32) + 1, np.ones((4, 6), np.float32))
    return base._replace(**given)


VECTORS = {
    "of fewer classes": {"vectors": np.ones((9, 6), np.float32)}, "in one axis": {"vectors": np.ones(10, np.float32)},
    "not a number": {"vectors": np.full((10, 6), np.nan, np.float32)}, "of bytes": {"vectors": np.ones((10, 6), np.int8)},
    "of another width": {"projection": np.ones((4, 5), np.float32)}, "a scale that is none": {"scale": float("nan")},
    "a projection without end": {"projection": np.full((4, 6), np.inf, np.float32)}, "a scale of 0": {"scale": 0.0},
}  # fmt: skip


@pytest.mark.parametrize("name", VECTORS)
def test_vectors_that_are_not_of_the_runs_classes(name, run):
    directory, found = RunDir(run), vectors(**VECTORS[name])
    class_vectors.write(directory, found)
    record = {"pretrained": {"text": {"vectors": class_vectors._digest(found)}}}
    with pytest.raises(CheckpointError, match=r"class_vectors\.safetensors is damaged"):
        class_vectors.of_run(directory, record)


@pytest.mark.parametrize("record", ["x", [1], 3, {"vectors": "x"}, {"vectors": [1]}, {"file": "x"}])
def test_records_of_vectors_that_no_run_has(record, run):
    directory = RunDir(run)
    class_vectors.write(directory, vectors())
    with pytest.raises(CheckpointError, match=r"class_vectors\.safetensors is (damaged|not what the run began with)"):
        class_vectors.of_run(directory, {"pretrained": {"text": record}})
    good = {"pretrained": {"text": {"vectors": class_vectors._digest(vectors())}}}
    assert class_vectors.of_run(directory, good).scale == 100


def kept(number=6, **given):
    """What a run keeps of out-of-fold scores: of two experts and ten classes, at its last step."""
    base = {
        "logits": np.zeros((number, 2, 10), np.float32), "labels": np.arange(number, dtype=np.int32),
        "folds": np.zeros(number, np.int64), "about": np.array([3, 8]),
    }  # fmt: skip
    return base | given


FOLDS = {
    "of other classes": {"logits": np.zeros((6, 2, 11), np.float32)}, "of one expert": {"logits": np.zeros((6, 1, 10), np.float32)},
    "with fewer labels": {"labels": np.zeros(5, np.int32)}, "with fewer folds": {"folds": np.zeros(5, np.int64)},
    "of a class that there is not": {"labels": np.full(6, 10, np.int32)}, "of nothing": kept(0),
    "of whole numbers": {"logits": np.zeros((6, 2, 10), np.int32)}, "of another step": {"about": np.array([3, 7])},
    "without a step": {"about": np.array([3])}, "of a negative class": {"labels": np.full(6, -1, np.int32)},
    "of objects": {"labels": np.array([None] * 6)}, "of nothing that is finite": {"logits": np.full((6, 2, 10), np.nan, np.float32)},
}  # fmt: skip


@pytest.fixture(scope="module")
def loaded(finished):
    return restore(RunDir(finished), None)


def test_out_of_fold_scores_that_are_not_the_runs(loaded, run):
    directory = RunDir(run)
    own = loaded._replace(directory=directory)
    directory.out_of_fold.write_bytes(arrays.packed(kept()))
    assert held_out.out_of_fold(own, None).logits.shape == (6, 10) and folds.are_there(directory, 3)
    for name, given in FOLDS.items():
        directory.out_of_fold.write_bytes(arrays.packed(kept(**given)))
        assert held_out.out_of_fold(own, None) is None, name
    for content in (b"", b"PK\x03\x04", arrays.packed(kept())[:-40], arrays.packed({"labels": np.zeros(3)})):
        directory.out_of_fold.write_bytes(content)
        assert folds.read(directory) is None and not folds.are_there(directory, 3)


def test_scores_that_unpack_to_far_more_than_their_file_are_not_unpacked(loaded, run, monkeypatch):
    directory = RunDir(run)
    directory.out_of_fold.write_bytes(arrays.packed(kept(5000)))
    monkeypatch.setattr(arrays, "SMALL", 1000)
    assert folds.read(directory) is not None
    monkeypatch.setattr(arrays, "PACKED", 10)
    assert folds.read(directory) is None


def test_what_known_ness_is_measured_with_is_of_the_runs_embeddings(loaded, run):
    """Made again from the training images where it is not."""
    own = loaded._replace(directory=RunDir(run))
    draw = np.random.default_rng(0)
    embeddings = draw.normal(size=(40, 8)).astype(np.float32)
    training = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True), np.arange(40) % 10
    made = trust.known(own, training)
    assert trust.known(own, None).means.shape == made.means.shape == (10, 8)
    smaller = {"about": np.array([8]), "means": np.zeros((10, 5), np.float32), "distances": np.ones(3, np.float32),
               "whitening": np.eye(5, dtype=np.float32)}  # fmt: skip
    own.directory.known.write_bytes(arrays.packed(smaller))
    assert trust.known(own, training).means.shape == (10, 8)


@pytest.mark.parametrize("name", ["/dev/zero", "~nobody-of-this-name/y", "./x/y"])
def test_a_text_tower_that_is_not_there_names_its_own_field(name):
    with pytest.raises(ConfigError, match=rf"model\.text='{name}'.*there is no text tower"):
        text.find(types.SimpleNamespace(text=name, pretrained="w"))


@pytest.mark.parametrize("command", [
    ("cache", "list", "--dir={tmp}/pipe"), ("cache", "clean", "--days=nan"), ("cache", "clean", "--days=-1"),
    ("cache", "list", "--dir=none"), ("zero-shot", "{tmp}/x.jpg", "--classes=~nobody-of-this-name/x"),
    ("zero-shot", "{tmp}/x.jpg", "--classes={tmp}/pipe"), ("zero-shot", "{tmp}/x.jpg", "--classes=/dev/zero"),
    ("zero-shot", "{tmp}/x.jpg", "--classes={tmp}/control.txt"), ("zero-shot", "{tmp}/x.jpg", "--classes={tmp}/latin.txt"),
    ("zero-shot", "~nobody-of-this-name", "--classes={tmp}/names.txt", "--pretrained={tmp}/pipe"),
])  # fmt: skip
def test_commands_on_what_is_not_there(command, tmp_path, capfd):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    (tmp_path / "control.txt").write_text("c\x1b[31mat\ndog\n")
    (tmp_path / "latin.txt").write_bytes("Kätzchen\n".encode("latin-1"))
    name, *rest = (word.replace("{tmp}", str(tmp_path)) for word in command)
    message, code = cli.attempt(name, rest)
    assert code == 1 and message.startswith("error: ") and "\n" not in message


def test_a_home_that_nobody_has_is_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(trunk.cache("~nobody-of-this-name/cache")) == "~nobody-of-this-name/cache"


ABOUTS = [b"[" * 100_000, b'{"rows":' * 900 + b"1" + b"}" * 900, b"\xff", b'{"rows": ' + b"9" * 5000 + b"}", b"3"]


def test_sets_in_a_cache_that_no_run_wrote(tmp_path, capfd):
    """Are listed in one line each and deleted; what lies beside them stays."""
    for number, about in enumerate([*ABOUTS, json.dumps({"dataset": "\x1b[31m\u202e\n", "rows": [1]}).encode()]):
        (tmp_path / f"{number:024x}").mkdir()
        (tmp_path / f"{number:024x}" / "about.json").write_bytes(about)
    (tmp_path / ("f" * 24)).symlink_to(tmp_path)
    assert cli.attempt("cache", ["list", f"--dir={tmp_path}"]) == ("", 0)
    shown = capfd.readouterr().out
    assert len(shown.splitlines()) == len(ABOUTS) + 2 and "\x1b" not in shown and "\\x1b[31m\\u202e\\n" in shown
    assert cli.attempt("cache", ["clean", f"--dir={tmp_path}"]) == ("", 0)
    assert [path.name for path in tmp_path.iterdir()] == ["f" * 24]
