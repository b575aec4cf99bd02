"""Corrected labels: read, refused, applied to folders, lists and arrays, and kept with a run."""

import json
import pathlib
import shutil

import numpy as np
import pytest
import tiny
from test_own_images import make_folder

from ncl_jax import cli
from ncl_jax.config import build_data
from ncl_jax.data import corrections, dataset
from ncl_jax.data.types import Request, Split
from ncl_jax.errors import ConfigError, DataError
from ncl_jax.report import findings, spreadsheet
from ncl_jax.runs.data import same_data
from ncl_jax.storage.directory import RunDir
from ncl_jax.trust.labels import Suspects

COUNTS = {"-minus": 3, "=cat": 4, "dog": 3}


def load(root, labels=None, name="folder", lists=None, **options):
    request = Request(name, pathlib.Path(root), lists=lists or {})
    return dataset.load(request, size=8, labels=labels, **options)


def write(path, *rows, header="file,label"):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "data", ("train", "test"), COUNTS)


@pytest.mark.parametrize("header", ["file,label", "given;file;label;margin"])
def test_labels_change_and_images_go(folder, tmp_path, header):
    mark = ";" if ";" in header else ","
    rows = {"train/dog/1.jpg": "=cat", "train/dog/0.jpg": "'=cat", "train/=cat/2.jpg": "-", "train/=cat/3.jpg": "=cat"}
    lines = [f"{name}{mark}{label}" for name, label in rows.items()]
    lines = [f"x;{line};-3.1" for line in lines] if mark == ";" else lines
    before, after = load(folder), load(folder, write(tmp_path / "fixed.csv", *lines, header=header))
    assert before.facts.corrected == {} and after.facts.corrected == {"relabelled": 2, "removed": 1}
    assert (before.facts.class_counts, after.facts.class_counts) == ((3, 4, 3), (3, 5, 1))
    names = dict(zip(after.train.images.names, after.train.labels.tolist(), strict=True))
    assert names["train/dog/1.jpg"] == names["train/dog/0.jpg"] == 1 and "train/=cat/2.jpg" not in names
    assert before.facts.rows_checksum != after.facts.rows_checksum and "relabelled 2, removed 1" in after.notes[-1]
    assert dataset.Facts.of(json.loads(after.facts.to_json())) == after.facts


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["train/dog/1.jpg,dgo", "train/dog/2.jpg,bird"], r"2 labels are not classes of the data: dgo, bird"),
        (["train/dog/9.jpg,dog", "test/dog/1.jpg,dog"], r"2 of 2 files are not training images.*train/dog/9\.jpg"),
        (["train/dog/1.jpg,=cat", "train/dog/1.jpg,dog"], r"line 3: train/dog/1\.jpg has two labels"),
        (["train/dog/1.jpg,"], r"line 2: the label is missing"),
        (['train/dog/1.jpg,"=cat'], r"line 2 cannot be read"),
        ([], r"names no image"),
        ([f"train/dog/{i}.jpg,-" for i in range(3)], r"no training image of 1 classes \(dog\)"),
    ],
)
def test_what_cannot_be_applied_is_refused(folder, tmp_path, rows, said):
    with pytest.raises(DataError, match=said):
        load(folder, write(tmp_path / "fixed.csv", *rows))


def test_a_file_that_is_no_table_is_refused(folder, tmp_path):
    (tmp_path / "fixed.csv").write_bytes(bytes(range(256)))
    for path in (tmp_path / "fixed.csv", tmp_path / "gone.csv", write(tmp_path / "fixed.txt", "a,b")):
        with pytest.raises(DataError, match=path.name):
            load(folder, path)


def test_lists_take_corrections_by_path(folder, tmp_path):
    files = sorted((folder / "train").rglob("*.jpg"))
    lines = [f"{path.relative_to(folder)},{path.parent.name}" for path in files]
    (folder / "all.csv").write_text("\n".join(["file,label", *lines, lines[-1]]) + "\n")
    fixed = write(tmp_path / "fixed.csv", f"{files[-1].relative_to(folder)},=cat")
    found = load(folder, fixed, "list", {"train": str(folder / "all.csv"), "test": str(folder / "all.csv")})
    assert found.facts.corrected == {"relabelled": 2, "removed": 0}  # the list has this file twice


def test_arrays_take_rows_of_their_source_whatever_is_cut(tmp_path):
    whole = load("", None, "fashion_mnist_lt")
    label, other = whole.train.labels[[17, 1000]]
    fixed = write(tmp_path / "fixed.csv", "17,Shirt", "1000,-")
    found = load("", fixed, "fashion_mnist_lt", val_share=0.5)
    assert found.facts.corrected == {"relabelled": 1, "removed": 1} and label != 9 and other != 9
    assert 1000 not in found.rows and found.place("train", 5).endswith(f"image {found.rows[5]}")
    val = len(found.others["val"])
    assert len(found.train) + val == len(whole.train) - 1
    shirts = found.facts.class_counts[9] + int((found.others["val"].labels == 9).sum())
    assert shirts == whole.facts.class_counts[9] + 1
    again = load("", write(tmp_path / "fixed.csv", "17,Coat", "1000,-"), "fashion_mnist_lt", val_share=0.5)
    assert again.facts.rows_checksum != found.facts.rows_checksum


def test_the_table_of_suspects_works_as_it_is_and_edited(tmp_path):
    names = ["=SUM(1).jpg", 'a "quoted", <b>.jpg', "line\nbreak.jpg", "caf\udce9.jpg", "plain.jpg"]
    root = make_folder(tmp_path / "data", ("train", "test"), COUNTS)
    for name in names:
        shutil.copy(root / "train" / "dog" / "0.jpg", root / "train" / "-minus" / name)
    data = load(root)
    rows = np.array([row for row, name in enumerate(data.train.images.names) if pathlib.Path(name).name in names])
    ones = np.ones(len(rows))
    table = findings.suspected_labels(data, Suspects(rows, np.full(len(rows), 1), -3 * ones, ones, ones))
    path = tmp_path / "suspected_labels.csv"
    path.write_text(table)
    suggested = load(root, path).facts
    assert suggested.corrected == {"relabelled": 5, "removed": 0}
    assert np.subtract(suggested.class_counts, data.facts.class_counts)[1] == 5
    assert all(not cell.startswith(("=", "+", "@")) for line in table.splitlines() for cell in line.split(","))
    minus, cat = spreadsheet.cell("-minus"), spreadsheet.cell("=cat")
    path.write_text(table.replace(f",{cat},{minus},", f",dog,{minus},"))
    found = load(root, path)
    assert found.facts.corrected == {"relabelled": 5, "removed": 0} and found.facts.class_counts == (3, 4, 8)


def test_the_table_of_suspects_takes_classes_of_any_bytes(tmp_path):
    root = make_folder(tmp_path / "data", ("train", "test"), {"back\\x": 3, "cafe": 3})
    for split in ("train", "test"):
        (root / split / "cafe").rename(root / split / "caf\udce9")
    data = load(root)
    rows, one = np.arange(len(data.train)), np.ones(len(data.train))
    table = findings.suspected_labels(data, Suspects(rows, 1 - data.train.labels, -one, one, one))
    (tmp_path / "suspected.csv").write_text(table)
    assert load(root, tmp_path / "suspected.csv").facts.corrected == {"relabelled": 6, "removed": 0}


def test_what_an_image_is_called():
    assert corrections.name_of(np.zeros((3, 2, 2, 3)), 2) == "2"
    split = Split(make_names(["a\nb"]), np.zeros(1))
    assert corrections.name_of(split.images, 0) == "a\\nb"


def make_names(names):
    return type("Files", (), {"names": names})()


def test_a_run_keeps_its_corrections(tmp_path):
    fixed = write(tmp_path / "fixed.csv", "17,Shirt", "1000,-")
    config, directory = tiny.tiny("method=ce", data__labels=str(fixed)), RunDir(tmp_path / "run")
    build_data.absolute_paths(config)
    with directory.locked():
        directory.begin(config, build_data.data(config), {"extend": 0, "prior_power": 0})
    (directory.checkpoints / "1").mkdir(parents=True)
    assert directory.labels.read_text() == fixed.read_text()
    assert json.loads(directory.facts.read_text())["corrected"] == {"relabelled": 1, "removed": 1}
    directory.check(config, build_data.data(config))
    write(fixed, "17,Coat")
    assert same_data(directory.read_config(), directory).facts == directory.read_facts()
    with pytest.raises(ConfigError, match="the data"):
        directory.check(config, build_data.data(config))
    config.data.labels = ""
    with pytest.raises(ConfigError, match="the data"):
        directory.check(config, build_data.data(config))


def test_the_flag_sets_the_field(folder, tmp_path, capfd):
    fixed = write(tmp_path / "fixed.csv", "train/dog/1.jpg,=cat", "train/dog/2.jpg,=cat")
    message, code = cli.attempt(
        "inspect", [f"--config=folder:dir={folder},image_size=16", f"--labels={fixed}", f"--out={tmp_path / 'out'}"]
    )
    printed = capfd.readouterr().out
    assert code == 0, message
    assert f"train: ncl-jax train --config=folder:dir={folder},image_size=16 --labels={fixed}" in printed
    assert "relabelled 2, removed 0" in printed and ["=cat", "6", "4", "few"] in map(str.split, printed.splitlines())
    for flag in (f"--labels={tmp_path}/gone.csv", "--labels=fixed.txt"):
        arguments = [f"--config=folder:dir={folder},image_size=16", flag, f"--workdir={tmp_path}/run"]
        assert cli.attempt("train", arguments)[1] == 1
