"""Groups of images: cameras, patients and bursts stay whole in every split and fold; which folders are groups."""

import re
import types

import numpy as np
import pytest
from test_own_images import make_folder

from ncl_jax.data import dataset, holdout, sources
from ncl_jax.data.sources import groups
from ncl_jax.data.types import Request, Split
from ncl_jax.errors import ConfigError, DataError
from ncl_jax.runs import folds
from ncl_jax.storage.directory import RunDir

CARD = {f"CAM{camera:02d}/{name}": 2 for camera in range(6) for name in ("deer", "fox", "hare")}
UPSIDE_DOWN = {f"{name}/CAM{camera:02d}": 2 for camera in range(6) for name in ("deer", "fox", "hare")}


def load(root, **fields):
    return sources.load(Request("folder", root, **fields))


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    """A camera trap's card: six cameras, three species."""
    return make_folder(tmp_path_factory.mktemp("card"), (".",), CARD)


def whole(source):
    """The groups of train and test, which share none."""
    train, test = (set(source.splits[name].images.groups) for name in ("train", "test"))
    assert not train & test
    return train, test


def test_both_readings_are_shown_and_asked(card, tmp_path):
    for root in (card, make_folder(tmp_path / "classes", (".",), UPSIDE_DOWN)):
        with pytest.raises(DataError, match=r"(?s)layout=class/group .*layout=group/class") as error:
            load(root)
        assert "CAM00" in str(error.value) and "deer, fox, hare" in str(error.value)


@pytest.mark.parametrize("train", [{}, {"train": "."}])
def test_cameras_above_the_classes_stay_whole(card, train):
    source = load(card, layout="group/class", lists=train)
    assert source.class_names == ("deer", "fox", "hare")
    train_groups, test_groups = whole(source)
    assert len(train_groups | test_groups) == 6 and 1 <= len(test_groups) <= 3
    data = dataset.load(Request("folder", card, layout="group/class"), size=8, val_share=0.2)
    assert {name: set(of) for name, of in data.groups.items()}["test"] == test_groups
    assert not set(data.groups["train"]) & set(data.groups["val"])
    assert any("groups of images" in line for line in data.notes)
    assert all(line.split("\t")[4].startswith("CAM0") for line in data.listing())


def test_the_other_reading(card):
    source = load(card, layout="class/group")
    assert len(source.class_names) == 6 and source.splits["train"].images.groups is None
    _, test_groups = whole(load(card, layout="class/group", group_by="folder"))
    assert test_groups < {"deer", "fox", "hare"}


HINTED = {  # the folders, the layout, group_by, what is hinted at
    "cameras above": (CARD, "group/class", "none", r"warning: folders .*train and in test: \d \(CAM0.*group_by=folder"),
    "cameras below": (UPSIDE_DOWN, "class/group", "", r"warning: folders .*train and in test.*group_by=folder"),
    "kept whole": (CARD, "group/class", "", None), "no groups": ({"deer": 4, "fox": 4}, "auto", "", None),
    "one name": ({"deer/images": 6, "fox/images": 6}, "auto", "", None),
}  # fmt: skip


@pytest.mark.parametrize("name", HINTED)
def test_groups_that_were_not_asked_for_are_hinted_at(tmp_path, name):
    counts, layout, by, said = HINTED[name]
    request = Request("folder", make_folder(tmp_path, (".",), counts), layout=layout, group_by=by)
    lines = [line for line in dataset.load(request, size=8).notes if "group_by=" in line]
    assert [bool(re.search(said, line)) for line in lines] == [True] if said else not lines


LISTS = {  # paths, whether there is a column of stations, what is hinted at
    "a column": (lambda row: f"{row}.jpg", True, "values of Station .*group_column=Station"),
    "folders of several classes": (lambda row: f"CAM{row % 3}/{row}.jpg", False, "folders .*group_by=folder"),
    "folders of classes": (lambda row: f"{'ab'[row % 2]}/{row}.jpg", False, None),
    "one folder": (lambda row: f"x/{row}.jpg", False, None),
}  # fmt: skip


@pytest.mark.parametrize("name", LISTS)
def test_groups_of_lists_that_were_not_asked_for_are_hinted_at(tmp_path, name):
    path, column, said = LISTS[name]
    lines = ["path,label,Station" if column else "path,label"]
    for row in range(24):
        (tmp_path / path(row)).parent.mkdir(exist_ok=True)
        (tmp_path / path(row)).write_bytes(b"x")
        lines.append(f"{path(row)},{'ab'[row % 2]}" + f",ST{row % 5}" * column)
    (tmp_path / "list.csv").write_text("\n".join(lines))
    request = Request("list", tmp_path, lists={"train": "list.csv"})
    hints = [line for line in dataset.load(request, size=8).notes if "are both in train and in test" in line]
    assert [bool(re.search(said, line)) for line in hints] == [True] if said else not hints
    if column:
        asked = dataset.load(request._replace(columns={"group": "station"}), size=8)
        assert not any("group_column" in line for line in asked.notes)


TURNED = {  # the folders, the layout, what the warning advises
    "cameras for classes": (CARD, "class/group", "layout=group/class"),
    "species for groups": (UPSIDE_DOWN, "group/class", "layout=class/group,group_by=folder"),
    "as it should be": (CARD, "group/class", None),
    "numbers on both levels": ({"n01/s1": 2, "n02/s2": 2}, "auto", None),
    "numbered classes alone": ({"n01": 4, "n02": 4}, "auto", None),
}  # fmt: skip


@pytest.mark.parametrize("name", TURNED)
def test_the_wrong_layout_is_noticed(tmp_path, name):
    counts, layout, advice = TURNED[name]
    source = load(make_folder(tmp_path, (".",), counts), layout=layout)
    lines = [line for line in source.notes if "as cameras or sites are" in line]
    assert [line.endswith(f"pass {advice}") for line in lines] == [True] * bool(advice)


def test_one_group_of_all_images_is_said(tmp_path):
    make_folder(tmp_path, (".",), {"a": 4, "b": 4})
    with pytest.raises(DataError, match=r"puts all 8 images into one group \('.jpg'\)"):
        load(tmp_path, group_by=r"\.jpg$")


def test_one_name_below_every_class_is_no_group(tmp_path):
    make_folder(tmp_path, (".",), {f"{name}/images": 2 for name in ("a", "b", "c")})
    assert load(tmp_path).class_names == ("a", "b", "c")


def test_splits_below_the_classes_are_said_to_be_that(tmp_path):
    make_folder(tmp_path, (".",), {f"{name}/{split}": 2 for name in ("a", "b") for split in ("train", "test")})
    with pytest.raises(DataError, match="if those are splits, move them above the classes"):
        load(tmp_path)
    assert load(tmp_path, layout="class/group").class_names == ("a", "b")


def test_a_regular_expression_of_paths(tmp_path):
    make_folder(tmp_path, (".",), {"a": 12, "b": 12})
    source = load(tmp_path, group_by=r"(\d)\.jpg$")
    assert set.union(*whole(source)) == set("0123456789")
    with pytest.raises(DataError, match=r"matches no part of 2 of 24 paths \(a/11.jpg, b/11.jpg\)"):
        load(tmp_path, group_by=r"/(?!11)\d")
    with pytest.raises(DataError, match=r"matches no part of 12 of 24 paths \(b/"):
        load(tmp_path, group_by=r"(?:(a)|b)/")  # the parenthesis takes no part
    with pytest.raises(ConfigError, match="is not a regular expression"):
        load(tmp_path, group_by="(")
    with pytest.raises(DataError, match="column is for lists"):
        load(tmp_path, group_by="column")


def test_groups_in_both_splits_are_reported(tmp_path):
    for split, cameras in (("train", (0, 1)), ("test", (1, 2))):
        make_folder(tmp_path, (split,), {f"CAM0{camera}/{name}": 1 for camera in cameras for name in "ab"})
    data = dataset.load(Request("folder", tmp_path, layout="group/class"), size=8)
    line = next(line for line in data.notes if "in train and in test" in line)
    assert "1 (CAM01), with 2 of 4 test images" in line


def test_a_class_of_one_group_is_trained_on(tmp_path):
    make_folder(tmp_path, (".",), CARD | {"CAM07/lynx": 3, "CAM08/owl": 1, "CAM09/owl": 1})
    for share in (0.2, 0.5, 0.9):
        parts = load(tmp_path, layout="group/class", test_share=share)
        counts = {name: np.bincount(split.labels, minlength=5) for name, split in parts.splits.items()}
        assert counts["train"].min() > 0 and counts["test"].tolist()[3] == 0 and counts["test"][[0, 1, 2, 4]].min() > 0


def test_random_groups_stay_whole_and_every_class_is_trained_on():
    rng = np.random.default_rng(0)
    for trial in range(60):
        number, classes = rng.integers(2, 12), rng.integers(2, 6)
        of = rng.integers(0, number, 60)
        labels = rng.integers(0, classes, 60).astype(np.int32)
        named = np.array([f"g{trial}-{group}" for group in of], object)
        held = holdout.held_out(labels, range(60), 0.3, "test", groups=named)
        assert all(len(set(held[of == group].tolist())) == 1 for group in set(of.tolist()))
        assert set(labels[~held].tolist()) == set(labels.tolist())
        fold = folds.assign(labels, classes, 3, named)
        assert all(len(set(fold[of == group].tolist())) == 1 for group in set(of.tolist()))
        for number in range(3):
            assert set(labels[fold != number].tolist()) == set(labels.tolist())


def test_folds_of_many_groups_are_even():
    of = np.repeat(np.arange(40), 6)
    labels = np.tile(np.arange(3), 80)
    fold = groups.folds(np.array([f"{group:02d}" for group in of], object), labels, 3, 4)
    assert [np.bincount(labels[fold == number]).tolist() for number in range(4)] == [[20, 20, 20]] * 4


def test_the_folds_that_a_run_keeps_are_those_of_its_groups(tmp_path, monkeypatch):
    labels, of = np.tile(np.arange(3), 10).astype(np.int32), np.repeat([f"CAM{i}" for i in range(10)], 3).astype(object)
    split = Split(np.zeros((30, 1, 4), np.float32), labels)
    facts = dataset.Facts("x", (8, 8, 3), ("a", "b", "c"), (10, 10, 10), "0")
    data = dataset.Data(facts, split, split, {}, groups={"train": of})
    monkeypatch.setattr(folds, "_scores", lambda config, plan, data, held, *_: np.zeros((held.sum(), 2, 3)))
    directory = RunDir(tmp_path)
    folds.write(directory, None, types.SimpleNamespace(num_experts=2, on_features=True), data, (4, 10))
    kept = np.load(directory.out_of_fold)["folds"]
    assert set(kept.tolist()) == {0, 1, 2, 3} and all(len(set(kept[of == name].tolist())) == 1 for name in set(of))
