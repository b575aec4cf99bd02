"""`ncl-jax predict` and loaded models on files of any kind and size."""

import csv
import io
import json
import os
import shutil
import sys

import jax
import numpy as np
import pytest
import tiny
from PIL import Image
from test_own_images import make_folder, write_image

import ncl_jax
from ncl_jax import cli
from ncl_jax.data.images import decode, parallel, pixels, transforms
from ncl_jax.data.images.decode import read_image
from ncl_jax.errors import DataError
from ncl_jax.runs import predict as predict_module
from ncl_jax.runs.train import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on a folder of images, and the folder."""
    place = tmp_path_factory.mktemp("predicting")
    folder = make_folder(place / "data", ("train", "test"), {"cat": 12, "dog": 6, "Ähre, 2": 4})
    fields = {"data__name": "folder", "data__dir": str(folder), "data__imbalance": 0.0, "data__image_size": 8,
              "data__resize": 9, "epochs": 1, "optim__milestones": (), "run__data_devices": 1}  # fmt: skip
    train(tiny.tiny("method=ce", **fields), place / "run")
    return place / "run", folder


@pytest.fixture
def run(trained):
    return trained[0]


def predict(capfd, run, *arguments):
    """Exit code, standard output, and everything."""
    message, code = cli.attempt("predict", [f"--run={run}", *map(str, arguments)])
    printed, errors = capfd.readouterr()
    return code, printed, printed + errors + message


@pytest.mark.slow
def test_files_and_folders_get_the_models_probabilities(trained, tmp_path, capfd):
    run, folder = trained
    code, _, output = predict(capfd, run, folder / "test", f"--out={tmp_path}/a.jsonl", "--top=3")
    assert code == 0 and "22 of 22 files" in output
    answers = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    model = ncl_jax.load(run)
    files = sorted((folder / "test").rglob("*.jpg"))
    assert [answer["file"] for answer in answers] == [str(file) for file in files]
    probabilities = np.asarray(jax.nn.softmax(model(files)))
    for answer, expected in zip(answers, probabilities, strict=True):
        assert [c["label"] for c in answer["top"]] == [model.class_names[i] for i in np.argsort(-expected)]
        np.testing.assert_allclose([c["probability"] for c in answer["top"]], np.sort(expected)[::-1], atol=1e-5)
    winners = model.experts(files).argmax(-1)
    np.testing.assert_allclose([answer["disagreement"] for answer in answers], winners[0] != winners[1])


def test_csv_and_the_console(trained, tmp_path, capfd):
    run, folder = trained
    file = folder / "test" / "Ähre, 2" / "0.jpg"
    assert predict(capfd, run, file, "--top=2", f"--out={tmp_path}/a.csv")[0] == 0
    header, row = csv.reader(io.StringIO((tmp_path / "a.csv").read_text(encoding="utf-8")))
    assert header == ["file", "label_1", "probability_1", "label_2", "probability_2", "disagreement", "error"]
    assert row[0] == str(file) and 0.3 < float(row[2]) <= 1
    code, printed, _ = predict(capfd, run, file, "--top=1")
    assert code == 0 and f"{file}: {row[1]} {100 * float(row[2]):.1f} %" in printed


def test_names_from_standard_input(trained, capfd, monkeypatch):
    run, folder = trained
    names = [folder / "test" / "cat" / f"{i}.jpg" for i in (2, 0)]
    content = "".join(f"{name}\n" for name in names).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    code, printed, _ = predict(capfd, run, "-", "--top=1", "--expert=1", "--step=best")
    assert code == 0 and [line.partition(": ")[0] for line in printed.splitlines()] == [str(name) for name in names]
    code, _, output = predict(capfd, run, "-")
    assert code == 1 and "no image is named: give files or folders, or names on standard input" in output


def test_names_that_no_encoding_has_letters_for(trained, tmp_path, capfd):
    run, folder = trained
    odd = os.fsdecode(bytes(tmp_path) + b"/caf\xe9.jpg")
    shutil.copy(folder / "test" / "cat" / "0.jpg", odd)
    assert predict(capfd, run, odd, f"--out={tmp_path}/a.csv")[0] == 0
    assert r"caf\xe9.jpg" in (tmp_path / "a.csv").read_text(encoding="utf-8")


def test_unreadable_files_are_named_and_passed_over(trained, tmp_path, capfd):
    run, folder = trained
    shutil.copytree(folder / "test" / "cat", tmp_path / "new")
    (tmp_path / "new" / "3.jpg").write_bytes(b"")
    code, _, output = predict(capfd, run, tmp_path / "new", f"--out={tmp_path}/a.csv")
    assert code == 1 and "1 of 12 files cannot be read" in output and "3.jpg cannot be read as an image" in output
    rows = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text())))
    assert len(rows) == 12 and [bool(row["error"]) for row in rows].index(True) == 5  # 0, 1, 10, 11, 2, 3
    assert all(row["label_1"] for row in rows if not row["error"])


def test_an_image_without_memory_for_it_is_passed_over(trained, tmp_path, capfd, monkeypatch):
    run, folder = trained

    def opened(encoded, name, original=decode.open_image):
        if name.endswith("3.jpg"):
            raise MemoryError
        return original(encoded, name)

    monkeypatch.setattr(decode, "open_image", opened)
    code, _, output = predict(capfd, run, folder / "test" / "cat", f"--out={tmp_path}/a.jsonl")
    assert code == 1 and "1 of 12 files cannot be read" in output and "Traceback" not in output
    answers = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [answer["file"] for answer in answers if "error" in answer] == [str(folder / "test" / "cat" / "3.jpg")]
    assert sum("top" in answer for answer in answers) == 11


def test_a_run_that_read_its_images_by_another_rule_says_so(trained, tmp_path, capfd):
    run, folder = trained
    stored = json.loads((run / "config.json").read_text())
    assert stored.pop("pixels") == pixels.VERSION
    file = folder / "test" / "cat" / "0.jpg"
    code, printed, _ = predict(capfd, run, file)
    old = shutil.copytree(run, tmp_path / "old")
    (old / "config.json").write_text(json.dumps(stored))
    code_of_old, printed_by_old, output = predict(capfd, old, file)
    assert code == code_of_old == 0 and printed == printed_by_old
    assert f"rule unknown of data/images/pixels.py, now it is rule {pixels.VERSION}" in output


def test_names_of_nothing_are_passed_over_as_well(trained, tmp_path, capfd):
    run, folder = trained
    code, printed, output = predict(capfd, run, tmp_path / "none.jpg", folder / "test" / "cat" / "0.jpg")
    assert code == 1 and f"{tmp_path}/none.jpg cannot be read (No such file" in output
    assert printed.startswith(f"{folder}/test/cat/0.jpg: ")


def test_one_image_and_none(trained):
    run, folder = trained
    model, file = ncl_jax.load(run), folder / "test" / "cat" / "0.jpg"
    np.testing.assert_array_equal(model(Image.open(file)), model([file]))
    with pytest.raises(ValueError, match="there is no image: give one or more"):
        model([])


def test_many_files_come_in_order(trained, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(predict_module, "BATCH", 4)
    run, folder = trained
    files = [folder / "train" / "cat" / f"{i % 12}.jpg" for i in range(70)]
    model = ncl_jax.load(run)
    answers = list(predict_module.predict(model, list(map(str, files)), 1, None))
    assert [answer["file"] for answer in answers] == list(map(str, files))
    assert answers[:12] == answers[12:24]


BAD = {
    "a file that does not exist": (["/none.jpg"], "/none.jpg cannot be read (No such file or directory)"),
    "a folder without images": (["{tmp}"], "holds no image file"),
    "another ending": (["{file}", "--out=a.txt"], r"--out=a.txt must end in .csv or .jsonl"),
    "a folder that is not there": (["{file}", "--out=/none/a.csv"], "--out=/none/a.csv cannot be written"),
    "no class": (["{file}", "--top=0"], "--top=0 must be at least 1"),
    "no such expert": (["{file}", "--expert=2"], "--expert=2: pass a number; the run has experts 0 to 1"),
    "no such step": (["{file}", "--step=7"], "has no checkpoint of step 7"),
    "no image at all": ([], "IMAGE_OR_FOLDER"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(trained, tmp_path, capfd, name):
    run, folder = trained
    arguments, said = BAD[name]
    file = str(folder / "test" / "cat" / "0.jpg")
    code, _, output = predict(capfd, run, *(a.format(tmp=tmp_path, file=file) for a in arguments))
    assert code == 1 and said in output.replace("\\", "") and "Traceback" not in output
    message, code = cli.attempt("predict", [f"--run={tmp_path}", file])
    assert code == 1 and "is not the configuration of a run" in message


def test_a_model_takes_paths_pictures_and_arrays_of_any_size(trained, tmp_path):
    run, _ = trained
    model = ncl_jax.load(run)
    write_image(tmp_path / "x.png", 3, (40, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = read_image(tmp_path / "x.png")
    turned = Image.fromarray(np.rot90(pixels))
    turned.save(tmp_path / "turned.png", exif=exif)
    fitted = transforms.fit(pixels, 9, 8)[None]
    expected = model(fitted)
    for images in (str(tmp_path / "x.png"), [tmp_path / "x.png"], [Image.open(tmp_path / "x.png")], [pixels],
                   pixels[None], [tmp_path / "turned.png"], [Image.open(tmp_path / "turned.png")]):  # fmt: skip
        np.testing.assert_array_equal(model.prepare(images), fitted)
        np.testing.assert_allclose(model(images), expected, rtol=1e-6)
    assert model.features(fitted).shape == (2, 1, 4)
    kernel, bias = (model.variables["params"]["classifier"][name] for name in ("kernel", "bias"))
    logits = np.einsum("ebd,edc->ebc", model.features(fitted), kernel) + np.asarray(bias)[:, None]
    np.testing.assert_allclose(model.experts(fitted), logits, rtol=1e-4, atol=1e-5)
    for wrong in ([np.zeros((4, 4), np.uint8)], [np.zeros((4, 4, 3), np.float32)], np.zeros((1, 0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match=r"give uint8 \[H, W, 3\], RGB, a path or a PIL image"):
            model(wrong)
    with pytest.raises(DataError, match="none.jpg cannot be read"):
        model("none.jpg")


def test_threads_run_only_a_little_ahead():
    started = []
    results = parallel.in_threads(lambda row: (started.append(row), row)[1], 10_000, "")
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert len(started) <= 3 + 16 * parallel.cores()
    results.close()
    assert list(parallel.in_threads(lambda row: row, 50, "")) == list(range(50))
