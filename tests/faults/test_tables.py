"""Tables as labelling tools write them: recognised or mapped columns, splits and groups, rows that lack something."""

import json
import re

import numpy as np
import pytest
from test_lists import READ, ROWS, images, load, table
from test_own_images import make_folder, write_image

from ncl_jax import cli
from ncl_jax.config import build_data, recipes
from ncl_jax.config import files as config_files
from ncl_jax.data import dataset, sources
from ncl_jax.data.types import Request
from ncl_jax.errors import ConfigError, DataError

assert READ  # the rows of the simple forms are there


def located(rows, change=lambda path: path):
    """Rows of a folder, a file and a label."""
    return [(path.rpartition("/")[0], change(path.rpartition("/")[2]), label) for path, label in rows]


def wide(rows, extra=("7", "x")):
    return [(extra[0], path, label, extra[1]) for path, label in rows]


TOOLS = {  # the table of a tool, and what the notes say
    "Label Studio": (table([(path, 7, name) for path, name in ROWS], header=("image", "id", "choice")), ""),
    "Timelapse": (
        table([(name, folder, label) for folder, name, label in located(ROWS)], header=("File", "RelativePath", "Species")), ""
    ),
    "Timelapse on Windows": (
        table([(n, f.replace("/", "\\"), s) for f, n, s in located(ROWS)], header=("File", "RelativePath", "Species"), end="\r\n"), ""
    ),
    "the folder twice": (
        table([(path, path.rpartition("/")[0], name) for path, name in ROWS], header=("File", "RelativePath", "Species")), ""
    ),
    "filename and species": (table(ROWS, header=("filename", "species")), ""),
    "Path and Label, semicolons, a mark, CRLF": (
        table(ROWS, ";", ("Path", "Label"), "\r\n").encode("utf-8-sig"), "semicolons"
    ),
    "tabs": (table(ROWS, "\t", ("image_path", "class_name")), "tabs"),
    "quoted names with commas": (
        table([(f'"{path}"', name, '"a, b"') for path, name in ROWS], header=("path", "label", "remark")), ""
    ),
    "many columns": (table(wide(ROWS), header=("id", "filepath", "category", "user")), ""),
    "two that could be the label": (
        table([(*row, "animal") for row in ROWS], header=("file", "label", "species")), "label, species .*those of label; label_column"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TOOLS)
def test_tables_of_tools_are_recognised(tmp_path, name):
    content, said = TOOLS[name]
    source = load(tmp_path, "a.csv", content)
    assert images(source) == dict(ROWS)
    assert len(source.notes) == bool(said) and all(re.search(said, line) for line in source.notes)


def read(root, content, file="a.csv", **fields):
    load(root, "plain.csv", table(ROWS))
    (root / file).write_text(content)
    return sources.load(Request("list", root, lists={"train": file}, **fields))


def test_absolute_paths_below_the_folder(tmp_path):
    assert images(read(tmp_path, table([(tmp_path / path, name) for path, name in ROWS]))) == dict(ROWS)


UPLOADED = {  # paths as Label Studio writes them, by row and the file's own name
    "in a folder": lambda row, name: f"/data/upload/1/{row:08x}-{name}",
    "in several": lambda row, name: f"/data/upload/{row % 3}/{row:08x}-{name}",
    "of a local folder": lambda row, name: f"/data/local-files/?d=img/{name}",
    "alone": lambda row, name: f"abcdef{row:02d}-{name}",
    "escaped": lambda row, name: f"/data/upload/1/{row:08x}-{name.replace('.', '%2E')}",
}  # fmt: skip


@pytest.mark.parametrize("name", UPLOADED)
def test_paths_of_uploads_are_found(tmp_path, name):
    flat = {f"x-{row}.png": label for row, (_, label) in enumerate(ROWS)}
    folder = tmp_path / ("img" if name == "of a local folder" else ".")
    folder.mkdir(exist_ok=True)
    for file in flat:
        (folder / file).write_bytes(b"x")
    rows = [(UPLOADED[name](row, file), label) for row, (file, label) in enumerate(flat.items())]
    source = read(tmp_path, table(rows, header=("image", "choice")))
    assert {path.rpartition("/")[2]: label for path, label in images(source).items()} == flat
    assert len(source.notes) <= 2
    with pytest.raises(DataError, match="line 2: .*upload/1/deadbeef-gone.png.* no end of it is a file"):
        read(tmp_path, table([("/data/upload/1/deadbeef-gone.png", "fern")]))


MAPPED = table([(path, name, "x") for path, name in ROWS], header=("Bild", "Art", "label"))


def test_columns_can_be_named(tmp_path):
    source = read(tmp_path, MAPPED, columns={"path": "bild", "label": "ART"})
    assert images(source) == dict(ROWS)
    lines = "\n".join(json.dumps({"Bild": path, "Art": name}) for path, name in ROWS)
    assert images(read(tmp_path, lines, "a.jsonl", columns={"path": "Bild", "label": "Art"})) == dict(ROWS)
    with pytest.raises(DataError, match="columns Bild, Art, label: none is called label_column=Arten"):
        read(tmp_path, MAPPED, columns={"path": "Bild", "label": "Arten"})
    with pytest.raises(DataError, match="path_column=NAME"):
        read(tmp_path, table(ROWS, header=("Bild", "Art")).replace(".png", ".raw"))
    with pytest.raises(
        DataError, match="columns Bild, Art: the path is Bild, none is known as the label .*label_column"
    ):
        read(tmp_path, table(ROWS, header=("Bild", "Art")))
    arguments = f"dir={tmp_path},train=a.csv,path_column=Bild,label_column=Art,image_size=16"
    (tmp_path / "a.csv").write_text(MAPPED)
    config = recipes.listed(arguments)
    assert config.data.columns.to_dict() == {"path": "Bild", "label": "Art", "split": "", "group": ""}
    assert build_data.request(config).columns["path"] == "Bild"


def parted(column, values, more=()):
    rows = [(*row, value, *more) for row, value in zip(ROWS, values, strict=True)]
    return table(rows, header=("path", "label", column, *("more",) * len(more)))


@pytest.mark.parametrize("column", ["Set", "subset", "Partition", "data_split", "fold"])
def test_columns_of_splits_by_other_names(tmp_path, column):
    source = read(tmp_path, parted(column, SPLITS))
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 5, "val": 2, "test": 2}
    older = read(tmp_path, parted(column, SPLITS), rule=2)  # runs from before these names were known
    assert ("val" in older.splits) == (column in ("subset", "Partition"))
    assert "val" in read(tmp_path, parted(column, SPLITS), rule=2, columns={"split": column}).splits


def test_columns_that_look_like_splits_are_said(tmp_path):
    for file, content in (
        ("a.csv", parted("which", SPLITS)),
        ("a.json", json.dumps([{"path": p, "label": n, "which": s} for (p, n), s in zip(ROWS, SPLITS, strict=True)])),
    ):
        said = [line for line in read(tmp_path, content, file).notes if "look like splits: which" in line]
        assert len(said) == 1 and said[0].startswith("warning: ") and "split_column=which" in said[0]
        assert read(tmp_path, content, file, columns={"split": "which"}).splits.keys() == {"train", "val", "test"}
    partly = read(tmp_path, parted("Set", ["train"] * 4 + ["test"] * 4 + ["later"]))
    assert any("column Set is not used, since 1 of 9 rows" in line and "'later'" in line for line in partly.notes)
    for values in (["1", "2", "3"] * 3, ["train"] * 9):  # folds by number; one value says nothing
        assert not any("split" in line for line in read(tmp_path, parted("which", values)).notes)


RANKED = {  # columns beside the path and the labels, which column the labels are, and what they are called
    "ranks": (("class", "order", "species"), "species"), "a genus": (("genus", "species", "common_name"), "common_name"),
    "Camtrap DP": (("mediaID", "deploymentID", "scientificName"), "scientificName"),
    "no ranks": (("species", "class"), "class"),
}  # fmt: skip


@pytest.mark.parametrize("name", RANKED)
def test_a_class_beside_other_ranks_is_a_rank(tmp_path, name):
    header, chosen = RANKED[name]
    rows = [(path, *(label if column == chosen else "Mammalia" for column in header)) for path, label in ROWS]
    source = read(tmp_path, table(rows, header=("fileName", *header)))
    assert source.class_names == ("fern", "moss", "reed")
    assert any(f"the labels are those of {chosen}" in line for line in source.notes) == (name != "Camtrap DP")


def test_the_only_column_of_images_has_the_paths(tmp_path):
    content = table([("ST1", path, label) for path, label in ROWS], header=("deployment_id", "location", "common_name"))
    assert images(read(tmp_path, content)) == dict(ROWS)
    sites = table([(path, label, "ST1") for path, label in ROWS], header=("media", "species", "location"))
    assert images(read(tmp_path, sites)) == dict(ROWS)


MARKERS = ("nan", "NaN", "null", "N/A", "<NA>", "")


@pytest.mark.parametrize("marker", MARKERS)
def test_markers_of_missing_labels_are_no_class(tmp_path, marker):
    changed = [(path, marker if row in (0, 4) else label) for row, (path, label) in enumerate(ROWS)]
    for file, content in (
        ("a.csv", table(changed)),
        ("a.json", json.dumps([{"path": path, "label": label or None} for path, label in changed])),
    ):
        with pytest.raises(DataError, match=r"(line 2|record 1): the label is missing.* in 1 more row"):
            read(tmp_path, content, file)
        source = read(tmp_path, content, file, skip=True)
        assert source.class_names == ("fern", "moss", "reed") and len(source.left_out["train"]) == 2
    if marker:
        assert marker in read(tmp_path, table(changed), rule=2).class_names  # a run of before


ONE_HOT = {  # what the columns fern, moss and reed say in a row of the label
    "numbers": lambda label: [str(int(label == name)) for name in ("fern", "moss", "reed")],
    "with a point": lambda label: [f"{label == name:.1f}" for name in ("fern", "moss", "reed")],
    "after blanks": lambda label: [f" {int(label == name)}" for name in ("fern", "moss", "reed")],
}  # fmt: skip


@pytest.mark.parametrize("name", ONE_HOT)
def test_a_column_for_each_class(tmp_path, name):
    header = ("filename", "fern", "moss", "reed")
    source = read(tmp_path, table([(path, *ONE_HOT[name](label)) for path, label in ROWS], header=header))
    assert images(source) == dict(ROWS) and any("3 (fern, moss, reed)" in line for line in source.notes)
    rows = [[path, *ONE_HOT["numbers"](label)] for path, label in ROWS]
    rows[1][1:], rows[2][1:] = ["1", "1", "0"], ["0", "0", "0"]
    with pytest.raises(DataError, match="line 4: the label is missing"):
        read(tmp_path, table(rows, header=header))
    source = read(tmp_path, table(rows, header=header), skip=True)
    assert len(images(source)) == 7 and "several labels (fern;moss)" in str(source.left_out["train"])
    rows[3][2] = "7"
    with pytest.raises(DataError, match="line 5: the column moss of a class says '7'"):
        read(tmp_path, table(rows, header=header))


def test_attributes_of_an_annotator(tmp_path):
    header = ("filename", "file_size", "file_attributes", "region_attributes")
    cell = lambda value: '"' + json.dumps(value).replace('"', '""') + '"'  # noqa: E731
    rows = [(path, 7, cell({"species": label}), "{}") for path, label in ROWS]
    assert images(read(tmp_path, table(rows, header=header))) == dict(ROWS)
    ticked = [(path, 7, "{}", cell({"species": {label: True, "x": False}})) for path, label in ROWS]
    assert images(read(tmp_path, table(ticked, header=header))) == dict(ROWS)
    two = [*rows[:8], (ROWS[8][0], 7, cell({"species": "reed", "sex": "f"}), "{}")]
    with pytest.raises(DataError, match="line 10: the attributes"):
        read(tmp_path, table(two, header=header))


def test_fields_of_images_are_groups_and_splits(tmp_path):
    names = sorted({label for _, label in ROWS})
    content = {
        "images": [{"id": row, "file_name": path, "location": f"S{row // 2}", "set": SPLITS[row]}
                   for row, (path, _) in enumerate(ROWS)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names)],
        "annotations": [{"image_id": row, "category_id": names.index(label)} for row, (_, label) in enumerate(ROWS)],
    }  # fmt: skip
    source = read(tmp_path, json.dumps(content), "a.json", columns={"group": "location"})
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 5, "val": 2, "test": 2}
    assert set(source.splits["test"].images.groups) == {"S1"}
    with pytest.raises(DataError, match="no column or field of groups"):
        read(tmp_path, json.dumps(content).replace("location", "place"), "a.json", group_by="column")


SPLITS = ["train", "Train", "test", "TEST", "train", "validation", "train", "train", "val"]


def test_a_column_of_splits(tmp_path):
    parted = table([(*row, split) for row, split in zip(ROWS, SPLITS, strict=True)], header=("path", "label", "split"))
    source = read(tmp_path, parted)
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 5, "val": 2, "test": 2}
    assert source.splits["test"].images.names.tolist() == [ROWS[2][0], ROWS[3][0]]
    assert "divided by its column of splits: 5 train, 2 val, 2 test" in source.notes[0]
    assert set(read(tmp_path, parted, rule=1).splits) == {"train", "test"}  # an old run did not look
    other = parted.replace("TEST", "holdout")
    assert sum(map(len, read(tmp_path, other).splits.values())) == 9
    with pytest.raises(DataError, match="line 5: split_column=split says 'holdout', and so it is in 1 of 9 rows"):
        read(tmp_path, other, columns={"split": "split"})
    with pytest.raises(DataError, match="no row of the split train"):
        read(tmp_path, re.sub("(?i)train", "test", parted))


def test_a_column_of_groups(tmp_path):
    cameras = [f"C{row // 2}" for row in range(9)]
    content = table(
        [(*row, camera) for row, camera in zip(ROWS, cameras, strict=True)], header=("path", "label", "camera")
    )
    for fields, named in (
        ({"group_by": "column"}, set(cameras)),
        ({"columns": {"group": "camera"}}, set(cameras)),
        ({"group_by": r"(\d)\.png"}, set("0123")),
    ):
        splits = read(tmp_path, content, **fields).splits
        parts = [set(splits[name].images.groups) for name in ("train", "test")]
        assert not parts[0] & parts[1] and parts[0] | parts[1] == named
    with pytest.raises(DataError, match="each of the 3 groups"):
        read(tmp_path, content, group_by="folder")
    with pytest.raises(DataError, match="has no column or field of groups .*group_column=NAME"):
        read(tmp_path, table(ROWS), group_by="column")
    with pytest.raises(DataError, match="line 3: 2 of 9 rows have no group"):
        read(
            tmp_path,
            content.replace("C0\nimg/fern/1.png,fern,C0", "C0\nimg/fern/1.png,fern,").replace("C4", ""),
            group_by="column",
        )


SEVERAL = {  # what stands in the label of two rows
    "semicolons": "fern;moss", "bars": "fern|moss", "commas between labels": '"fern, moss"', "JSON": '"[""fern"", ""moss""]"',
    "choices": '"{""choices"": [""fern"", ""moss""]}"', "no other row has them": "goose;bird",
}  # fmt: skip


@pytest.mark.parametrize("name", SEVERAL)
def test_several_labels_are_refused_with_their_number(tmp_path, name):
    content = table([(path, SEVERAL[name] if row in (1, 6) else label) for row, (path, label) in enumerate(ROWS)])
    with pytest.raises(DataError, match="a.csv, line 3: 2 of 9 images of the train list have several labels"):
        read(tmp_path, content)


def test_several_labels_are_skipped_and_counted(tmp_path):
    content = table([(path, "fern;moss" if row in (1, 6) else label) for row, (path, label) in enumerate(ROWS)])
    source = read(tmp_path, content, skip=True)
    assert images(source) == {path: label for row, (path, label) in enumerate(ROWS) if row not in (1, 6)}
    assert source.left_out["train"][0][1].endswith("line 3: several labels (fern;moss)")
    with pytest.raises(DataError, match="2 of 2 images"):
        read(tmp_path, table([(path, "fern;moss") for path, _ in ROWS[:2]]), skip=True)


def test_a_comma_alone_is_no_second_label(tmp_path):
    content = table([(path, f'"{label}, L."') for path, label in ROWS])
    assert read(tmp_path, content).class_names == ("fern, L.", "moss, L.", "reed, L.")


LACKING = table([
    (path if row != 2 else "img/gone.png", label if row not in (0, 7) else " ") for row, (path, label) in enumerate(ROWS)
])  # fmt: skip


def test_rows_that_lack_something_are_counted_or_skipped(tmp_path):
    with pytest.raises(
        DataError, match="line 2: the label is missing .and so it is in 1 more row.*skip_unreadable=True"
    ):
        read(tmp_path, LACKING)
    with pytest.raises(DataError, match="line 2: 1 of 9 .*img/gone.png .*skip_unreadable=True"):
        read(tmp_path, table([("img/gone.png", "fern"), *ROWS[1:]]))
    source = read(tmp_path, LACKING, skip=True)
    assert images(source) == {path: label for row, (path, label) in enumerate(ROWS) if row not in (0, 2, 7)}
    assert [label for label, _ in source.left_out["train"]] == ["rows without a label or path"] * 2 + ["fern"]
    assert "a.csv, line 4: " in source.left_out["train"][2][1]
    for lost in (table([("x.png", "fern"), ("y.png", "moss")]), table([("x.png", ""), ("y.png", "")])):
        with pytest.raises(DataError, match="2 of 2 files|label is missing"):
            read(tmp_path, lost, skip=True)


def test_what_is_skipped_is_listed_in_the_run(tmp_path, capsys):
    for row, (path, _) in enumerate(ROWS):
        write_image(tmp_path / path, row)
    (tmp_path / "img/moss/0.png").write_bytes(b"no image")
    (tmp_path / "a.csv").write_text(LACKING)
    data = dataset.load(Request("list", tmp_path, lists={"train": "a.csv"}, skip=True), size=8, skip_unreadable=True)
    counts = {name: count for split in data.facts.skipped.values() for name, count in split.items()}
    assert counts == {"rows without a label or path": 2, "fern": 1, "moss": 1} and len(data.left_out) == 4
    arguments = [f"--config=list:dir={tmp_path},train=a.csv,image_size=8", f"--out={tmp_path}/out"]
    _, code = cli.attempt("inspect", arguments)
    printed = capsys.readouterr().out
    assert code == 1 and "problem: rows of lists or classes without a label, a file or an image: 3" in printed
    assert "a.csv, line 2: the label is missing" in printed and "problem: unreadable images" in printed
    cli.attempt("inspect", [*arguments, "--config.data.skip_unreadable=True", "--force"])
    assert "note: rows of lists or classes without a label, a file or an image: 3" in capsys.readouterr().out


def test_a_file_in_two_classes_is_one_problem_and_warnings_end_otherwise(tmp_path, capsys):
    for row, (path, _) in enumerate(ROWS):
        write_image(tmp_path / path, row)
    arguments = [f"--config=list:dir={tmp_path},train=a.csv,image_size=8", f"--out={tmp_path}/out", "--force"]
    (tmp_path / "a.csv").write_text(table([*ROWS, (ROWS[0][0], "moss")]))
    message, code = cli.attempt("inspect", arguments)
    printed = capsys.readouterr().out
    assert code == 1 and "1 problem would" in message and printed.count(ROWS[0][0]) == 1
    (tmp_path / "a.csv").write_text(parted("which", SPLITS))
    _, code = cli.attempt("inspect", arguments)
    printed = capsys.readouterr().out
    assert code == 0 and "\nwarning: " in printed and "1 warning above: figures may mislead" in printed
    assert "stop or spoil" not in printed


def test_a_path_with_commas_can_be_given(tmp_path):
    place = make_folder(tmp_path / 'a,b=c, "d"', ("train", "test"), {"x": 2, "y": 2})
    for text in (
        f'dir="{str(place).replace(chr(34), chr(34) * 2)}",image_size=16',
        f'image_size=16,dir="{str(place).replace(chr(34), chr(34) * 2)}"',
    ):
        config = config_files.load(f"folder:{text}")
        assert config.data.dir == str(place) and config.data.image_size == 16
    assert recipes.parse_arguments('dir="a,",epochs=3', dir="", epochs=1).to_dict() == {"dir": "a,", "epochs": 3}
    assert recipes.parse_arguments("dir=red,green,epochs=3", dir="", epochs=1).to_dict() == {
        "dir": "red,green",
        "epochs": 3,
    }
    for wrong in ('dir="a,b', 'dir="a"b', 'dir="'):
        with pytest.raises(ConfigError, match="quotes must be closed"):
            recipes.parse_arguments(wrong, dir="")
    assert '"' not in config_files.run_name('folder:dir="a,b=c"')


def test_labels_and_splits_of_one_table_train_a_recipe(tmp_path):
    for row, (path, _) in enumerate(ROWS):
        write_image(tmp_path / path, row)
    (tmp_path / "a.csv").write_text(
        table([(*row, s) for row, s in zip(ROWS, SPLITS, strict=True)], header=("path", "label", "split"))
    )
    config = config_files.load(f"list:dir={tmp_path},train=a.csv,image_size=8,group_by=folder")
    data = build_data.data(config)
    assert config.data.eval_split == "test" and np.bincount(data.test.labels).tolist() == [2]
    assert any("train and in test: 1 (img/fern)" in line for line in data.notes)
