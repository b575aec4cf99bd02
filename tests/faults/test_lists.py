"""Faults of lists of images: what is refused, naming the list and its line, and what is read with a note."""

import gzip
import json
import os
import pathlib
import random
import re
import unicodedata

import pytest

from ncl_jax import cli
from ncl_jax.config import recipes
from ncl_jax.data import sources
from ncl_jax.data.sources import lists
from ncl_jax.data.types import Request
from ncl_jax.errors import DataError

COUNTS = {"fern": 4, "moss": 3, "reed": 2}
ROWS = [(f"img/{name}/{i}.png", name) for name, count in COUNTS.items() for i in range(count)]
NUMBERS = {"fern": 0, "moss": 1, "reed": 2}
ACCENT = unicodedata.normalize("NFC", "Füße")


def table(rows, separator=",", header=("path", "label"), end="\n"):
    return end.join(separator.join(map(str, row)) for row in [header, *rows]) + end


def text(rows, separator=" "):
    return "".join(f"{path}{separator}{label}\n" for path, label in rows)


def labelled(change):
    """The rows with labels changed by `change(label, row)`."""
    return [(path, change(name, row)) for row, (path, name) in enumerate(ROWS)]


def pathed(change):
    return [(change(path), name) for path, name in ROWS]


def coco(names=tuple(COUNTS), **changed):
    """The rows as COCO writes them, with parts replaced."""
    content = {
        "images": [{"id": f"i{row}", "file_name": path} for row, (path, _) in enumerate(ROWS)],
        "annotations": [{"image_id": f"i{row}", "category_id": names.index(n)} for row, (_, n) in enumerate(ROWS)],
        "categories": [{"id": place, "name": name} for place, name in enumerate(names)],
    }
    return json.dumps(content | changed)


def authors(**note):
    """The authors' form, whose third entry has other values."""
    notes = [{"fpath": path, "category_id": NUMBERS[name]} for path, name in ROWS]
    notes[2] = {key: value for key, value in (notes[2] | note).items() if value is not ...}
    return json.dumps({"annotations": notes})


def records(rows=ROWS, names=("path", "label")):
    return [dict(zip(names, row, strict=True)) for row in rows]


def load(root, file, content, **more):
    """The source of a list that is called `file`; `more` are further lists."""
    for path in dict(ROWS):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    for name, of_file in {file: content, **{f"{key}.txt": value for key, value in more.items()}}.items():
        (root / name).write_bytes(of_file if isinstance(of_file, bytes) else of_file.encode())
    given = {"train": file, **{key: str(root / f"{key}.txt") for key in more}}
    return sources.load(Request("list", root, lists=given))


def images(source):
    """Every image's class, by path."""
    return {
        name: source.class_names[label]
        for split in source.splits.values()
        for name, label in zip(split.images.names, split.labels, strict=True)
    }


NAMED = table(ROWS)
READ = {  # the list, and what its notes say; all have the same images in the same classes
    "blanks after commas": ("a.csv", table(ROWS, ", "), ""),
    "quotes after blanks": ("a.csv", table(labelled(lambda name, _: f'"{name}"'), ", "), ""),
    "capitals in the header": ("a.csv", table(ROWS, header=("Path", "LABEL")), ""),
    "Windows's ends of lines": ("a.csv", table(ROWS, end="\r\n"), ""),
    "columns without a name at the end": ("a.csv", table([(*row, "", "") for row in ROWS]), ""),
    "semicolons": ("a.csv", table(ROWS, ";"), "a.csv .*semicolons"),
    "tabs": ("a.csv", table(ROWS, "\t"), "a.csv .*tabs"),
    "tabs, .tsv": ("a.tsv", table(ROWS, "\t"), "a.tsv .*tabs"),
    "a header in a text": ("a.txt", "path label\n" + text(ROWS), ""),
    "commas in a text": ("a.txt", table(ROWS), ""),
    "UTF-16": ("a.csv", table(ROWS).encode("utf-16"), "a.csv .*UTF-16"),
    "UTF-16, the other order": ("a.txt", b"\xfe\xff" + text(ROWS).encode("utf-16-be"), "a.txt .*UTF-16"),
    "a mark": ("a.csv", table(ROWS).encode("utf-8-sig"), ""),
    "blanks around labels": ("a.csv", table(labelled(lambda name, row: f"  {name} " if row % 2 else name)), "blanks around them.*: 4"),
    "blanks around names in JSON": ("a.json", json.dumps(records(labelled(lambda name, _: f" {name}"))), "blanks around them.*: 9"),
    "records": ("a.json", json.dumps(records()), ""),
    "a record a line": ("a.jsonl", "\n".join(map(json.dumps, records(names=("file_name", "label")))), ""),
    "a record a line, compressed": ("a.jsonl.GZ", gzip.compress("\n".join(map(json.dumps, records())).encode()), ""),
    "labels as pandas writes them": ("a.csv", table(labelled(lambda name, _: f"{NUMBERS[name]}.0")), r"labels .*0\.0"),
    "backslashes": ("a.csv", table(pathed(lambda path: path.replace("/", "\\"))), r"\\: 9"),
    "absolute paths of Windows": (
        "a.csv", table(pathed(lambda path: "C:\\my photos\\" + path.replace("/", "\\"))), r"read without C:.my photos.$"
    ),
    "absolute paths of a laptop": ("a.csv", table(pathed(lambda path: f"/Users/me/{path}")), "read without /Users/me/$"),
    "endings in capitals": ("a.csv", table(pathed(lambda path: path.replace("0.png", "0.PNG"))), ".*spelling.*: 3"),
    "categories without images": (
        "a.json", coco(("empty", "fern", "human", "moss", "reed")), "2 of 5 categories.*empty, human"
    ),
    "images without annotations": (
        "a.json", coco(images=[*json.loads(coco())["images"], {"id": 1, "file_name": "none.png"}]), "annotation.*: 1"
    ),
    "images of two annotations": (
        "a.json", coco(annotations=json.loads(coco())["annotations"] * 2), "annotations.*: 9"
    ),
    "a file twice": ("a.csv", table([*ROWS, ROWS[0]]), "twice: 1 .img/fern/0.png"),
    "a file in two forms": ("a.csv", table([*ROWS, ("./img/fern/0.png", "fern")]), "twice: 1 .img/fern/0.png"),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_what_is_clear_is_read_and_said(tmp_path, name):
    file, content, said = READ[name]
    source = load(tmp_path, file, content)
    assert images(source) == dict(ROWS) and source.class_names == ("fern", "moss", "reed")
    assert len(source.notes) == bool(said)
    assert all(re.search(said, line) and "\n" not in line for line in source.notes)


def later(row, line):
    """The table with one line replaced; the header is row 0."""
    lines = NAMED.splitlines()
    return "\n".join([*lines[:row], line, *lines[row + 1 :]])


REFUSED = {
    "a quotation mark that is not closed": ("a.csv", later(3, 'img/fern/2.png,"fern'), "a.csv, line 4"),
    "one that is closed below": (
        "a.csv", later(3, 'img/fern/2.png,"fern').replace("moss/0.png,moss", 'moss/0.png,moss"'), "a.csv, line 4"
    ),
    "one in a column of no interest": (
        "a.csv", table([(*row, '"x' if i == 2 else 'y"' if i == 5 else "z") for i, row in enumerate(ROWS)],
                       header=("path", "label", "x")), "a.csv, line 4"
    ),
    "one before a long list": ("a.csv", table([("img/fern/0.png", '"fern'), *ROWS * 1000]), "a.csv, line 2"),
    "a field too many": ("a.csv", later(5, "img/moss,0.png,moss"), "a.csv, line 6 has 3 fields"),
    "a field too few": ("a.csv", later(5, "img/moss/0.png"), "a.csv, line 6: the label"),
    "no header": ("a.csv", "\n".join(NAMED.splitlines()[1:]), "a.csv, line 1: 'img/fern/0.png,fern'.*path,label"),
    "a column for each class": ("a.csv", table([("img/fern/0.png", 1, 2)], header=("image", "fern", "moss")), "image, fern, moss: the path is image, none .*label_column"),
    "an empty file": ("a.csv", "", "a.csv"),
    "a header alone": ("a.csv", "path,label\n", "a.csv names no image"),
    "a text of blanks": ("a.txt", " \n\n", "a.txt names no image"),
    "an empty compressed file": ("a.txt.gz", gzip.compress(b""), "a.txt.gz names no image"),
    "half a compressed file": ("a.txt.gz", gzip.compress(text(ROWS).encode())[:-9], "a.txt.gz cannot be read"),
    "damage in a compressed file": ("a.txt.gz", gzip.compress(text(ROWS).encode())[:12] + b"\xff" * 40, "a.txt.gz cannot"),
    "zero bytes": ("a.csv", later(4, "\0" * 40), "a.csv, line 5 has zero bytes"),
    "a zero byte in a path": ("a.txt", text(pathed(lambda p: p.replace("reed/1", "reed/\0"))), "a.txt, line 9 has zero"),
    "a zero byte in JSON": ("a.json", authors(fpath="a\0.png"), "a.json, annotation 3: 'a.x00.png'"),
    "UTF-16 without its mark": ("a.csv", NAMED.encode("utf-16-le"), "a.csv, line 1 has zero bytes"),
    "half of UTF-16": ("a.csv", NAMED.encode("utf-16")[:-1], "a.csv cannot be read"),
    "a picture": ("a.txt", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a.txt, line 3 has zero bytes"),
    "Windows-1252": ("a.csv", later(6, f"img/moss/1.png,{ACCENT}").encode("cp1252"), "a.csv, line 7: .*UTF-8.*Windows-1252"),
    "a path in Windows-1252": ("a.csv", later(6, f"img/{ACCENT}.png,moss").encode("cp1252"), "a.csv, line 7: .*UTF-8"),
    "columns swapped": ("a.txt", text([row[::-1] for row in ROWS]), "a.txt, line 1: the label 'img/fern/0.png'"),
    "a label of ten thousand letters": ("a.csv", later(2, f"img/fern/1.png,{'x' * 10_000}"), "a.csv, line 3: .*10,000"),
    "a label with a control character": ("a.csv", later(2, "img/fern/1.png,a\x07b"), r"a.csv, line 3: .*'a.x07b'"),
    "a label of blanks": ("a.json", json.dumps(records(labelled(lambda n, row: " " if row == 2 else n))), "record 3: .*name"),
    "nan among numbers": (
        "a.csv", table(labelled(lambda name, row: "nan" if row in (2, 3) else f"{NUMBERS[name]}.0")),
        "a.csv, line 4: .*missing .'nan'. .*1 more row",
    ),
    "labels from 1": ("a.txt", text(labelled(lambda name, _: NUMBERS[name] + 1)), "a.txt .*1 to 3.*subtract 1"),
    "labels with gaps": ("a.txt", text(labelled(lambda name, _: NUMBERS[name] * 3)), "a.txt .*0, 3, 6.*gap"),
    "addresses of the web": ("a.csv", table(pathed(lambda path: f"https://example.org/{path}")), "a.csv, line 2: 9 of 9 .*download"),
    "paths with a drive": ("a.csv", table(pathed(lambda path: "C:\\x\\" + path.replace("/", "-"))), "a.csv, line 2: 9 of 9 .*Windows"),
    "an absolute path of nothing here": ("a.csv", table(pathed(lambda path: "/photos/x" + path)), "a.csv, line 2: the path .*leads out"),
    "paths without an ending": ("a.txt", text(pathed(lambda path: path[:-4])), "a.txt, line 1: 9 of 9 .*add the ending .png"),
    "some files missing": ("a.csv", table(pathed(lambda path: path.replace("1.png", "x.png"))), "a.csv, line 3: 3 of 9 .*img/fern/x.png .*restore"),
    "another root": ("a.csv", table(pathed(lambda path: f"down/{path}")), "a.csv, line 2: 9 of 9 .*data.dir"),
    "a folder": ("a.csv", later(2, "img/fern,fern"), "a.csv, line 3: 1 of 9 .*img/fern .*folder"),
    "out of the root, in Windows's way": ("a.csv", later(2, "..\\..\\etc\\passwd,fern"), "leads out of data.dir"),
    "a path of ten thousand letters": ("a.csv", later(2, f"{'y' * 10_000},fern"), "a.csv, line 3: 'yyy"),
    "brackets without end": ("a.json", "[" * 200_000, "a.json is not a list in JSON"),
    "objects without end": ("a.json", '{"annotations":' * 200_000, "a.json is not a list in JSON"),
    "brackets without end in a line": ("a.jsonl", json.dumps(records()[0]) + "\n" + "[" * 200_000, "a.jsonl, line 2"),
    "a number without end": ("a.json", "9" * 5000, "a.json is not a list in JSON"),
    "a number instead of a list": ("a.json", "5", "a.json is not a list in JSON"),
    "annotations that are an object": ("a.json", '{"annotations": {}}', "a.json .*annotations"),
    "no annotations": ("a.json", '{"images": []}', "a.json .*annotations is missing"),
    "an annotation that is a number": ("a.json", '{"annotations": [5]}', "a.json, annotation 1"),
    "a path that is a number": ("a.json", authors(fpath=7), "a.json, annotation 3: .*'7'.*int"),
    "a path of two lines": ("a.json", authors(fpath="a\nb.png"), r"a.json, annotation 3: 1 of 9 .*a.nb.png"),
    "no path": ("a.json", authors(fpath=...), "a.json, annotation 3 .*fpath"),
    "a label that is true": ("a.json", authors(category_id=True), "a.json, annotation 3: .*'True'.*bool"),
    "a label that is a half": ("a.json", authors(category_id=0.5), "a.json, annotation 3: .*'0.5'.*float"),
    "a label that is nothing": ("a.json", authors(category_id=None), "a.json, annotation 3: .*'None'"),
    "a label that is a list": ("a.json", authors(category_id=[1]), "a.json, annotation 3: .*list"),
    "images that are texts": ("a.json", coco(images=["a"]), "a.json, image 1"),
    "an image without a file": ("a.json", coco(images=[{"id": 1}]), "a.json, image 1 .*file_name"),
    "two images of one id": ("a.json", coco(images=[{"id": 1, "file_name": "a"}] * 2), "a.json, image 2: .*id 1"),
    "an annotation of no image": ("a.json", coco(images=[{"id": 1, "file_name": "a"}]), "a.json, annotation 1: .*'i0'"),
    "an id that is a list": ("a.json", coco(images=[{"id": [], "file_name": "a"}]), "a.json, image 1, id"),
    "a category of no name": ("a.json", coco(categories=[{"id": 0, "name": ""}] ), "a.json, annotation 5: .*id 1"),
    "categories without a name": ("a.json", coco(("", "fern", "moss", "reed"), annotations=[{"image_id": "i0", "category_id": 0}]), "a.json: class 0"),
    "two categories of one id": ("a.json", coco(categories=[{"id": 0, "name": "a"}] * 2), "a.json .*categories .*id 0"),
    "ids of two kinds": ("a.json", coco(categories=[{"id": 0, "name": "a"}, {"id": "0", "name": "b"}]), "a.json .*ids"),
    "records without a label": ("a.json", json.dumps([{"path": "a"}]), "a.json, record 1 .*path"),
    "a record that is a list": ("a.jsonl", "[1]", "a.jsonl, line 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_clear_names_the_list_and_its_line(tmp_path, name):
    file, content, said = REFUSED[name]
    with pytest.raises(DataError, match=said) as error:
        load(tmp_path, file, content)
    assert "\n" not in str(error.value)


NOTED = {  # what is read, but may be a mistake
    "capitals": (table(labelled(lambda name, row: name.upper() if row == 3 else name)), r"'FERN' \(\d images?\) and 'fern' \(\d\).*one name"),
    "a blank within": (table(labelled(lambda n, row: "f  ern" if row else "f ern")), "'f  ern' .* and 'f ern'"),
    "an invisible letter": (table(labelled(lambda n, row: "fern\u200b" if row == 3 else n)), "'fern' .* and 'fern"),
    "none": (table(labelled(lambda name, row: "None" if row in (2, 3) else name)), "missing label: 'None'"),
    "a quotation mark": (table(labelled(lambda n, row: 'fern"' if row == 3 else n)), "quotation mark: 'fern\"'"),
    "numbers among names": (table(labelled(lambda n, row: 7 if row > 6 else n)), "2 labels are numbers.*'fern'.*line 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOTED)
def test_what_may_be_a_mistake_is_noted(tmp_path, name):
    content, said = NOTED[name]
    assert any(re.search(said, line) for line in load(tmp_path, "a.csv", content).notes)
    assert not load(tmp_path, "a.csv", NAMED).notes


def test_one_file_in_two_classes_is_a_fault(tmp_path):
    source = load(tmp_path, "a.csv", table([*ROWS, (ROWS[0][0], "moss"), ROWS[4], ROWS[4]]))
    assert len(source.faults) == 1 and "two classes: 1 (img/fern/0.png (fern, moss))" in source.faults[0]
    assert [line for line in source.notes if "has twice: 1 (img" in line]


def test_labels_in_two_spellings_are_one_class(tmp_path):
    forms = ("NFC", "NFD")
    rows = labelled(lambda name, row: unicodedata.normalize(forms[row % 2], ACCENT) if name == "fern" else name)
    assert load(tmp_path, "a.csv", table(rows)).class_names == (ACCENT, "moss", "reed")


def test_a_path_in_another_spelling_is_found(tmp_path):
    for given, there in (("NFC", "NFD"), ("NFD", "NFC")):
        (tmp_path / "img").mkdir(exist_ok=True)
        (tmp_path / f"img/{unicodedata.normalize(there, ACCENT)}{there}.png").write_bytes(b"x")
        rows = [*ROWS, (f"img/{unicodedata.normalize(given, ACCENT)}{there}.png", "fern")]
        source = load(tmp_path, "a.csv", table(rows))
        assert len(images(source)) == 10 and "spelling" in source.notes[0]


def test_names_of_files_may_be_any_bytes(tmp_path):
    name = os.fsdecode(b"img/fern/\xe9\xff.png")
    load(tmp_path, "a.csv", NAMED)
    (tmp_path / name).write_bytes(b"x")
    source = load(tmp_path, "a.txt", text([*ROWS, (name, "fern")]).encode("utf-8", "surrogateescape"))
    assert images(source)[name] == "fern"


def test_names_with_separators_of_unicode_are_one_line(tmp_path):
    name = "img/fern/a\u2028b\x0cc\x85.png"
    load(tmp_path, "a.csv", NAMED)
    (tmp_path / name).write_bytes(b"x")
    assert images(load(tmp_path, "a.txt", text([*ROWS, (name, "fern")])))[name] == "fern"
    assert images(load(tmp_path, "a.txt", text([*labelled(lambda n, _: f"{n} of two words")], "\t")))


CLASSES = {
    "a gap": ("Farn\n\nMoos\nSchilf\n", "classes.txt, line 2 is empty"),
    "a gap that fits": ("Farn\n\nSchilf\n", "classes.txt, line 2 is empty"),
    "an empty first line": ("\nFarn\nMoos\nSchilf", "classes.txt, line 1 is empty"),
    "nothing": ("", "classes.txt, line 1 is empty"),
    "too few": ("Farn\nMoos\n", "a.txt, line 8: .*'2'"),
    "too many": ("Farn\nMoos\nSchilf\nSegge\n", "Segge.*data.list.classes"),
    "two alike": ("crane\nmoss\ncrane\n", "'crane' .*classes.txt"),
    "Windows-1252": (
        "Farn\nMoos\nRöhricht\n".encode("cp1252"),
        r"classes.txt, line 3: the name 'R.udcf6hricht' .*UTF-8",
    ),
    "a zero byte": ("Farn\nMo\0s\nSchilf\n", "classes.txt, line 2 has zero bytes"),
    "a name without end": (f"Farn\n{'x' * 10_000}\nSchilf\n", "classes.txt: class 1 .*10,000"),
}


@pytest.mark.parametrize("name", CLASSES)
def test_a_file_of_names_that_does_not_fit(tmp_path, name):
    content, said = CLASSES[name]
    with pytest.raises(DataError, match=said):
        load(tmp_path, "a.txt", text(labelled(lambda name, _: NUMBERS[name])), classes=content)


@pytest.mark.parametrize(("encoding", "end"), [("utf-8-sig", "\r\n"), ("utf-16", "\n"), ("utf-8", "\n\n\n")])
def test_a_file_of_names_as_editors_write_it(tmp_path, encoding, end):
    content = f"Farn\nMoos\n{ACCENT}".replace("\n", end[:2].replace("\n\n", "\n")) + end
    source = load(tmp_path, "a.txt", text(labelled(lambda n, _: NUMBERS[n])), classes=content.encode(encoding))
    assert source.class_names == ("Farn", "Moos", ACCENT)


def test_labels_from_1_with_a_file_of_names(tmp_path):
    with pytest.raises(DataError, match="a.txt, line 8: .*'3'.*subtract 1"):
        load(tmp_path, "a.txt", text(labelled(lambda n, _: NUMBERS[n] + 1)), classes="Farn\nMoos\nSchilf\n")


def test_several_lists(tmp_path):
    source = load(tmp_path, "a.csv", NAMED, test="img/fern/0.png fern\nimg/moss/0.png moss\n")
    assert "train list and in the test list: 2 (img/fern/0.png, img/moss/0.png)" in source.notes[-1]
    with pytest.raises(DataError, match="test.txt, line 2: .*'ferm'.* 1 more.*did you mean fern"):
        load(tmp_path, "a.csv", NAMED, test="img/fern/0.png fern\nimg/moss/0.png ferm\nimg/moss/1.png ferm\n")


def test_categories_go_by_their_names_in_every_list(tmp_path):
    (tmp_path / "test.json").write_text(coco(("reed", "moss", "fern")))
    load(tmp_path, "a.json", coco())
    given = {"train": "a.json", "test": "test.json"}
    source = sources.load(Request("list", tmp_path, lists=given))
    assert source.splits["train"].labels.tolist() == source.splits["test"].labels.tolist()
    (tmp_path / "test.json").write_text(
        coco(("reed", "moss", "fern", "sedge"), annotations=[{"image_id": "i0", "category_id": 3}])
    )
    with pytest.raises(DataError, match="test.json, annotation 1: .*'sedge'"):
        sources.load(Request("list", tmp_path, lists=given))


@pytest.mark.parametrize("name", ["pipe", "/dev/zero"])
def test_what_is_no_file_is_refused_without_waiting(tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    for lists_of in ({"train": name}, {"train": "a.csv", "classes": name}):
        load(tmp_path, "a.csv", NAMED)
        with pytest.raises(DataError, match=f"{name} is not a regular file"):
            sources.load(Request("list", tmp_path, lists=lists_of))


def test_a_list_has_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr(lists.list_files, "MOST", 10_000)
    for file in ("a.txt", "a.txt.gz"):
        content = b"x" * 20_000
        (tmp_path / file).write_bytes(gzip.compress(content) if file.endswith("gz") else content)
        with pytest.raises(DataError, match=f"{file} has more than 10,000 bytes"):
            lists.parse(tmp_path / file)


def test_one_stray_quotation_mark_is_never_silent(tmp_path):
    """Wherever it is: the list is refused, or has all rows, and a class that it made is noted."""
    load(tmp_path, "a.csv", NAMED)
    for place in range(NAMED.index("\n") + 1, len(NAMED)):
        (tmp_path / "a.csv").write_text(f'{NAMED[:place]}"{NAMED[place:]}')
        try:
            source = sources.load(Request("list", tmp_path, lists={"train": "a.csv"}))
        except DataError:
            continue
        assert len(images(source)) == len(ROWS)
        assert source.class_names == tuple(COUNTS) or any("quotation mark" in line for line in source.notes)


FORMS = {
    "a.csv": NAMED, "a.txt": text(ROWS), "a.json": coco(), "b.json": authors(), "c.json": json.dumps(records()),
    "a.jsonl": "\n".join(map(json.dumps, records())),
}  # fmt: skip


@pytest.mark.parametrize("file", FORMS)
def test_damage_is_an_error_of_the_data_and_nothing_else(tmp_path, file):
    load(tmp_path, file, FORMS[file])
    for seed in range(60):
        draw, content = random.Random(seed), bytearray(FORMS[file].encode())
        for _ in range(draw.randint(1, 3)):
            place = draw.randrange(len(content))
            new = draw.choice(
                [b"", b'"', b"\0", b"\xff", b"\n", b"\r", b"[", b"}", b",", b"\\", b" ", b"-", b"\xc2\x85"]
            )
            content[place : place + draw.choice([0, 1, 1, 30])] = new
        (tmp_path / file).write_bytes(content)
        try:
            sources.load(Request("list", tmp_path, lists={"train": file}))
        except DataError as error:
            assert "\n" not in str(error), seed


# Commands and their arguments


def test_a_command_says_what_it_noted(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    load(tmp_path, "a.csv", table(pathed(lambda path: path.replace("/", "\\")), ";"))
    message, code = cli.attempt("inspect", [f"--config=list:dir={tmp_path},train=a.csv,image_size=16"])
    printed = capfd.readouterr().out
    assert code == 1 and "note: " in printed and "semicolons" in printed and "\\: 9" in printed, message


def test_a_command_blames_the_users_list(tmp_path):
    (tmp_path / "a.csv").write_text(table([("img/fern/0.png", '"fern'), *ROWS * 1000]))
    message, code = cli.attempt("inspect", [f"--config=list:dir={tmp_path},train=a.csv,image_size=16"])
    assert code == 1 and "a.csv, line 2" in message and "list.py" not in message


ARGUMENTS = {
    "dir=red,green,epochs=3": {"dir": "red,green", "epochs": 3},
    "dir=a,b,c": {"dir": "a,b,c"},
    "dir=a,,epochs=3,": {"dir": "a", "epochs": 3},
    "dir=a=b,train=x,y.txt,seed=1": {"dir": "a=b", "train": "x,y.txt", "seed": 1},
}


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_paths_may_have_commas(arguments):
    found = recipes.parse_arguments(arguments, dir="", train="", epochs=30, seed=0)
    assert {name: found[name] for name in ARGUMENTS[arguments]} == ARGUMENTS[arguments]


def test_a_list_may_be_called_as_a_users_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    load(tmp_path, "~list.csv", NAMED)
    assert len(images(sources.load(Request("list", pathlib.Path(), lists={"train": "~list.csv"})))) == 9
