"""`ncl-jax predict` and loaded models on files of any kind and size."""

import collections
import csv
import io
import json
import os
import pickle
import shutil
import sys

import jax
import numpy as np
import pytest
import tiny
from PIL import Image
from scipy.special import softmax
from test_own_images import make_folder, write_image

import ncl_jax
from ncl_jax import cli
from ncl_jax.data.images import decode, parallel, pixels, transforms
from ncl_jax.data.images.decode import read_image
from ncl_jax.errors import DataError, ExportError, WriteError
from ncl_jax.evaluation.temperature import fit_temperature
from ncl_jax.runs import answers as answers_module
from ncl_jax.runs import predict as predict_module
from ncl_jax.runs import sorting, trust
from ncl_jax.runs.export import export
from ncl_jax.runs.train import train
from ncl_jax.trust import mix, sets


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
    assert code == 1 and "no image is named" in output


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
    with pytest.raises(ValueError, match="there is no image"):
        model([])


def test_many_files_come_in_order(trained, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(predict_module, "BATCH", 4)
    run, folder = trained
    files = [folder / "train" / "cat" / f"{i % 12}.jpg" for i in range(70)]
    model = ncl_jax.load(run)
    found = predict_module.score(model, list(map(str, files)), None)
    answers = list(answers_module.answers(model, found, answers_module.How(1)))
    assert [answer["file"] for answer in answers] == list(map(str, files))
    assert answers[:12] == answers[12:24]


@pytest.fixture(scope="module")
def calibrated(trained, tmp_path_factory):
    """The run with out-of-fold scores, of 80 images; those of Ähre are often taken for cats."""
    run = shutil.copytree(trained[0], tmp_path_factory.mktemp("calibrated") / "run")
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [40, 30, 10])
    logits = random.normal(size=(80, 2, 3)) + 2.5 * np.eye(3)[labels][:, None]
    folds = np.arange(80) % 5
    logits[79], folds[79] = np.nan, -1
    step = json.loads((run / "results.json").read_text())["step"]
    np.savez(run / "out_of_fold.npz", logits=logits.astype(np.float32), labels=labels, folds=folds, about=[5, step])
    return run


@pytest.mark.parametrize("promise", ["marginal", "macro"])
def test_sets_are_those_of_the_calibrated_rule(trained, calibrated, tmp_path, capfd, promise):
    _, folder = trained
    files = sorted((folder / "test").rglob("*.jpg"))
    with np.load(calibrated / "out_of_fold.npz") as kept:
        logits, labels = kept["logits"][:79].mean(1), kept["labels"][:79]
    counts = np.array(ncl_jax.load(calibrated).facts.class_counts)
    prior = counts / counts.sum()
    own = np.bincount(labels) / 79
    t = fit_temperature(logits.astype(float), labels, np.log(own))
    table = softmax(logits / t + np.log(prior), axis=-1)
    rule = sets.calibrate(table[np.arange(79), labels], labels, prior, 0.8, promise)
    for options in ({}, {"prior": "train", "temperature": 3.0}):  # of the model, which the sets do not depend on
        model = ncl_jax.load(calibrated, **options)
        raw = ncl_jax.load(calibrated)(files)
        wanted = sets.predict_sets(rule, softmax(raw / t + np.log(prior), axis=-1))
        np.testing.assert_array_equal(model.sets(files, 0.8, promise), wanted)
        np.testing.assert_array_equal(model.sets(model.probabilities(files), 0.8, promise), wanted)
    out = tmp_path / "a.jsonl"
    code, _, output = predict(
        capfd, calibrated, folder / "test", f"--out={out}", "--coverage=0.8", f"--promise={promise}"
    )
    assert code == 0 and "calibrated on 79 images" in output
    for line, row in zip(out.read_text().splitlines(), wanted, strict=True):
        answer = json.loads(line)
        assert set(answer["set"]) == {model.class_names[c] for c in np.flatnonzero(row)}
        assert answer["unsure"] == (row.sum() != 1)


def test_what_is_kept_outlives_the_data_and_damage(trained, calibrated, tmp_path):
    _, folder = trained
    files = sorted((folder / "test" / "dog").glob("*.jpg"))
    run = shutil.copytree(calibrated, tmp_path / "run")
    model = ncl_jax.load(run)
    wanted, known = model.sets(files, 0.7), model.known(files)
    assert (run / "calibration.npz").exists() and (run / "known.npz").exists()
    (run / "out_of_fold.npz").unlink()
    config = json.loads((run / "config.json").read_text())
    config["data"]["dir"] = "/none"
    (run / "config.json").write_text(json.dumps(config))
    again = ncl_jax.load(run)
    np.testing.assert_array_equal(again.sets(files, 0.7), wanted)
    np.testing.assert_array_equal(again.known(files), known)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(again)).sets(files, 0.7), wanted)
    for name in ("calibration.npz", "known.npz"):
        (run / name).write_bytes((run / name).read_bytes()[:-40])
    for ask in (ncl_jax.load(run).sets, ncl_jax.load(run).known):  # damaged, and there is nothing to make them of
        with pytest.raises(DataError):
            ask(files)
    shutil.copy(calibrated / "out_of_fold.npz", run)
    np.testing.assert_array_equal(ncl_jax.load(run).sets(files, 0.7), wanted)


@pytest.mark.parametrize("options", [{}, {"prior": "uniform", "temperature": 2.0, "expert": 1}])
def test_an_export_has_the_same_sets(trained, calibrated, tmp_path, options):
    files = sorted((trained[1] / "test").rglob("*.jpg"))
    export(calibrated, tmp_path / "model", **options)
    exported, model = ncl_jax.load_exported(tmp_path / "model"), ncl_jax.load(calibrated, **options)
    np.testing.assert_allclose(exported.probabilities(files), model.probabilities(files), atol=1e-5)
    for promise in sets.PROMISES:
        np.testing.assert_array_equal(exported.sets(files, 0.9, promise), model.sets(files, 0.9, promise))
        np.testing.assert_array_equal(exported.sets(exported(files), 0.8, promise), model.sets(files, 0.8, promise))
    with pytest.raises(ExportError, match=r"coverage=0.7.*marginal 0.8"):
        exported.sets(files, 0.7)
    about = json.loads((tmp_path / "model.json").read_text())
    about["sets"]["prior"] = about["sets"]["prior"][:-1]
    (tmp_path / "model.json").write_text(json.dumps(about))
    with pytest.raises(ExportError, match=r"sets\.prior"):
        ncl_jax.load_exported(tmp_path / "model")


def test_an_export_without_a_calibration_has_no_sets(trained, tmp_path):
    export(trained[0], tmp_path / "model")
    with pytest.raises(ExportError, match="--folds=5"):
        ncl_jax.load_exported(tmp_path / "model").sets(np.ones((1, 3)))


def test_a_calibration_of_another_checkpoint_or_run_is_not_used(calibrated, tmp_path):
    run = shutil.copytree(calibrated, tmp_path / "run")
    with np.load(run / "out_of_fold.npz") as kept:
        content = dict(kept)
    for change in (
        {"about": np.array([5, 10**6])},
        {"logits": content["logits"][:, :1]},
        {"labels": content["labels"] + 9},
    ):
        np.savez(run / "out_of_fold.npz", **content | change)
        (run / "calibration.npz").unlink(missing_ok=True)
        with pytest.raises(DataError, match=r"--folds=5.*data.val_share=0.1"):
            ncl_jax.load(run).set_rule(0.9)


def test_images_of_another_kind_are_marked(trained, calibrated, tmp_path, capfd):
    _, folder = trained
    Image.new("RGB", (8, 8), (255, 0, 255)).save(tmp_path / "odd.png")
    out = tmp_path / "a.csv"
    code, _, output = predict(capfd, calibrated, tmp_path / "odd.png", folder / "train", f"--out={out}", "--refuse=0.2")
    rows = list(csv.DictReader(io.StringIO(out.read_text(encoding="utf-8"))))
    values = np.array([float(row["known"]) for row in rows])
    assert code == 0 and values[0] < 0.2 < np.median(values)
    assert [row["refused"] for row in rows] == [str(int(value < 0.2)) for value in values]
    assert f"unlike anything in training: {sum(values < 0.2)} of 23" in output
    code, printed, _ = predict(capfd, calibrated, tmp_path / "odd.png", "--refuse=0.2")
    assert code == 0 and "unlike anything in training at the 20 % level" in printed


def test_files_are_sorted_by_answer(trained, calibrated, tmp_path, capfd):
    _, folder = trained
    place = tmp_path / "sorted"
    arguments = (folder / "test", f"--sort-into={place}", "--coverage=0.8", f"--out={tmp_path}/a.jsonl")
    code, _, output = predict(capfd, calibrated, *arguments)
    answers = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert code == 0 and f"{sum(a['unsure'] for a in answers)} in unsure/ (" in output
    wanted = sorted(("unsure" if a["unsure"] else a["top"][0]["label"], a["file"]) for a in answers)
    found = sorted((link.parent.name, str(link.readlink())) for link in place.rglob("*") if link.is_symlink())
    assert found == wanted and sum(len(list(inside.iterdir())) for inside in place.iterdir()) == 22
    before = sorted(place.rglob("*"))
    code, _, output = predict(capfd, calibrated, *arguments, "--force")
    assert code == 1 and "not an empty folder" in output and sorted(place.rglob("*")) == before


def test_names_of_folders_and_copies_are_safe(tmp_path, monkeypatch):
    odd = ("a/b", "a:b", "../x", "unsure", "Unsure", "caf\udce9", "", "..", "x" * 400, "nul\0", "A_B")
    assert sorting.safe_name("cf. Panthera pardus orientalis") == "cf. Panthera pardus orientalis"
    names = sorting.folder_names(odd)
    assert len({name.casefold() for name in names}) == len(odd) and "unsure" not in map(str.casefold, names)
    assert all("/" not in name and name.strip(". ") and len(name.encode()) < 255 for name in names)
    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / "x.jpg").write_bytes(b"1")
    monkeypatch.setattr("pathlib.Path.symlink_to", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    sorter = sorting.Sorter(str(tmp_path / "new"), ("a/b",))
    sorter.put(str(tmp_path / "x.jpg"), "a/b", False)
    (tmp_path / "x.jpg").write_bytes(b"2")
    sorter.put(str(tmp_path / "x.jpg"), "a/b", False)  # a second of that name is not written over the first
    copies = [tmp_path / "new" / names[0] / name for name in ("x.jpg", "x (2).jpg")]
    assert [copy.read_bytes() for copy in copies] == [b"1", b"2"]
    with pytest.raises(WriteError, match="sort-into"):
        sorter.put(str(tmp_path / "gone.jpg"), "a/b", False)


def test_the_images_to_check_first_and_the_counts(trained, tmp_path, capfd):
    run, folder = trained
    _, _, output = predict(capfd, run, folder / "test", f"--out={tmp_path}/a.jsonl", "--review=3")
    answers = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    model = ncl_jax.load(run)
    files = [answer["file"] for answer in answers]
    p = model.probabilities(files)
    worth = [sum(q * (1 - q) / n for q, n in zip(row, model.facts.class_counts, strict=True)) for row in p]
    wanted = [files[i] for i in sorted(range(22), key=lambda i: -worth[i])[:3]]
    lines = output.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("to check first")) + 1
    assert [line.strip().rpartition(": ")[0] for line in lines[start : start + 3]] == wanted
    counted = collections.Counter(answer["top"][0]["label"] for answer in answers)
    assert "predictions by class: " + ", ".join(f"{k} {n}" for k, n in counted.most_common()) in output


def test_an_estimate_of_more_images_than_fit_in_memory_is_refused(trained, calibrated, capfd, monkeypatch):
    monkeypatch.setattr(answers_module, "MOST_SCORES", 800)
    code, _, output = predict(capfd, calibrated, trained[1] / "test", "--prior=estimate")
    assert code == 1 and "22 images of 3 classes" in output and "at most 20 images" in output


def test_the_mix_of_the_images_is_estimated(trained, calibrated, tmp_path, capfd, monkeypatch):
    _, folder = trained
    monkeypatch.setattr(mix, "FEWEST", 5)
    files = sorted((folder / "test").rglob("*.jpg"))
    model = ncl_jax.load(calibrated)
    prior = trust.source_prior(model.calibration(), model.facts)
    table = model.calibrated(model(files))
    for refused in ("", "they say nothing"):
        monkeypatch.setattr(mix, "_reason", lambda found, text=refused: text)
        code, _, output = predict(
            capfd, calibrated, folder / "test", "--prior=estimate", f"--out={tmp_path}/a.jsonl", "--force"
        )
        assert code == 0
        shares = mix.estimate(table, prior).shares
        moved = table * shares / prior
        wanted = model.probabilities(files) if refused else moved / moved.sum(1, keepdims=True)
        answers = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
        for answer, row in zip(answers, wanted, strict=True):
            np.testing.assert_allclose([c["probability"] for c in answer["top"]], np.sort(row)[::-1], atol=1e-4)
        changed = int((moved.argmax(1) != model(files).argmax(1)).sum())
        said = "not estimated: they say nothing. " if refused else f"changed predictions: {changed}"
        assert said in output


BAD = {
    "a coverage of nothing": (["{file}", "--coverage=0"], "coverage=0.0 must lie between 0 and 1"),
    "a coverage of all": (["{file}", "--coverage=1"], "coverage=1.0"),
    "more than all": (["{file}", "--coverage=1.5"], "coverage=1.5"),
    "a coverage that is no number": (["{file}", "--coverage=nan"], "coverage=nan"),
    "a promise without sets": (["{file}", "--promise=macro"], "pass --coverage"),
    "weights without sets": (["{file}", "--weights=w.txt"], "pass --coverage"),
    "sets without images to calibrate on": (
        ["{file}", "--coverage=0.9"],
        "--config.data.val_share=0.1",
    ),
    "a mix without them": (["{file}", "--prior=estimate"], "--folds=5"),
    "a level of nothing": (["{file}", "--refuse=0"], "--refuse=0.0 must lie between 0 and 1"),
    "no images to check": (["{file}", "--review=-1"], "--review=-1 must be at least 0"),
    "a folder that is in use": (["{file}", "--sort-into={tmp}/.."], "not an empty folder"),
    "a file that does not exist": (["/none.jpg"], "/none.jpg cannot be read (No such file or directory)"),
    "a folder without images": (["{tmp}"], "holds no image file"),
    "another ending": (["{file}", "--out=a.txt"], r"--out=a.txt must end in .csv or .jsonl"),
    "a folder that is not there": (["{file}", "--out=/none/a.csv"], "--out=/none/a.csv cannot be written"),
    "no class": (["{file}", "--top=0"], "--top=0 must be at least 1"),
    "no such expert": (["{file}", "--expert=2"], "--expert=2: pass a number; the run has experts 0 to 1"),
    "no such step": (["{file}", "--step=7"], "has no checkpoint of step 7"),
    "no image at all": ([], "IMAGE_OR_FOLDER"),
}


@pytest.mark.parametrize(
    ("content", "said"), [("1 2", "2 weights"), ("1 -1 2", "above 0"), ("a b c", "weights"), (None, "weights")]
)
def test_bad_weights(trained, calibrated, tmp_path, capfd, content, said):
    if content:
        (tmp_path / "w.txt").write_text(content)
    file = trained[1] / "test" / "cat" / "0.jpg"
    code, _, output = predict(capfd, calibrated, file, "--coverage=0.9", f"--weights={tmp_path}/w.txt")
    assert code == 1 and said in output and "Traceback" not in output


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
        with pytest.raises(ValueError, match=r"uint8 \[H, W, 3\], RGB, a path or a PIL image"):
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
