"""Runs whose folder has changed since: what is left is evaluated, and other data is continued with on purpose alone."""

import json
import shutil

import numpy as np
import pytest
from test_features import train
from test_own_images import make_folder, write_image

from ncl_jax import cli
from ncl_jax.data import dataset
from ncl_jax.data.sources import labelled
from ncl_jax.data.sources.files import Files
from ncl_jax.data.types import Request, Split
from ncl_jax.errors import DataError
from ncl_jax.runs.data import copies
from ncl_jax.runs.evaluate import evaluate_run, finish
from ncl_jax.storage import directory as directories
from ncl_jax.storage import listing
from ncl_jax.storage.directory import RunDir

PLAIN = {"data__augment": "none", "run__conv": "xla"}
COUNTS = {"ant": 12, "bee": 12, "cow": 8}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on classes alone, of which the test part was cut."""
    place = tmp_path_factory.mktemp("changed")
    make_folder(place / "data", (".",), COUNTS)
    assert train(place / "data", place / "run", "ce", **PLAIN) == ("", 0)
    return place


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    """One of rule 1, from before it was noted."""
    place = tmp_path_factory.mktemp("older")
    make_folder(place / "data", (".",), COUNTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(directories, "RULE", 1)
        assert train(place / "data", place / "run", "ce", **PLAIN) == ("", 0)
    config = json.loads((place / "run" / "config.json").read_text())
    assert config.pop("split_rule") == 1
    (place / "run" / "config.json").write_text(json.dumps(config))
    return place


@pytest.fixture(params=["trained", "older"])
def place(request, tmp_path):
    return shutil.copytree(request.getfixturevalue(request.param), tmp_path / "place")


def rows(place):
    return listing.rows(RunDir(place / "run").read_files())


def add(place, number=6):
    for i in range(number):
        write_image(place / "data" / "ant" / f"new {i}.jpg", 1000 + i)


def again(place, *flags):
    return train(place / "data", place / "run", "ce", *flags, **PLAIN)


def test_an_added_image_moves_none_of_a_run(place):
    before = rows(place)
    add(place)
    message, code = again(place, "--extend=1")
    assert (
        code == 1 and "files new: 6" in message and "files gone" not in message and "--data-changed=accept" in message
    )
    assert rows(place) == before


def test_what_is_left_is_evaluated_and_said(place, capsys):
    whole = evaluate_run(place / "run", data_dir=str(place / "data"))
    assert capsys.readouterr().out == ""
    add(place)
    assert evaluate_run(place / "run", data_dir=str(place / "data"))["ensemble"] == whole["ensemble"]
    assert "files new: 6" in capsys.readouterr().out
    test = [row for row in rows(place) if row.split == "test"]
    (place / "data" / test[0].path).unlink()
    write_image(place / "data" / test[1].path, 99, (30, 30))
    shutil.rmtree(place / "data" / "cow")
    kept = [row for row in test[2:] if row.label != "cow"]
    figures = evaluate_run(place / "run", data_dir=str(place / "data"))
    said = capsys.readouterr().out
    assert f"{len(kept)} of {len(test)} test images" in said
    assert figures["ensemble"]["per_class"][2] is None  # no cow is left
    with pytest.raises(DataError, match="is not what the run was trained on"):
        finish(place / "run", str(place / "data"))  # would replace the figures of the whole
    shutil.rmtree(place / "data")
    with pytest.raises(DataError, match="is not a folder"):
        evaluate_run(place / "run", data_dir=str(place / "data"))


def test_nothing_outside_of_the_data_is_read(tmp_path):
    write_image(tmp_path / "secret.jpg")
    write_image(tmp_path / "data" / "a.jpg")
    size = (tmp_path / "secret.jpg").stat().st_size
    inside = (tmp_path / "data" / "a.jpg").stat().st_size
    lines = [f"test\tx\t{path}\t{size}" for path in ("../secret.jpg", f"{tmp_path}/secret.jpg", "b/../../secret.jpg")]
    split, number = listing.left([*lines, f"test\tx\ta.jpg\t{inside}"], "test", tmp_path / "data", ["x"])
    assert split.images.names.tolist() == ["a.jpg"] and number == 4


def test_names_of_a_listing_are_those_of_the_files():
    names = ["a\\b.jpg", "caf\udce9/\\x.jpg", "ü.jpg"]
    lines = [directories.name_text(f"train\tc\t{name}\t7") for name in names]
    assert [row.path for row in listing.rows(lines)] == names


def test_other_data_is_accepted_on_purpose_and_written_down(trained, tmp_path, capsys):
    place = shutil.copytree(trained, tmp_path / "place")
    before = {row.path: row.split for row in rows(place)}
    length = json.loads((place / "run" / "results.json").read_text())["step"] // 2
    add(place, 16)
    gone = next(path for path, split in before.items() if split == "train")
    (place / "data" / gone).unlink()
    assert again(place, "--extend=1", "--data-changed=accept") == ("", 0)
    noted = json.loads((place / "run" / "config.json").read_text())
    assert f"after step {2 * length}: files gone: 1" in noted["data_changed"][0] and len(noted["data_changed"]) == 1
    assert noted["steps_per_epoch"] == length
    results = json.loads((place / "run" / "results.json").read_text())
    assert (results["epoch"], results["step"]) == (3, 3 * length) and results["num_train"] > sum(COUNTS.values()) * 0.7
    assert results["best_on_test"]["epoch"] == 3  # the others are of other test images
    now = {row.path: row.split for row in rows(place)}
    assert len(now) == len(before) + 15
    assert all(now[path] == split for path, split in before.items() if path != gone)
    capsys.readouterr()
    assert evaluate_run(place / "run", data_dir=str(place / "data"))["epoch"] == 3 and capsys.readouterr().out == ""
    (place / "run" / "config.json").unlink()  # what it notes is in the checkpoint, too
    assert again(place, "--extend=2") == ("", 0)
    again_noted = json.loads((place / "run" / "config.json").read_text())
    assert again_noted["data_changed"] == noted["data_changed"] and again_noted["steps_per_epoch"] == length
    assert json.loads((place / "run" / "results.json").read_text())["step"] == 4 * length


def test_other_classes_are_never_accepted(trained, tmp_path):
    place = shutil.copytree(trained, tmp_path / "place")
    write_image(place / "data" / "dog" / "0.jpg")
    message, code = again(place, "--extend=1", "--data-changed=accept")
    assert code == 1 and "files new: 1 (train dog/0.jpg)" in message and "accept" not in message


def test_a_run_of_the_older_rule_continues_as_it_was(older, tmp_path):
    place = shutil.copytree(older, tmp_path / "place")
    before = RunDir(place / "run").read_facts()
    assert again(place, "--extend=1") == ("", 0)
    assert RunDir(place / "run").read_facts() == before
    assert json.loads((place / "run" / "config.json").read_text())["split_rule"] == 1
    counts = np.bincount([row.label == "ant" for row in rows(place) if row.split == "test"])
    assert counts.tolist() == [4, 2]


def test_a_rule_that_is_not_known_is_refused(trained, tmp_path):
    place = shutil.copytree(trained, tmp_path / "place")
    config = json.loads((place / "run" / "config.json").read_text())
    (place / "run" / "config.json").write_text(json.dumps(config | {"split_rule": 99}))
    message, code = again(place, "--extend=1")
    assert code == 1 and "split_rule=99" in message


# Other images with labels


LAYOUTS = {  # where the images are; how many are found
    "classes": (("ant", "bee"), "", 4), "a split": (("test/ant", "test/cow"), "", 4), "one class": (("cow",), "", 2),
    "cameras": (("CAM0/ant", "CAM0/bee", "CAM1/ant"), "", 6),
    "sites below": (("ant/north", "bee/north", "bee/south"), "", 6),
    "a list": (("a", "b"), "path,label\na/0.jpg,bee\nb/1.jpg,cow\n", 2),
    "numbers": (("a", "b"), "a/0.jpg 2\nb/1.jpg 0\n", 2),
    "a column of splits": (("a",), "path,label,split\na/0.jpg,ant,train\na/1.jpg,ant,test\n", 1),
    "categories": (("a",), json.dumps({
        "images": [{"id": 1, "file_name": "a/0.jpg"}], "annotations": [{"image_id": 1, "category_id": 9}],
        "categories": [{"id": 9, "name": "cow"}, {"id": 2, "name": "zebra"}]}), 1),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_new_labelled_images_are_evaluated(trained, tmp_path, name, capsys):
    folders, listed, number = LAYOUTS[name]
    place = make_folder(tmp_path / "new", (".",), dict.fromkeys(folders, 2))
    if listed:
        place = place / f"list.{'json' if listed[0] == '{' else 'csv' if ',' in listed else 'txt'}"
        place.write_text(listed)
    kept = {path: path.read_bytes() for path in (trained / "run").rglob("*") if path.is_file()}
    figures = evaluate_run(trained / "run", data=str(place), data_dir=str(tmp_path / "new") if listed else None)
    assert f"{number} images of " in capsys.readouterr().out and 0 <= figures["ensemble"]["accuracy"] <= 1
    assert {path: path.read_bytes() for path in kept} == kept


def known_copies(trained, place, change):
    """Training images of a run as a folder of their own, changed."""
    for row in rows(trained):
        if row.split == "train":
            target = place / row.label / change.get("name", str)(row.path.rpartition("/")[2])
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((trained / "data" / row.path).read_bytes())


SEEN = {  # how the files are changed, whether the run's own are gone, which share is known
    "copies": ({}, False, 1), "under other names": ({"name": lambda name: f"x{name}"}, False, 1),
    "the run's files are gone": ({"name": str.upper}, True, 1),
    "both": ({"name": lambda name: f"x{name}"}, True, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", SEEN)
def test_images_that_were_trained_on_are_counted(trained, tmp_path, name):
    change, gone, share = SEEN[name]
    known_copies(trained, tmp_path / "new", change)
    folder = tmp_path / "new"
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*.*"))
    sizes = np.array([(folder / path).stat().st_size for path in paths])
    given = Split(Files(folder, np.array(list(map(str, paths)), object), sizes), np.zeros(len(paths), np.int32))
    lines, root = RunDir(trained / "run").read_files(), tmp_path if gone else trained / "data"
    assert len(paths) and listing.known(lines, "train", root, given) == share * len(paths)
    (folder / paths[0]).write_bytes(b"?" * int(sizes[0]))  # another image of this size
    assert gone or listing.known(lines, "train", root, given) == len(paths) - 1


def test_a_warning_says_that_images_were_trained_on(trained, tmp_path, capsys):
    known_copies(trained, tmp_path / "new", {})
    write_image(tmp_path / "new" / "ant" / "new.jpg", 1234)
    evaluate_run(trained / "run", data=str(tmp_path / "new"))
    number = len(list((tmp_path / "new").rglob("*.jpg")))
    assert f"warning: {number - 1} of these {number} images were trained on" in capsys.readouterr().out


def test_a_run_says_that_test_images_are_in_train(tmp_path):
    make_folder(tmp_path, ("train", "test"), {"ant": 4, "bee": 4})
    for path in tmp_path.glob("test/*/*.jpg"):
        write_image(path, 500 + int(path.stem) + 9 * (path.parent.name == "ant"))
    data = dataset.load(Request("folder", tmp_path), size=8)
    assert copies(data) == []
    shutil.copy(tmp_path / "train/ant/0.jpg", tmp_path / "test/bee/copy.jpg")
    (line,) = copies(dataset.load(Request("folder", tmp_path), size=8))
    assert line.startswith("warning: 1 of 9 test images")


UNKNOWN = {  # what is there, and what is said
    "strangers": (("ant", "dog", "emu"), "", "2 classes that the model does not know: dog, emu"),
    "a stranger in a list": (("a",), "path,label\na/0.jpg,ants\n", r"ants .did you mean ant.*knows ant, bee, cow"),
    "a number beyond": (("a",), "a/0.jpg 7\n", "does not know: 7"),
    "two splits": (("test/ant", "val/ant"), "", "has the splits test, val: pass one of them"),
    "classes beside a split": (("test/ant", "bee", "rest"), "", "has the split test, and beside it bee: pass"),
    "several labels": (("a",), "path,label\na/0.jpg,ant;bee\n", "1 of 1 images .*ant;bee"),
    "nothing": (("ant",), None, "does not exist"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_cannot_be_evaluated_is_said(trained, tmp_path, name):
    folders, listed, said = UNKNOWN[name]
    place = make_folder(tmp_path / "new", (".",), dict.fromkeys(folders, 2))
    if listed != "":
        place = place / "list.txt"
    if listed:
        place.write_text(listed)
    with pytest.raises(DataError, match=said):
        evaluate_run(trained / "run", data=str(place))


def test_numbers_that_are_names_are_not_counted(tmp_path):
    place = make_folder(tmp_path, (".",), {"1": 2, "2": 2}) / "a.txt"
    place.write_text("1/0.jpg 2\n2/0.jpg 1\n")
    assert labelled.read(place, ("1", "2"))[0].labels.tolist() == [1, 0]
    place.write_text("1/0.jpg 1\n2/0.jpg 0\n")
    with pytest.raises(DataError, match="does not know: 0"):
        labelled.read(place, ("1", "2"))


def test_a_column_of_splits_that_is_not_used_is_said(tmp_path):
    place = make_folder(tmp_path, (".",), {"a": 2}) / "a.csv"
    place.write_text("path,label,split\na/0.jpg,a, test\na/1.jpg,a,other\n")
    split, lines = labelled.read(place, ("a",))
    assert len(split) == 2 and any("the column split is not used" in line and "'other'" in line for line in lines)
    place.write_text("path,label,split\na/0.jpg,a, test\na/1.jpg,a,train\n")
    assert len(labelled.read(place, ("a",))[0]) == 1


def test_the_command_writes_nothing_and_refuses_what_writes(trained, tmp_path, capsys):
    place = make_folder(tmp_path / "new", (".",), {"ant": 2})
    message, code = cli.attempt("evaluate", [f"--run={trained / 'run'}", f"--data={place}", "--finish"])
    assert code == 1 and "--finish" in message
    assert cli.attempt("evaluate", [f"--run={trained / 'run'}", f"--data={place}"]) == ("", 0)
    assert "ensemble" in capsys.readouterr().out
