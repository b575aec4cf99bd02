"""Faults of folders of images: which folders are splits and classes, and what is not used."""

import json
import os
import pathlib
import re
import unicodedata
from zlib import crc32

import pytest
from test_own_images import make_folder, write_image

import ncl_jax
from ncl_jax import cli
from ncl_jax.config import base_config, checks, recipes
from ncl_jax.config import files as config_files
from ncl_jax.data import dataset, sources
from ncl_jax.data.sources import walk
from ncl_jax.data.types import Request
from ncl_jax.errors import ConfigError, DataError, ExportError
from ncl_jax.runtime.files import expand

NOBODY = "~nobody_of_this_name/x"
TWO = ("ant", "bee")


def touch(root, *paths):
    """Files that are never decoded."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    return root


def of(*places, classes=TWO, count=2, ending="jpg"):
    """Paths of images in the classes of each place."""
    return [f"{place}/{name}/{i}.{ending}" for place in places for name in classes for i in range(count)]


def load(root, layout="auto", group_by="", **given):
    return sources.load(Request("folder", root, lists=given, layout=layout, group_by=group_by))


SPLITS = {  # what is there; the folder of each split; what the notes say
    "another case": (of("Train", "TEST"), {"train": "Train", "test": "TEST"}, "train is read from Train, test .*TEST"),
    "other words": (of("Training", "Testing"), {"train": "Training", "test": "Testing"}, "Training.*Testing"),
    "valid": (of("train", "valid"), {"train": "train", "val": "valid"}, "^val is read from valid$"),
    "three": (of("train", "Validation", "test"), {"train": "train", "val": "Validation", "test": "test"}, "Validation"),
    "sets": (of("trainset", "testset"), {"train": "trainset", "test": "testset"}, "trainset.*testset"),
    "others beside them": (
        of("train", "test", "dev", "train_masks"), {"train": "train", "test": "test"},
        r"^not used: 2 folders beside the splits .dev, train_masks.$",
    ),
    "images beside them": (
        [*of("train", "test"), "train/cover.png", "x.gif"], {"train": "train", "test": "test"},
        "^not used: 2 files beside the folders of classes$",
    ),
    "an empty folder beside them": ([*of("train", "test"), "runs/a/log.txt"], {"train": "train", "test": "test"}, "runs"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPLITS)
def test_splits_go_by_their_names(tmp_path, name):
    paths, folders, said = SPLITS[name]
    source = load(touch(tmp_path, *paths))
    assert source.class_names == TWO and len(source.notes) == 1
    assert {split: {path.split("/")[0] for path in part.images.names} for split, part in source.splits.items()} == {
        split: {folder} for split, folder in folders.items()
    }
    assert re.search(said, source.notes[0])


CLASSES = {  # what is there; the classes, of which a test part is cut
    "a class called train": ([f"{n}/{i}.jpg" for n in ("bus", "train") for i in range(3)], ("bus", "train")),
    "valid and invalid": ([f"{n}/{i}.jpg" for n in ("invalid", "valid") for i in range(3)], ("invalid", "valid")),
    "valid and invalid, deeper": (of("invalid", "valid"), ("invalid", "valid")),
    "parts of names": ([f"{n}/{i}.jpg" for n in ("test_tube", "train_station") for i in range(3)], ("test_tube", "train_station")),
    "one part of a name, deeper": (of("bus_station", "train_station"), ("bus_station", "train_station")),
}  # fmt: skip


@pytest.mark.parametrize("name", CLASSES)
def test_classes_may_have_the_names_of_splits(tmp_path, name):
    paths, classes = CLASSES[name]
    source = load(touch(tmp_path, *paths), layout="class/group" if "deeper" in name else "auto")
    assert source.class_names == classes and set(source.splits) == {"train", "test"}
    assert all("is taken for a class" in line for line in source.notes)
    assert load(tmp_path, train=".").class_names == classes


UNCLEAR = {  # what is there, and what is asked to be passed
    "suffixes": (of("train_images", "test_images"), "train=train_images,test=test_images"),
    "prefixes": (of("flowers-train", "flowers-val"), "train=flowers-train,val=flowers-val"),
    "one folder": (of("train_images"), "train=train_images"),
    "words without a gap": (of("TrainingImages", "val2017"), "train=TrainingImages,val=val2017"),
    "twice nested": (of("seg_train/seg_train", "seg_test/seg_test"), "train=seg_train,test=seg_test"),
    "train and a suffix": (of("train", "test_images"), "train=train,test=test_images"),
    "a suffix and test": (of("train_images", "test"), "train=train_images,test=test"),
    "two of one split": (of("train", "val", "valid"), "train=train,val=val"),
    "two cases": (of("train", "Train", "test"), "train=Train,test=test"),
    "cameras above the classes": (of("CAM0", "CAM1", "CAM2"), r"layout=class/group .*CAM0, CAM1, CAM2.*layout=group/class .*ant, bee"),
    "cameras in train": (of("train/CAM0", "train/CAM1", "test/CAM2"), r"train holds folders in folders.*layout=group/class"),
    "splits below the classes": (of("ant", "bee", classes=("train", "test")), "if those are splits, move them above"),
    "no train": (of("Test", "valid"), "Test.*no train.*train=FOLDER"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNCLEAR)
def test_what_is_not_clear_is_asked(tmp_path, name):
    paths, said = UNCLEAR[name]
    with pytest.raises(DataError, match=said):
        load(touch(tmp_path, *paths))


def test_what_is_asked_can_be_passed(tmp_path):
    for split in ("train_images", "test_images"):
        make_folder(tmp_path, (split,), {"ant": 3, "bee": 3})
    config = recipes.folder(f"dir={tmp_path},train=train_images,test=test_images,image_size=16")
    assert (config.data["list"].train, config.data["list"].test, config.data.eval_split) == (
        "train_images",
        "test_images",
        "test",
    )
    source = load(tmp_path, train="train_images", test="test_images")
    assert source.class_names == TWO and len(source.splits["test"]) == 6 and not source.notes
    config.data.dir = str(tmp_path)
    with pytest.raises(ConfigError, match="lies among the images"):
        checks.check_place(config, tmp_path / "test_images" / "run")
    checks.check_place(config, tmp_path / "runs" / "a")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"train": "none"}, "train=none is not a folder in .*ant, bee"), ({"train": "../x"}, r"train=\.\./x leads out"),
        ({"test": "ant"}, "train=FOLDER"), ({"train": "ant"}, "ant has no folder of a class"),
    ],
)  # fmt: skip
def test_a_folder_that_is_given_and_wrong(tmp_path, given, said):
    touch(tmp_path, *of("."))
    with pytest.raises(DataError, match=said):
        load(tmp_path, **given)


UNUSED = {  # what lies beside the images; what the note says after `not used: `
    "other endings": (["ant/a.CR2", "ant/b.cr2", "bee/c.tga", "bee/noending"], r"4 files .*\(cr2 2, none 1, tga 1\)"),
    "a camera trap's card": (
        ["ant/a.MP4", "ant/a.xmp", "bee/0.jpg.json", "bee/1.AVI"], r"4 files .*\(avi 1, json 1, mp4 1, xmp 1\)"
    ),
    "one other ending": (["ant/Thumbs.db"], r"1 file without an image's ending \(db 1\)"),
    "names with a dot": (["ant/._0.jpg", ".thumbnails/0.jpg", "ant/.ipynb_checkpoints/0-checkpoint.jpg"], "3 names with a dot"),
    "a server's folder": (["ant/@eaDir/0.jpg/THUMB.jpg", "bee/@eaDir/1.jpg"], "2 files in @eaDir"),
    "a server's folder as a class": (["@eaDir/0.jpg"], "1 file in @eaDir"),
    "an archive's folder": (["__MACOSX/ant/._0.jpg"], "1 file in __MACOSX"),
    "smaller copies": (["ant/Thumbs/0.jpg", "ant/thumbnails/1.jpg"], "1 file in Thumbs, 1 file in thumbnails"),
    "an ending of two lines": (["ant/x.a\nb"], r"1 file .*a.nb 1"),
    "an image of no class": (["cover.jpg"], "1 file beside the folders of classes"),
    "several": (["ant/x.txt", "bee/@eaDir/1.jpg", "ant/.x"], "1 file .*txt 1.*, 1 file in @eaDir, 1 name with a dot"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNUSED)
def test_what_is_not_used_is_counted(tmp_path, name):
    paths, said = UNUSED[name]
    source = load(touch(tmp_path, *of("."), *paths))
    assert source.class_names == TWO and sum(map(len, source.splits.values())) == 4
    assert len(source.notes) == 1 and re.match(f"not used: {said}", source.notes[0])


def test_what_lies_beside_the_splits_is_counted(tmp_path):
    beside = "__MACOSX/ant/._0.jpg", "@eaDir/0.jpg", ".git/config", "rest/0.jpg"
    source = load(touch(tmp_path, *of("train"), *of("test"), *beside))
    (line,) = source.notes
    assert "1 file in @eaDir, 1 file in __MACOSX, 1 name with a dot" in line and "beside the splits (rest)" in line


def test_heic_is_counted_and_the_extra_named_where_it_cannot_be_read(tmp_path, monkeypatch):
    plain = tuple(suffix for suffix in walk.SUFFIXES if suffix not in walk.HEIF)
    monkeypatch.setattr(walk, "SUFFIXES", plain)
    source = load(touch(tmp_path, *of("."), "ant/a.HEIC", "bee/b.heif"))
    assert sum(map(len, source.splits.values())) == 4
    assert source.notes == (
        "not used: 2 files without an image's ending (heic 1, heif 1); HEIC needs pip install 'pillow-heif>=0.21'",
    )
    monkeypatch.setattr(walk, "SUFFIXES", (*plain, *walk.HEIF))
    assert sum(map(len, load(tmp_path).splits.values())) == 6


def test_a_class_of_other_files_says_which(tmp_path):
    with pytest.raises(
        DataError, match=r"class 'cow' has no file that ends in .jpg.*, but .cr2 2, .mp4 1 in .*/cow: add images"
    ):
        load(touch(tmp_path, *of("."), "cow/0.CR2", "cow/1.cr2", "cow/2.MP4"))


def test_empty_classes_are_left_out(tmp_path):
    touch(tmp_path, *of("train"), *of("test"))
    for name in ("train/cow", "train/dog", "test/bee"):
        (tmp_path / name).mkdir(exist_ok=True)
    for path in (tmp_path / "test/bee").glob("*"):
        path.unlink()
    (tmp_path / "train/cow/.DS_Store").write_bytes(b"x")  # nobody's file
    source = load(tmp_path)
    assert source.class_names == TWO and set(source.splits["test"].labels.tolist()) == {0}
    assert [line for line in source.notes if "are empty" in line and "3 (train cow, train dog, test bee)" in line]


def test_classes_of_other_files_are_left_out_where_faults_are_skipped(tmp_path):
    touch(tmp_path, *of("."), "cow/0.CR2", "dog/1.mp4")
    source = sources.load(Request("folder", tmp_path, skip=True))
    lines = [line for _, line in source.left_out["train"]]
    assert source.class_names == TWO and len(lines) == 2 and "'cow'" in lines[0]
    with pytest.raises(DataError, match="'ant' has no file"):  # one class is left
        sources.load(Request("folder", touch(tmp_path / "one", "ant/0.CR2", "bee/0.jpg", "bee/1.jpg"), skip=True))


def test_the_same_is_counted_in_both_readings(tmp_path):
    card = [f"CAM{camera}/{name}/{image}.jpg" for camera in range(3) for name in TWO for image in range(4)]
    beside = ["CAM0/Thumbs.db", "CAM1/.DS_Store", "CAM1/ant/x.xmp", "readme.txt", ".DS_Store", "CAM2/@eaDir/0.jpg"]
    touch(tmp_path, *card, *beside)
    for layout in ("class/group", "group/class"):
        lines = [line for line in load(tmp_path, layout=layout).notes if line.startswith("not used: ")]
        assert len(lines) == 1 and re.search(r"3 files .*\(db 1, txt 1, xmp 1\), 1 file in @eaDir, 2 names", lines[0])


def test_names_that_differ_in_case_come_with_numbers_and_advice(tmp_path):
    source = load(touch(tmp_path, "fox/0.jpg", "fox/1.jpg", "Fox/0.jpg", "Fox/1.jpg", "Fox/2.jpg"))
    assert any("'Fox' (3 images) and 'fox' (2)" in line and "one name" in line for line in source.notes)


def test_images_named_like_thumbnails_are_noted_and_used(tmp_path):
    source = load(touch(tmp_path, *of("."), "ant/0_thumb.jpg", "bee/1.jpg.thumbnail.jpg", "bee/left thumb.jpg"))
    assert sum(map(len, source.splits.values())) == 7
    assert len(source.notes) == 1 and "used: 2 (ant/0_thumb.jpg, bee/1.jpg.thumbnail.jpg)" in source.notes[0]


def test_a_class_of_deeper_folders_called_thumbs_is_kept(tmp_path):
    touch(tmp_path, *of("."), *of("hand", classes=("Thumbs", "palms")))
    source = load(tmp_path)
    assert source.class_names == ("ant", "bee", "hand") and not source.notes


def test_links_are_counted_and_a_class_may_be_one(tmp_path):
    touch(tmp_path / "data", *of("."))
    touch(tmp_path / "store", "0.jpg", "1.jpg")
    (tmp_path / "data/ant/linked").symlink_to(tmp_path / "store")
    (tmp_path / "data/ant/loop").symlink_to("..")
    (tmp_path / "data/cow").symlink_to(tmp_path / "store")
    source = load(tmp_path / "data")
    assert source.class_names == ("ant", "bee", "cow") and sum(map(len, source.splits.values())) == 6
    assert source.notes == ("not used: 2 links to folders (ant/linked, ant/loop)",)
    (tmp_path / "data/all").symlink_to(".")
    with pytest.raises(DataError, match="data/all is a link to a folder above it"):
        load(tmp_path / "data")


@pytest.mark.parametrize("place", ["", "train", "train/ant", "train/ant/deep"])
def test_a_folder_without_permission_is_named(tmp_path, monkeypatch, place):
    touch(tmp_path, *of("train"), "train/ant/deep/9.jpg")
    locked, scandir = os.fspath(tmp_path / place), os.scandir

    def guarded(path="."):
        if os.fspath(path) == locked:
            raise PermissionError(13, "Permission denied", locked)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(DataError, match=f"{locked} cannot be read .Permission denied.: .*permission"):
        load(tmp_path)


def test_names_of_classes(tmp_path):
    nfd = unicodedata.normalize("NFD", "Ähre")
    source = load(touch(tmp_path, *of(".", classes=("FERN", "fern", "no_fern", "no fern", "nan", nfd))))
    assert "Ähre" in source.class_names and len(source.notes) == 2
    assert (
        "'FERN' (2 images) and 'fern' (2), 'no fern' (2 images) and 'no_fern' (2)" in source.notes[0]
        and "'nan'" in source.notes[1]
    )
    with pytest.raises(DataError, match="did you mean bee"):
        load(touch(tmp_path / "x", *of("train"), *of("test", classes=("Bee",))))
    with pytest.raises(DataError, match=r"a.nb.*control character.*rename"):
        load(touch(tmp_path / "y", *of(".", classes=("a\nb", "c"))))
    with pytest.raises(DataError, match="two folders of the name 'a'"):
        load(touch(tmp_path / "z", *of(".", classes=("a", "a ", "c"))))


def test_a_folder_that_a_folder_holds_alone(tmp_path):
    make_folder(tmp_path / "flowers", (".",), {"ant": 3, "bee": 3})
    with pytest.raises(ConfigError, match="one class, flowers: .*dir=.*/flowers"):
        recipes.folder(f"dir={tmp_path}")


@pytest.mark.parametrize(("images", "batch"), [(2, 2), (3, 2), (7, 4), (8, 8), (79, 8), (160, 16), (10_000, 64)])
def test_a_batch_fits_the_images(images, batch):
    config = base_config()
    recipes.fit_batch(config, images)
    assert config.optim.batch_size == batch and config.optim.learning_rate == 0.1 * batch / 64
    config.data.name, config.loss.num_hard = "folder", 2
    checks.check_against_data(config, images, 2)


def test_a_run_has_a_name_that_a_directory_can_have():
    long = [config_files.run_name(f"folder:dir={'ö' * 200}/{end}") for end in "ab"]
    assert all(len(name.encode()) <= 255 and name.startswith("folder-dir=öö") for name in long) and long[0] != long[1]
    assert config_files.run_name(f"folder:dir={'x' * 244}") == f"folder-dir={'x' * 244}"


def test_a_tilde_is_the_home_unless_it_is_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert expand("dir", "~/x") == tmp_path / "home" / "x"
    assert expand("dir", "~nobody_of_this_name/x") == pathlib.Path("~nobody_of_this_name/x")


@pytest.mark.parametrize(
    ("command", "said"),
    [(["zero-shot", NOBODY], "--classes=FILE is missing"), (["zero-shot", ".", f"--classes={NOBODY}"], "cannot be read"),
     (["cache", "list", f"--dir={NOBODY}"], ""), (["predict", NOBODY, "--run=."], "config.json"),
     (["evaluate", "--run=.", f"--data={NOBODY}"], "config.json")],
)  # fmt: skip
def test_a_tilde_of_no_user_is_no_fault(command, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said in cli.attempt(*command[:1], command[1:])[0]
    with pytest.raises(ExportError, match=NOBODY):
        ncl_jax.load_exported(NOBODY)


def test_names_that_are_no_text_stay_out_of_json(tmp_path, capfd):
    """Files and folders whose names are not UTF-8, the data's own too."""
    data = tmp_path / "d\udce9ta"
    for place in ("train/ant", "train/caf\udce9", "test/ant", "test/caf\udce9"):
        for i in range(4):
            write_image(data / place / f"{i}\udcff.jpg", crc32(os.fsencode(f"{place}/{i}")))
    message, code = cli.attempt("inspect", [f"--config=folder:dir={data},image_size=16", f"--picture={tmp_path}/a.png"])
    assert code == 0 and r"caf\xe9" in capfd.readouterr().out, message
    found = dataset.load(Request("folder", data), size=8)
    assert found.facts.class_names == ("ant", r"caf\xe9") and len(found.facts.rows_checksum) == 16
    assert "\\ud" not in found.facts.to_json() and json.loads(found.facts.to_json())
