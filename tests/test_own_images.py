"""Folders and lists of images, and the three large benchmarks: what is read, and what is said where it cannot be."""

import contextlib
import gzip
import hashlib
import json
import pathlib
import sys
import types
import zipfile
from zlib import crc32

import numpy as np
import pytest
from PIL import Image

from ncl_jax.config import base_config, checks
from ncl_jax.data import dataset, sources
from ncl_jax.data.images import parallel
from ncl_jax.data.sources import benchmarks, layouts, lists, tfds_files
from ncl_jax.data.types import Request
from ncl_jax.errors import ConfigError, DataError

CLASSES = {"cat": 5, "dog": 3, "Ähre": 2}


def write_image(path, seed=0, size=(12, 10)):
    """A JPEG of its own content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path, "PNG" if path.suffix == ".png" else "JPEG")


def make_folder(root, splits=("train", "test"), classes=CLASSES):
    """A small folder of classes; returns it."""
    for split in splits:
        for name, count in classes.items():
            for i in range(count):
                write_image(root / split / name / f"{i}.jpg", crc32(f"{split}/{name}/{i}".encode()))
    return root


def load(root, name="folder", **fields):
    return sources.load(Request(name, pathlib.Path(root), **fields))


# Folders


def test_a_folder_of_splits(tmp_path):
    make_folder(tmp_path, ("train", "val", "test"))
    write_image(tmp_path / "train" / "cat" / "deep" / "down" / "x.PnG")
    write_image(tmp_path / "train" / "cat" / ".hidden.jpg")
    write_image(tmp_path / "train" / ".thumbnails" / "y.jpg")
    (tmp_path / "train" / "dog" / "notes.txt").write_text("no image")
    source = load(tmp_path)
    assert source.class_names == ("cat", "dog", "Ähre")
    assert {name: np.bincount(s.labels).tolist() for name, s in source.splits.items()} == {
        "train": [6, 3, 2], "val": [5, 3, 2], "test": [5, 3, 2],
    }  # fmt: skip
    train = source.splits["train"]
    assert train.images.names[5] == "train/cat/deep/down/x.PnG" and train.labels.dtype == np.int32
    assert train.images[5] == (tmp_path / "train/cat/deep/down/x.PnG").read_bytes()
    assert [len(train.images[i]) for i in range(11)] == train.images.sizes.tolist()


@pytest.mark.parametrize("inner", ["", "train"])
def test_a_test_part_is_cut_from_classes_alone(tmp_path, inner):
    make_folder(tmp_path, (inner,), {"a": 20, "b": 6, "c": 2, "d": 1})
    source = load(tmp_path, test_share=0.25)
    counts = {name: np.bincount(s.labels, minlength=4).tolist() for name, s in source.splits.items()}
    assert counts["test"][2:] == [1, 0] and np.add(*counts.values()).tolist() == [20, 6, 2, 1]
    assert 2 <= counts["test"][0] <= 10 and 1 <= counts["test"][1] <= 3
    names = [set(source.splits[name].images.names) for name in ("train", "test")]
    assert not names[0] & names[1] and len(names[0] | names[1]) == 29
    again = load(tmp_path, test_share=0.25)
    assert again.splits["test"].images.names.tolist() == source.splits["test"].images.names.tolist()


@pytest.mark.parametrize(
    ("splits", "place", "among"),
    [
        ((".",), "runs/a", True), ((".",), "cat/a", True), ((".",), ".", True), ((".",), "../a", False),
        (("train", "test"), "runs/a", False), (("train", "test"), ".", False), (("train", "test"), "test/a", True),
    ],
)  # fmt: skip
def test_a_run_among_the_images_would_become_one_of_their_classes(tmp_path, splits, place, among):
    make_folder(tmp_path / "data", splits)
    config = base_config()
    config.data.name, config.data.dir = "folder", str(tmp_path / "data")
    with pytest.raises(ConfigError, match="lies among the images of data.dir=") if among else contextlib.nullcontext():
        checks.check_place(config, tmp_path / "data" / place)


def test_a_folder_can_be_cut_to_a_profile(tmp_path):
    make_folder(tmp_path, classes={"a": 16, "b": 16, "c": 16})
    facts = dataset.load(Request("folder", tmp_path), 4.0, size=8).facts
    assert facts.class_counts == (16, 8, 4) and facts.image_shape == (8, 8, 3)
    whole = dataset.load(Request("folder", tmp_path), size=8).facts
    assert whole.class_counts == (16, 16, 16) and whole.rows_checksum != facts.rows_checksum


def test_odd_names(tmp_path):
    name = "a very long name " * 12 + "ß"
    make_folder(tmp_path, classes={name: 2, "日本語 #1": 1, "-x": 1})
    source = load(tmp_path)
    assert set(source.class_names) == {name, "日本語 #1", "-x"}
    data = dataset.load(Request("folder", tmp_path), size=8)
    assert len(data.listing()) == 8 and any("日本語 #1" in line for line in data.listing())


def test_a_name_of_two_lines_is_one_line_of_the_list_of_files(tmp_path):
    make_folder(tmp_path)
    write_image(tmp_path / "train" / "cat" / "a\nb.jpg")
    listing = dataset.load(Request("folder", tmp_path), size=8).listing()
    paths = [line.split("\t")[2] for line in listing]
    assert len(paths) == 21 and "train/cat/a\\nb.jpg" in paths


def test_names_in_two_spellings_are_one_class(tmp_path):
    """macOS writes é as two characters."""
    make_folder(tmp_path, ("train",), {"é": 1, "b": 2})
    make_folder(tmp_path, ("test",), {"e\u0301": 1, "b": 1})
    assert load(tmp_path).class_names == ("b", "é")
    make_folder(tmp_path, ("train",), {"e\u0301": 1})
    with pytest.raises(DataError, match="two folders of the name 'é'"):
        load(tmp_path)


def empty_class(root):
    make_folder(root)
    (root / "train" / "fish").mkdir()


def one_and_empty(root):
    make_folder(root, (".",), {"cat": 3})
    (root / "fish").mkdir()


def texts_only(root):
    empty_class(root)
    (root / "train" / "fish" / "readme.md").write_text("soon")


FOLDERS = {
    "no such folder": (lambda root: None, "data.dir=.*/data is not a folder: .*holds train"),
    "a file": (lambda root: root.write_text(""), "is not a folder"),
    "no class": (lambda root: root.mkdir(), "has no folder of a class"),
    "no class in train": (lambda root: (root / "train").mkdir(parents=True), "data/train has no folder of a class"),
    "no train": (lambda root: make_folder(root, ("val", "test")), "has val and test, but no train"),
    "a class only in test": (
        lambda root: (make_folder(root), write_image(root / "test" / "fish" / "1.jpg")),
        "data/test has classes that train has not: fish",
    ),
    "one class beside an empty one": (one_and_empty, "class 'fish' has no image in .*data/fish: add images, or remove"),
    "a class of other files": (texts_only, "class 'fish' has no file that ends in .jpg, .jpeg"),
    "a class of one image each": (lambda root: make_folder(root, ("",), {"a": 1, "b": 1}), "no class has two images"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_what_is_wrong_with_a_folder(tmp_path, name):
    make, said = FOLDERS[name]
    make(tmp_path / "data")
    with pytest.raises(DataError, match=said):
        load(tmp_path / "data")


# Lists

LABELS = {"cat": 0, "dog": 1, "Ähre": 2}


def rows(split="train"):
    return [(f"{split}/{name}/{i}.jpg", LABELS[name]) for name, count in CLASSES.items() for i in range(count)]


def text(split):
    return "".join(f"{path} {label}\n" for path, label in rows(split))


def csv(split):
    return "id,label,path\n" + "".join(f'7,{label},"{path}"\n' for path, label in rows(split))


def authors(split):
    notes = [{"fpath": path, "category_id": label, "image_height": 3} for path, label in rows(split)]
    return json.dumps({"annotations": notes, "num_classes": 3})


def inaturalist(split):
    names = [{"id": 100 + i, "file_name": path} for i, (path, _) in enumerate(rows(split))]
    notes = [{"id": i, "image_id": 100 + i, "category_id": label} for i, (_, label) in enumerate(rows(split))]
    return json.dumps({"images": names, "annotations": notes})


def named(split):
    return "path,class\n" + "".join(f"{path},{path.split('/')[1]}\n" for path, _ in rows(split))


@pytest.mark.parametrize(
    ("write", "kind"), [(text, "txt"), (csv, "csv"), (authors, "json"), (inaturalist, "json"), (named, "csv")]
)
@pytest.mark.parametrize("packed", [False, True])
def test_every_kind_of_list_names_the_same_images(tmp_path, write, kind, packed):
    make_folder(tmp_path / "data")
    given = {}
    for split in ("train", "test"):
        path = tmp_path / f"{split}.{kind}{'.gz' * packed}"
        content = write(split).encode()
        path.write_bytes(gzip.compress(content) if packed else content)
        given[split] = str(path)
    source, folder = load(tmp_path / "data", "list", lists=given), load(tmp_path / "data")
    assert source.class_names == folder.class_names
    for split in ("train", "test"):
        assert source.splits[split].images.names.tolist() == folder.splits[split].images.names.tolist()
        np.testing.assert_array_equal(source.splits[split].labels, folder.splits[split].labels)


def of_lines(tmp_path, lines, classes=None, **more):
    make_folder(tmp_path / "data")
    (tmp_path / "data" / "train.txt").write_text("\n".join(lines))
    given = {"train": "train.txt"}
    if classes is not None:
        (tmp_path / "classes.txt").write_text(classes)
        given["classes"] = str(tmp_path / "classes.txt")
    return load(tmp_path / "data", "list", lists=given | more)


def test_class_names(tmp_path):
    lines = [f"{path} {label}" for path, label in rows()]
    assert of_lines(tmp_path, lines, "one\ntwo\nthree four\n").class_names == ("one", "two", "three four")
    mixed = ["train/cat/0.jpg 0", "train/dog/0.jpg 0", "train/dog/1.jpg 1", "train/dog/2.jpg 1"]
    assert of_lines(tmp_path, mixed).class_names == ("class 0", "class 1")
    words = ["train/cat/0.jpg b", "train/cat/1.jpg b", "train/dog/0.jpg a"]
    assert of_lines(tmp_path, words).class_names == ("a", "b")


def test_paths_below_the_root_however_they_are_written(tmp_path):
    root = tmp_path / "data"
    lines = [f"{root}/train/cat/0.jpg 0", "train/../train/cat/1.jpg 0", "./train/dog/0.jpg 1", "train/dog/1.jpg 1"]
    found = of_lines(tmp_path, lines).splits
    assert {name for split in found.values() for name in split.images.names} == {
        "train/cat/0.jpg",
        "train/cat/1.jpg",
        "train/dog/0.jpg",
        "train/dog/1.jpg",
    }


LISTS = {
    "a missing label": (["train/cat/0.jpg 0", "train/cat/1.jpg"], "line 2: 'train/cat/1.jpg' has no label"),
    "a label out of range": (["train/cat/0.jpg 0", "train/dog/0.jpg 3"], "image 2 .* has the label '3', but the 3 cl"),
    "a negative label": (["train/cat/0.jpg 0", "train/dog/0.jpg -1"], "has the label '-1'"),
    "a path out of the root": (["../secret.jpg 0"], r"the path '../secret.jpg' of the list leads out of data.dir"),
    "an absolute path": (["/etc/passwd 0"], "the path '/etc/passwd' of the list leads out of data.dir"),
    "a missing file": (["train/cat/77.jpg 0"], "train/cat/77.jpg of the list does not exist; the nearest .*cat/"),
    "a missing folder": (["trian/cat/0.jpg 0"], "the nearest that exists is .*/data/train"),
    "an empty list": ([""], "names no image"),
}


@pytest.mark.parametrize("name", LISTS)
def test_what_is_wrong_with_a_list(tmp_path, name):
    lines, said = LISTS[name]
    with pytest.raises(DataError, match=said):
        of_lines(tmp_path, lines, "x\ny\nz")


def test_two_classes_with_one_name(tmp_path):
    with pytest.raises(DataError, match="two classes have the name 'x'"):
        of_lines(tmp_path, ["train/cat/0.jpg 0"], "x\ny\nx\n")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "a.csv",
            "file,kind\na.jpg,1\n",
            "has the columns file, kind: the path is file, none .* label .label or class.*label_column",
        ),
        ("a.csv", "path,label\na.jpg,\n", "line 2: the label is missing"),
        ("a.csv", "path,label\n,3\n", "line 2: the path is missing"),
        ("a.json", "{", "is not a list in JSON"),
        ("a.json", "[]", "is not a list in JSON"),
        ("a.json", '{"annotations": [{"fpath": "a"}]}', "is not a list in JSON .*category_id"),
        ("a.txt.gz", "plain", "cannot be read"),
    ],
)
def test_a_list_that_cannot_be_parsed(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=said):
        lists.parse(tmp_path / name)


def test_lists_that_are_not_there(tmp_path):
    with pytest.raises(DataError, match=r"data\.list\.train is missing"):
        load(tmp_path, "list")
    with pytest.raises(DataError, match="the list t.txt .* neither"):
        load(tmp_path, "list", lists={"train": "t.txt"})
    with pytest.raises(DataError, match="is not a folder"):
        load(tmp_path / "none", "list", lists={"train": "t.txt"})


# The benchmarks

_OUTDOOR, _VALIDATION = "apartment_building", "Places365_val_00000001.jpg"
FORMS = {  # the path of a list, and the same image in other forms of the data set
    f"train/{_OUTDOOR}-outdoor/1.jpg": [f"data_{size}/a/{_OUTDOOR}/outdoor/1.jpg" for size in ("256", "large")],
    f"data_256/a/{_OUTDOOR}/outdoor/1.jpg": [f"train/{_OUTDOOR}-outdoor/1.jpg"],
    f"val/airfield/{_VALIDATION}": [f"{folder}/{_VALIDATION}" for folder in ("val_256", "val_large", "val")],
    f"val_256/{_VALIDATION}": [f"val_large/{_VALIDATION}"],
    "val/n01440764/ILSVRC2012_val_00000293.JPEG": ["val/ILSVRC2012_val_00000293.JPEG"],
    "train_val2018/Plantae/7291/a.jpg": ["Plantae/7291/a.jpg"],
}


@pytest.mark.parametrize(("listed", "there"), [(path, form) for path, forms in FORMS.items() for form in forms])
def test_paths_are_mapped_between_the_known_forms(tmp_path, listed, there):
    write_image(tmp_path / there)
    assert layouts.locate(tmp_path, [listed]).names.tolist() == [there]


def test_validation_images_are_found_in_any_folder_of_val(tmp_path):
    write_image(tmp_path / "val" / "by" / "hand" / "Places365_val_00000007.jpg")
    found = layouts.locate(tmp_path, ["val_256/Places365_val_00000007.jpg"])
    assert found.names.tolist() == ["val/by/hand/Places365_val_00000007.jpg"]


@pytest.fixture
def small(monkeypatch):
    """iNaturalist 2018 of three classes."""
    totals = {"train": sum(CLASSES.values()), "test": sum(CLASSES.values())}
    benchmark = benchmarks.BENCHMARKS["inaturalist2018"]
    fields = benchmark._replace(totals=totals, largest=5, smallest=2, num_classes=3)
    monkeypatch.setitem(benchmarks.BENCHMARKS, "inaturalist2018", fields)


LISTS_OF = [("iNaturalist18_train.txt", "iNaturalist18_val.txt"), ("train2018.json", "val2018.json")]


@pytest.mark.parametrize("names", LISTS_OF)
def test_a_benchmark_from_its_lists_or_its_annotations(tmp_path, small, names):
    make_folder(tmp_path)
    write = text if names[0].endswith("txt") else inaturalist
    for split, name in zip(("train", "test"), names, strict=True):
        (tmp_path / name).write_text(write(split))
    data = dataset.load(Request("inaturalist2018", tmp_path), size=8)
    assert data.facts.class_counts == (5, 3, 2) and len(data.test) == 10
    assert len(data.notes) == 2 and f"{names[0]}: git blob" in data.notes[0]
    assert ("not the published one (4accdb7584d2)" in data.notes[0]) == (names[0] == "iNaturalist18_train.txt")


def test_a_published_list_is_recognised(tmp_path, monkeypatch):
    content = b"a.jpg 0\n"
    blob = hashlib.sha1(b"blob 8\0" + content).hexdigest()
    (tmp_path / "list.txt").write_bytes(content)
    (tmp_path / "list.txt.gz").write_bytes(gzip.compress(content))
    for published, said in ((blob, ", as published"), ("0" * 40, ", not the published one (000000000000)")):
        monkeypatch.setitem(benchmarks.PUBLISHED, "list.txt", published)
        for name in ("list.txt", "list.txt.gz"):
            assert benchmarks.identity(tmp_path / name) == f"{name}: git blob {blob[:12]}{said}"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"totals": {"train": 99, "test": 10}}, "train has 10 images, not 99; read from .*git blob"),
        ({"largest": 7}, "the largest and smallest class have 5 and 2 training images, not 7 and 2"),
        ({"num_classes": 2}, "inaturalist2018: "),
    ],
)
def test_a_list_of_another_size_is_refused(tmp_path, small, monkeypatch, change, said):
    make_folder(tmp_path)
    for split, name in (("train", "iNaturalist18_train.txt"), ("test", "iNaturalist18_val.txt")):
        (tmp_path / name).write_text(text(split))
    fields = benchmarks.BENCHMARKS["inaturalist2018"]._replace(**change)
    monkeypatch.setitem(benchmarks.BENCHMARKS, "inaturalist2018", fields)
    with pytest.raises(DataError, match=said):
        load(tmp_path, "inaturalist2018")


@pytest.mark.parametrize("name", benchmarks.BENCHMARKS)
def test_what_to_download_and_where_to_put_it(tmp_path, name):
    with pytest.raises(DataError) as error:
        load(tmp_path, name)
    benchmark = benchmarks.BENCHMARKS[name]
    for part in (str(tmp_path), benchmark.lists["train"][0], benchmark.lists["test"][0], "docs/data.md", "unpacked to"):
        assert part in str(error.value)


# TFDS

FIXTURE = pathlib.Path(__file__).parent / "data" / "tfds_cifar10.zip"


def test_any_set_that_tfds_prepared(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("array_record")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with zipfile.ZipFile(FIXTURE) as file:
        file.extractall(tmp_path)
    folder = tmp_path / "cifar10" / "3.0.2"
    for attempt in range(3):  # the second time with labels that were kept, the third with a damaged file of them
        if attempt == 2:
            for kept in (tmp_path / "cache").rglob("*.npz"):
                kept.write_bytes(kept.read_bytes()[:50])
        source = load(folder, "tfds")
        plain = load(tmp_path, "cifar10", download=False)
        assert source.class_names == plain.class_names and set(source.splits) == {"train", "test"}
        pixels = {image.tobytes(): label for image, label in zip(*plain.splits["train"], strict=True)}
        data = dataset.load(Request("tfds", folder), size=32)
        assert len(data.train) == 20 and sum(data.facts.class_counts) == 20
        for row in range(20):
            assert (
                pixels[parallel.decoded(source.splits["train"].images, row).tobytes()]
                == source.splits["train"].labels[row]
            )


def test_a_folder_that_tfds_did_not_prepare(tmp_path):
    with pytest.raises(DataError, match=r"holds no dataset_info\.json"):
        load(tmp_path, "tfds")


# Found by trying


def test_labels_are_names_in_every_list_where_they_are_in_train(tmp_path):
    make_folder(tmp_path / "data")
    (tmp_path / "data" / "test.txt").write_text("test/cat/0.jpg 1\n")
    source = of_lines(tmp_path, ["train/cat/0.jpg 5", "train/cat/1.jpg cat", "train/dog/0.jpg 1"], test="test.txt")
    assert source.class_names == ("1", "5", "cat") and source.splits["test"].labels.tolist() == [0]


def test_images_at_the_root_and_paths_of_both_kinds(tmp_path):
    write_image(tmp_path / "data" / "q.jpg")
    assert of_lines(tmp_path, ["q.jpg 0", "train/dog/0.jpg 1", "train/dog/1.jpg 1"]).class_names == (".", "train/dog")
    both = [f"{tmp_path}/data/train/cat/0.jpg 0", "train/dog/0.jpg 1", "train/dog/1.jpg 1"]
    assert of_lines(tmp_path, both).class_names == ("class 0", "class 1")


def test_labels_far_beyond_the_images_are_refused(tmp_path):
    with pytest.raises(DataError, match="has the label 3000000, but there are 2 images: labels must count the classes"):
        of_lines(tmp_path, ["train/cat/0.jpg 0", "train/dog/0.jpg 3000000"])


def test_cocos_categories_name_the_classes(tmp_path):
    make_folder(tmp_path / "data")
    names = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]
    images = [{"id": i, "file_name": f"train/{name}/{i}.jpg"} for i, name in enumerate(("cat", "dog", "dog"))]
    notes = [{"image_id": i, "category_id": 3 if i == 0 else 7} for i in range(3)]
    content = {"images": images, "annotations": notes, "categories": names}
    (tmp_path / "data" / "train.json").write_text(json.dumps(content))
    lists_of = {"train": "train.json", "test": "train.json"}
    source = load(tmp_path / "data", "list", lists=lists_of)
    assert source.class_names == ("cat", "dog") and source.splits["train"].labels.tolist() == [0, 1, 1]


def test_a_link_that_leads_nowhere_is_an_unreadable_file(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "train" / "cat" / "9.jpg").symlink_to("/nonexistent")
    split = load(tmp_path).splits["train"]
    assert len(split) == 11
    found = [error for error in parallel.errors(split, "") if error]
    assert len(found) == 1 and "9.jpg cannot be read (No such file" in found[0]


def test_a_run_is_told_what_can_be_done_about_an_unreadable_file(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "train" / "cat" / "3.jpg").write_bytes(b"text")
    split = load(tmp_path).splits["train"]
    for read in (lambda: parallel.sizes(split, ""), lambda: parallel.fitted(split, 9, 8, "")):
        with pytest.raises(DataError, match=r"cat/3.jpg cannot be read as an image .*set data.skip_unreadable=True"):
            read()


def test_a_set_without_a_readable_image_is_refused(tmp_path):
    make_folder(tmp_path)
    for path in (tmp_path / "test").rglob("*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="no image of test can be read"):
        dataset.load(Request("folder", tmp_path), size=8, skip_unreadable=True)


class Prepared:
    """A data set as TFDS shows it: records by split."""

    def __init__(self, names, splits):
        self.splits = splits
        features = {"image": None, "label": types.SimpleNamespace(names=names), "filename": None}
        self.info = types.SimpleNamespace(features=features, splits=splits)

    def as_data_source(self, split, decoders):
        return self.splits[split]


@pytest.fixture
def prepared_folder(tmp_path, monkeypatch):
    """Makes a folder appear as prepared by TFDS: `make(name, class names, splits)`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    decode = types.SimpleNamespace(SkipDecoding=lambda: None)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", types.SimpleNamespace(decode=decode))

    def make(name, names, splits):
        folder = tmp_path / name / "1.0.0"
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").write_text(json.dumps({"name": name, "fileFormat": "array_record"}))
        builder = Prepared(names, splits)
        monkeypatch.setattr(tfds_files, "opened", lambda place: contextlib.nullcontext(builder))
        return folder

    return make


def records(labels, prefix=""):
    """Records whose image is named by its bytes."""
    return [
        {"image": f"{prefix}{i}".encode(), "label": label, "filename": f"{prefix}{i}.jpg"}
        for i, label in enumerate(labels)
    ]


def test_tfds_without_a_test_split(prepared_folder):
    source = load(prepared_folder("flowers", ["rose", "lily"], {"train": records([0, 1] * 10)}), "tfds", test_share=0.3)
    counts = {name: np.bincount(split.labels).tolist() for name, split in source.splits.items()}
    assert np.add(counts["train"], counts["test"]).tolist() == [10, 10] and set(counts["test"]) <= {2, 3, 4, 5, 6}
    assert source.class_names == ("rose", "lily")
    kept = {source.splits[name].images[i] for name in source.splits for i in range(len(source.splits[name]))}
    assert len(kept) == 20


def test_tfds_test_images_without_labels_leave_validation_as_the_test(prepared_folder):
    splits = {"train": records([0, 1]), "validation": records([1, 0, 1], "v"), "test": records([-1, -1], "t")}
    source = load(prepared_folder("some", ["a", "b"], splits), "tfds")
    assert set(source.splits) == {"train", "test"} and source.splits["test"].images[0] == b"v0"


def test_places_lists_over_a_prepared_set(prepared_folder, tmp_path):
    """The lists name images of `places365_small` by `filename`, in another form of the paths."""
    train = [{"image": b"x", "label": 0, "filename": f"train/a-b/{i}.jpg"} for i in range(5)]
    train += [{"image": b"y", "label": 1, "filename": f"train/c/{i}.jpg"} for i in range(5)]
    folder = prepared_folder("places365_small", ["a", "c"], {"train": train, "validation": records([0], "val/")})
    (tmp_path / "train.txt").write_text("data_256/a/a/b/1.jpg 0\ndata_256/a/a/b/4.jpg 0\ndata_256/c/c/2.jpg 1\n")
    (tmp_path / "test.txt").write_text("val/0.jpg 0\n")
    given = {"train": str(tmp_path / "train.txt"), "test": str(tmp_path / "test.txt")}
    source = load(folder, "tfds", lists=given)
    images = source.splits["train"].images
    assert [images[i] for i in range(3)] == [b"x", b"x", b"y"] and source.splits["train"].labels.tolist() == [0, 0, 1]
    assert source.splits["test"].images[0] == b"val/0"
    (tmp_path / "train.txt").write_text("train/a-b/1.jpg 0\ntrain/a-b/9.jpg 0\n")
    with pytest.raises(DataError, match="holds no image train/a-b/9.jpg of the list"):
        load(folder, "tfds", lists=given)
    (tmp_path / "train.txt").write_text("train/a-b/1.jpg 0\nval/0.jpg 0\n")
    with pytest.raises(DataError, match=r"a list names images of several splits of .* \(train, validation\)"):
        load(folder, "tfds", lists=given)


@pytest.mark.parametrize("name", ["imagenet_lt", "inaturalist2018"])
def test_benchmarks_as_tfds_prepared_them(prepared_folder, monkeypatch, name):
    totals = {"train": 4, "test": 2} if name == "inaturalist2018" else {"train": 4, "val": 1, "test": 2}
    fields = {"totals": totals, "largest": 3, "smallest": 1, "num_classes": 2}
    monkeypatch.setitem(benchmarks.BENCHMARKS, name, benchmarks.BENCHMARKS[name]._replace(**fields))
    splits = {"train": records([0, 0, 0, 1]), "validation": records([0, 1] if len(totals) == 2 else [1])}
    splits |= {"test": records([-1, -1] if len(totals) == 2 else [0, 1])}
    folder = prepared_folder(benchmarks.BENCHMARKS[name].tfds, ["a", "b"], splits)
    source = load(folder.parent.parent, name)
    assert {split: len(part) for split, part in source.splits.items()} == totals
    splits["train"].append(splits["train"][0])
    for kept in (folder.parent.parent / "cache").rglob("*.npz"):
        kept.unlink()
    with pytest.raises(DataError, match="train has 5 images, not 4; read from"):
        load(folder.parent.parent, name)
