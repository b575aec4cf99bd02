"""Faults of files that somebody else may have made: a run's directory and an exported model are data.

Nothing that they name is imported. What is not as a run writes it is one line that names the file and the key; it is
read in little time and memory, and nothing is changed.
"""

import contextlib
import gzip
import hashlib
import io
import json
import os
import random
import zipfile

import harness
import jax
import numpy as np
import pytest
from harness import STEPS
from PIL import Image

import ncl_jax
from ncl_jax import cli
from ncl_jax.config import build
from ncl_jax.errors import CheckpointError, ConfigError, ExportError, NclError
from ncl_jax.evaluation import predictions_file
from ncl_jax.report import page
from ncl_jax.runs import results, trust
from ncl_jax.runs.distill import student
from ncl_jax.runs.export import export
from ncl_jax.runs.restore import restore
from ncl_jax.runtime import schema
from ncl_jax.storage import untrusted
from ncl_jax.storage.directory import RunDir
from ncl_jax.storage.log import read_metrics

EVIL = "import pathlib\npathlib.Path({marker!r}).touch()\n"
LAST = STEPS[-1]
BOMB = b"[" * 200_000
DEEP = b'{"a":' * 200_000


def change(path, *keys, value):
    """Sets one value of a JSON file; a value of `...` removes it."""
    content = json.loads(path.read_text())
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    path.write_text(json.dumps(content))


def attempt(*words):
    """A command: the exit code, and its one line."""
    message, code = cli.attempt(words[0], [*map(str, words[1:])])
    assert "\n" not in message
    return code, message


# Code.


@pytest.fixture
def evil(run, tmp_path, monkeypatch):
    """A run that names a file, and a module of the working directory, which leave a mark if they are imported."""
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("evil.py", "evil_module.py"):
        (tmp_path / name).write_text(EVIL.format(marker=str(tmp_path / "imported")))
    return run


@pytest.mark.parametrize("name", ["{tmp}/evil.py:f", "evil_module:f"])
def test_code_that_a_run_names_is_never_imported(evil, tmp_path, name):
    name = name.replace("{tmp}", str(tmp_path))
    change(evil / "config.json", "loss", "name", value=name)
    change(evil / "results.json", "config", "loss", "name", value=name)
    assert attempt("report", evil, f"--out={tmp_path}/page.html") == (0, "")
    assert attempt("evaluate", f"--run={evil}", "--prior=uniform") == (0, "")
    assert ncl_jax.load(evil, prior="train")
    assert attempt("export", f"--run={evil}", f"--out={tmp_path}/m", "--prior=uniform") == (0, "")
    assert student(evil).loss.name == "distilled"
    code, said = attempt("train", f"--resume={evil}")
    assert code == 1 and "loss.name=" in said and "not trusted to name" in said
    change(evil / "config.json", "prior_power", value=...)
    assert ncl_jax.load(evil)
    with pytest.raises(ConfigError, match=r"loss\.name=.*evil.*prior_power"):
        ncl_jax.load(evil, prior="train")
    with pytest.raises(ConfigError, match=r"loss\.name=.*evil.*prior_power"):
        student(evil)
    model = json.loads((evil / "config.json").read_text())["model"]
    teacher = {name: model[name] for name in (*build.ARCHITECTURE, "num_experts")}
    change(evil / "config.json", "teacher", value={"run": str(evil), **teacher})
    code, said = attempt("distill", f"--run={evil}", f"--workdir={evil}")
    assert code == 1 and "evil" in said
    assert not (tmp_path / "imported").exists()


# JSON.

CONFIG = [
    ("model.width", 10**12), ("model.width", True), ("model.width", -1), ("model.width", 1.5), ("model.width", "16"),
    ("model.backbone", "no_such"), ("model.backbone", []), ("model.num_experts", 0), ("model.num_experts", 10**30),
    ("model.classifier", "evil"), ("model.new_field", 1), ("data.new_field", 1), ("new_section", {}),
    ("data.mean", [0.1, 0.2]), ("data.mean", ["a", "b", "c"]), ("data.mean", [[], [], []]), ("data.std", [0, 0, 0]),
    ("data.dir", {"deep": 1}), ("data.dir", 3), ("data", []), ("data", None), ("data.resize", 10**6),
    ("data.threads", 10**6), ("data.workers", 10**6), ("run.eval_batch", 0), ("run.strategy", "evil"),
    ("loss.own", 3), ("loss.prior_weights", ["a"]), ("loss.num_hard", None), ("optim.milestones", [{}]),
    ("optim.keys", 1), ("optim.update", 1), ("optim.a b", 1), ("seed", 2**64), ("epochs", False),
    ("prior_power", "1"), ("prior_power", 1e300), ("version", -1), ("version", {}), ("extend", "x"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), CONFIG)
def test_a_value_of_a_configuration_that_no_run_has(run, name, value):
    change(run / "config.json", *name.split("."), value=value)
    with pytest.raises(ConfigError, match=rf"config\.json.*{name.rpartition('.')[2]}"):
        RunDir(run).read_config()


FACTS = [
    ("image_shape", [100_000, 100_000, 3]), ("image_shape", [10_000, 10_000, 3]), ("image_shape", [28, 28]),
    ("image_shape", [28, 28, 1]), ("image_shape", [0, 28, 3]), ("image_shape", "abc"), ("class_counts", []),
    ("class_counts", [1, 2]), ("class_counts", [-1] * 10), ("class_counts", [0] * 10), ("class_counts", [1.5] * 10),
    ("class_counts", [True] * 10), ("class_names", ["a"]), ("class_names", [1] * 10), ("class_names", None),
    ("name", 3), ("rows_checksum", ...), ("split", []), ("skipped", {"train": {"a": -1}}), ("skipped", []),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), FACTS)
def test_facts_that_no_data_has(run, name, value):
    change(run / "dataset.json", name, value=value)
    with pytest.raises(ConfigError, match=rf"dataset\.json.*{name}"):
        RunDir(run).read_facts()


RESULTS = [
    ("epoch", "2"), ("epoch", 10**40), ("epoch", True), ("step", -1), ("step", None), ("ensemble", []),
    ("ensemble.accuracy", 2), ("ensemble.accuracy", "high"), ("ensemble.many", []), ("ensemble.nll", "low"), ("ensemble.nll", 10**400),
    ("ensemble.per_class", [0.5]), ("ensemble.per_class", [{}] * 10), ("ensemble.per_class", ...), ("experts", []),
    ("experts", {}), ("experts", [3]), ("class_counts", []), ("class_counts", [1, 2]), ("class_counts", None),
    ("config", 3), ("config.model", {"width": []}), ("seconds", "long"), ("images_per_second", []),
    ("disagreement", 3), ("disagreement.kl.per_class", []), ("best_on_test", {"epoch": 1}), ("versions", [1]),
    ("pretrained", "x"), ("pretrained", {"name": -1}), ("pretrained", {"text": 3}), ("dataset", None), ("device", 1), ("num_train", -5), ("split", 1),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), RESULTS)
def test_results_that_no_run_has(run, name, value):
    keys = name.split(".")
    change(run / "results.json", *keys, value=value)
    before = harness.contents(run)
    with pytest.raises(ConfigError, match=rf"results\.json.*({keys[-1]}|per_class)") as raised:
        results.read(RunDir(run))
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 800
    assert RunDir(run).read_results() is None or name == "config.model"
    assert harness.contents(run) == before


TEXTS = {
    "nested deep": BOMB, "objects nested deep": DEEP, "cut": b'{"a": [1', "empty": b"", "no text": b"\xff\xfe{}",
    "UTF-16": '{"a": 1}'.encode("utf-16"), "a list": b"[]", "a number": b"1", "null": b"null", "a text": b'"config"',
    "a key twice": b'{"seed": 0, "seed": 1}', "not a number": b'{"seed": NaN}', "infinite": b'{"seed": Infinity}',
    "a long number": b'{"seed": ' + b"9" * 100_000 + b"}", "a large exponent": b'{"seed": 1e99999}',
    "many lists": b"[" + b"[]," * 300_000 + b"0]", "bytes of zero": bytes(1000), "brackets in a text":
    b'{"seed": ["' + b"]" * 99 + b'",' + b"[" * 99 + b"]" * 99 + b"]}",
}  # fmt: skip


@pytest.mark.parametrize("file", ["config.json", "dataset.json", "results.json"])
@pytest.mark.parametrize("text", TEXTS)
def test_a_text_that_no_run_writes(run, file, text):
    (run / file).write_bytes(TEXTS[text])
    with pytest.raises(ConfigError, match=file.replace(".", r"\.")) as raised:
        results.read(RunDir(run))
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 800


def odd(path, kind):
    """Puts something in a file's place that is none."""
    path.unlink(missing_ok=True)
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    elif kind == "itself":
        path.symlink_to(path.name)
    else:
        with path.open("wb") as file:
            file.truncate(2**33)  # which takes no room on the disk


ODD = ("folder", "pipe", "endless", "itself", "sparse")


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("file", ["config.json", "dataset.json", "results.json"])
def test_what_is_no_file(run, file, kind):
    odd(run / file, kind)
    with pytest.raises(NclError, match=file.replace(".", r"\.")):
        results.read(RunDir(run))


@pytest.mark.parametrize("kind", ODD)
def test_files_that_a_run_can_do_without(run, kind):
    directory = RunDir(run)
    for path in (directory.predictions, directory.files, directory.temperature, directory.tracker("wandb")):
        odd(path, kind)
    for path, wanted in ((directory.calibration, trust._CALIBRATION), (directory.known, trust._KNOWN)):
        odd(path, kind)
        assert trust._read(path, wanted) is None
    assert predictions_file.read(directory.predictions, 10) is None
    assert directory.read_files() == []
    with pytest.raises(ConfigError, match=r"wandb\.id"):
        directory.read_tracker("wandb")


@pytest.mark.parametrize("kind", [kind for kind in ODD if kind != "sparse"])
def test_a_log_that_is_no_file(run, kind):
    odd(run / "metrics.jsonl", kind)
    with pytest.raises(NclError, match=r"metrics\.jsonl"):
        read_metrics(run / "metrics.jsonl")


def test_a_log_that_is_longer_than_any(run, monkeypatch):
    monkeypatch.setattr("ncl_jax.storage.contents.MOST_METRICS", 1000)
    with pytest.raises(ConfigError, match=r"metrics\.jsonl"):
        read_metrics(run / "metrics.jsonl")


def test_a_lock_that_is_no_file_is_neither_waited_for_nor_followed(run, tmp_path):
    (tmp_path / "precious").write_text("precious")
    (run / "lock").unlink(missing_ok=True)
    (run / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(NclError, match="lock|run"), RunDir(run).locked():
        pass
    assert (tmp_path / "precious").read_text() == "precious"
    odd(run / "lock", "pipe")
    with pytest.raises(NclError, match="lock"), RunDir(run).locked():
        pass


def test_lines_of_a_log_that_no_chart_can_show_are_left_out(run):
    lines = (run / "metrics.jsonl").read_bytes()
    good = read_metrics(run / "metrics.jsonl")
    bad = [
        b'{"kind": "train", "step": 1, "epoch": 1, "parts": 3}', b'{"kind": "train", "step": 1, "epoch": 1}',
        b'{"kind": "evaluation", "step": 1, "epoch": "x", "ensemble": {}}', b'{"kind": 3, "step": 1, "epoch": 1}',
        b'{"kind": "evaluation", "step": 1, "epoch": 1, "ensemble": {"accuracy": "x"}}', BOMB, b"\xff", b"[]",
    ]  # fmt: skip
    (run / "metrics.jsonl").write_bytes(lines + b"\n".join(bad) + b"\n")
    assert read_metrics(run / "metrics.jsonl") == good != []


# Arrays of predictions.


def pack(path, method=zipfile.ZIP_DEFLATED, **arrays):
    """An `.npz` of arrays, or of bytes that are no arrays."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, array in arrays.items():
            file = io.BytesIO()
            if isinstance(array, bytes):
                file.write(array)
            else:
                np.save(file, array, allow_pickle=True)
            archive.writestr(f"{name}.npy", file.getvalue())


def header(shape, dtype="<i4"):
    """An array that says it has a shape, and holds nothing."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


class Evil:
    """What a pickle would do."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was read",)


def large_pictures(good):
    """All pictures, each of more pixels than any of ours."""
    file = io.BytesIO()
    Image.new("RGB", (129, 1)).save(file, "JPEG")
    number = len(good["ends"])
    ends = len(file.getvalue()) * np.arange(1, number + 1)
    return {"jpegs": np.frombuffer(file.getvalue() * number, np.uint8), "ends": ends}


def near(mistakes, **changed):
    """A neighbour of each image."""
    zeros = np.zeros((len(mistakes), 1), np.int32)
    return {"mistakes": mistakes, "near": zeros, "near_labels": zeros, "distances": zeros.astype(np.float32)} | changed


def arrays_that_no_run_has(good):
    """By name, what differs from the good arrays."""
    labels, top, sure = good["labels"], good["top"], good["confidence"]
    return {
        "objects": {"labels": np.array([Evil()] * len(labels), object)}, "texts": {"labels": labels.astype(str)},
        "floats for classes": {"top": top.astype(np.float32)}, "another length": {"labels": labels[:-1]},
        "another number of axes": {"labels": labels[None]}, "no classes": {"top": top[:0]}, "none": {"labels": labels[:0]},
        "a class that there is not": {"labels": labels + 10}, "a class below 0": {"top": top - 10},
        "another run's experts": {"top": top[:1], "confidence": sure[:1]}, "not a number": {"confidence": sure * np.nan},
        "confidence above 1": {"confidence": sure + 5}, "rows that there are not": {"tested": good["tested"] + 10**6},
        "a picture more": {"tested": np.append(good["tested"], 0)}, "fewer bytes": {"jpegs": good["jpegs"][:-1]},
        "no JPEGs": {"jpegs": good["jpegs"] * 0}, "pictures of a length below 0": {"ends": good["ends"][::-1]},
        "large pictures": large_pictures(good), "another class in training": {"trained_labels": good["trained_labels"] + 10},
        "neighbours without distances": {"near": labels[:, None], "mistakes": labels, "near_labels": labels[:, None]},
        "neighbours of another number": near(labels, distances=np.zeros((len(labels), 2), np.float32)),
        "neighbours far away": near(labels, distances=np.full((len(labels), 1), 3, np.float32)),
        "neighbours of no image": near(labels + 10**6), "sets of other classes": {"sets": np.zeros((len(labels), 3), np.uint8)},
        "sets of other images": {"sets": np.zeros((3, 2), np.uint8)}, "no margin at all": {"margin": labels[:3] * 0.5},
        "a shape of a tera": {"labels": header((10**12,))}, "a negative shape": {"labels": header((-1,))},
        "a record type": {"labels": header((3,), [("a", "<i4")])}, "no array": {"labels": b"x"},
    }  # fmt: skip


def test_arrays_of_predictions_that_no_run_has(run, tmp_path):
    path = run / "predictions.npz"
    with np.load(path) as file:
        good = dict(file)
    assert predictions_file.read(path, 10, 3) is not None
    for name, bad in arrays_that_no_run_has(good).items():
        pack(path, **good | bad)
        assert predictions_file.read(path, 10, 3) is None, name
    pack(path, zipfile.ZIP_LZMA, **good)
    assert predictions_file.read(path, 10, 3) is None
    pack(path, **{name: np.asfortranarray(array) for name, array in good.items()})
    found = predictions_file.read(path, 10, 3)
    assert (found.top == good["top"]).all() and (found.pictures.jpegs == good["jpegs"]).all()
    pack(path, **good | near(good["labels"][:5]))
    assert predictions_file.read(path, 10, 3).near.mistakes.tolist() == good["labels"][:5].tolist()
    del good["jpegs"]
    pack(path, **good)
    assert predictions_file.read(path, 10, 3) is None


def test_arrays_of_an_older_version_are_read_as_far_as_they_go(run):
    path = run / "predictions.npz"
    with np.load(path) as file:
        old = {name: file[name] for name in ("labels", "top", "confidence")}
    pictures = {"rows": np.zeros(3, np.int32), "thumbnails": np.zeros((3, 64, 64, 3), np.uint8)}
    pack(path, **old | pictures)
    found = predictions_file.read(path, 10, 3)
    assert (found.top == old["top"]).all() and found.true is found.near is found.pictures is found.sets is None
    assert "ncl-jax evaluate --run=DIR --finish" in page.page(results.read(RunDir(run)))


def test_arrays_that_unpack_without_end_are_not_unpacked(run, capsys, monkeypatch):
    monkeypatch.setattr(predictions_file, "MOST_BYTES", 10_000_000)
    assert results.read(RunDir(run)).predictions is not None
    with np.load(run / "predictions.npz") as file:
        pack(run / "predictions.npz", **dict(file) | {"labels": header((2_500_000,)) + bytes(10_000_000)})
    assert results.read(RunDir(run)).predictions is None
    assert "predictions.npz" in capsys.readouterr().out


def test_a_list_of_files_that_unpacks_without_end_is_not_unpacked(run, monkeypatch):
    monkeypatch.setattr("ncl_jax.storage.contents.MOST_LISTING", 10_000)
    (run / "files.tsv.gz").write_bytes(gzip.compress(b"a\tb\tc\td\n" * 2))
    assert RunDir(run).read_files() == ["a\tb\tc\td"]
    (run / "files.tsv.gz").write_bytes(gzip.compress(bytes(20_000)))
    assert RunDir(run).read_files() == []


# Checkpoints.

BOTH = [str(step) for step in STEPS]
JSONS = ("progress/metadata", "fingerprint/metadata", "state/_METADATA")


@pytest.mark.parametrize("text", [BOMB, b"", b"3", b"\xff", b'{"seconds": "x"}', b'["a"]', b'{"a": 1, "a": 2}'])
@pytest.mark.parametrize("file", JSONS)
def test_descriptions_in_checkpoints_that_no_run_writes(run, file, text):
    for step in BOTH:
        (run / "checkpoints" / step / file).write_bytes(text)
    with pytest.raises(CheckpointError, match="2 checkpoints.*checkpoint 8 .*checkpoint 4 ") as raised:
        restore(RunDir(run), None)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("file", [*JSONS, "_CHECKPOINT_METADATA", "state/manifest.ocdbt", "state/d/new", "new"])
def test_a_pipe_in_a_checkpoint_is_not_waited_for(run, file):
    odd(run / "checkpoints" / str(LAST) / file, "pipe")
    with pytest.raises(CheckpointError, match=f"{LAST}/{file}"):
        restore(RunDir(run), None)
    message, code = cli.attempt("train", [*harness.TRAIN[1:], f"--workdir={run}"])
    assert code == 0 or f"{LAST}/{file}" in message  # of a finished run the checkpoints are not read


PROGRESS = [
    ("seconds", "x"), ("images_per_second", [None]), ("best_on_test", 3), ("best", {"step": "x", "accuracy": 1}),
    ("best", {"step": 4}), ("config", 3), ("history", 3), ("history", {"loss": ["x"]}), ("convolution", 3),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), PROGRESS)
def test_a_record_of_a_checkpoint_that_no_run_has(run, name, value):
    for step in BOTH:
        change(run / "checkpoints" / step / "progress" / "metadata", name, value=value)
    with pytest.raises(CheckpointError, match=name):
        restore(RunDir(run), None)
    with pytest.raises(CheckpointError):
        restore(RunDir(run), "best")


def test_a_model_that_is_not_the_checkpoints_takes_no_memory(run):
    change(run / "config.json", "model", "num_experts", value=10**9)
    with pytest.raises(NclError, match=r"bytes.*config\.json|model\.num_experts"):
        restore(RunDir(run), None)
    with pytest.raises(CheckpointError, match=r"400,000,000,000"):
        untrusted.check_size(run / "checkpoints", [jax.ShapeDtypeStruct((10**9, 100), "float32")])
    change(run / "config.json", "model", "num_experts", value=2)
    change(run / "config.json", "contrast", "weight", value=1.0)
    with pytest.raises(CheckpointError, match=r"config\.json.*contrast\.weight: 0\.0.*1\.0.*2 checkpoints"):
        restore(RunDir(run), None)
    change(run / "config.json", "contrast", "weight", value=0.0)
    names, counts = [str(number) for number in range(1000)], [5] * 1000
    change(run / "dataset.json", "class_names", value=names)
    change(run / "dataset.json", "class_counts", value=counts)
    with pytest.raises(CheckpointError, match="2 checkpoints"):
        restore(RunDir(run), None)


def test_a_network_that_nobody_can_trace_is_refused(run):
    change(run / "config.json", "model", "backbone", value="cifar_resnet")
    change(run / "config.json", "model", "depth", value=60_002)
    with pytest.raises(ConfigError, match=r"config\.json.*depth=60002"):
        restore(RunDir(run), None)


def test_batches_that_the_data_does_not_fill_are_named(run):
    change(run / "config.json", "optim", "batch_size", value=10**6)
    code, said = attempt("evaluate", f"--run={run}")
    assert code == 1 and "optim.batch_size=1000000" in said


# Reports.


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_page_of_figures_that_are_not_known(run, value):
    change(run / "results.json", "disagreement", "kl", "per_class", value=[value] * 10)
    change(run / "results.json", "ensemble", "nll", value=float("nan"))
    assert "nan" in page.sections(results.read(RunDir(run)), "run")


def test_one_bad_run_of_several_is_named(run, finished, tmp_path):
    change(run / "results.json", "ensemble", "accuracy", value="high")
    code, said = attempt("report", finished, run, f"--out={tmp_path}/page.html")
    assert code == 1 and f"{run}/results.json" in said and "ensemble.accuracy" in said
    assert not (tmp_path / "page.html").exists()


def test_results_of_another_run_are_refused(run):
    change(run / "dataset.json", "class_counts", value=[7] * 10)
    with pytest.raises(ConfigError, match=r"results\.json.*dataset\.json.*class_counts"):
        results.read(RunDir(run))


# Exported models.


@pytest.fixture(scope="module")
def artifact(finished, tmp_path_factory):
    """The content of an exported model, and its description: of a prior whose file's name is not text."""
    path = tmp_path_factory.mktemp("exported") / "model"
    prior = path.with_name("pri\udce9r.txt")
    prior.write_text("1 " * 10)
    export(finished, path, prior=str(prior))
    return path.read_bytes(), json.loads(path.with_name("model.json").read_text())


def put(folder, content, about):
    """An exported model."""
    (folder / "model").write_bytes(content)
    (folder / "model.json").write_bytes(about if isinstance(about, bytes) else json.dumps(about).encode())
    return folder / "model"


def refused(path, match):
    """Loads an exported model, which must fail in one line."""
    with pytest.raises(ExportError, match=match) as raised:
        ncl_jax.load_exported(path)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 800


SETS = {"prior": [0.1] * 10, "shift": [0] * 10, "scale": 1, "thresholds": {"marginal": {"0.9": [None] * 10}}}
ABOUT = [
    ("version", "1"), ("version", True), ("version", ...), ("sha256", 3), ("sha256", ...), ("format", []),
    ("class_names", []), ("class_names", "abc"), ("class_names", [1]), ("class_names", ["a"]), ("class_names", ...),
    ("image_shape", [28, 28]), ("image_shape", [10**9, 10**9, 3]), ("image_shape", [28, 28, 4]),
    ("image_shape", [14, 14, 3]), ("image_shape", ...), ("resize", 0), ("resize", 10**9), ("resize", "28"), ("resize", 27),
    ("interpolation", []), ("interpolation", "nonsense"), ("sets", 3), ("sets", {}), ("sets", SETS | {"prior": [0.5, 0.5]}),
    ("sets", SETS | {"shift": [10**400] * 10}), ("sets", SETS | {"scale": "x"}), ("sets", SETS | {"scale": -1}),
    ("sets", SETS | {"thresholds": {"marginal": []}}), ("sets", SETS | {"thresholds": {"marginal": {"0.9": [1]}}}),
]  # fmt: skip


def test_descriptions_of_exported_models_that_no_export_writes(artifact, tmp_path):
    content, about = artifact
    assert about["prior"].endswith(r"/pri\xe9r.txt")
    assert ncl_jax.load_exported(put(tmp_path, content, about)).class_names
    for name, value in ABOUT:
        changed = {key: v for key, v in (about | {name: value}).items() if v is not ...}
        refused(put(tmp_path, content, changed), "model")
    for text in TEXTS.values():
        refused(put(tmp_path, content, text), r"model\.json")


def test_files_that_are_no_exported_model(artifact, tmp_path):
    content, about = artifact
    zipped = io.BytesIO()
    zipfile.ZipFile(zipped, "w").close()
    for other in (b"", b"\xff\xd8\xff\xe0" + bytes(100), zipped.getvalue(), content[:100], content[:-1], bytes(4096),
                  b"\xff" * 4096, content[4:], b"hello"):  # fmt: skip
        refused(put(tmp_path, other, about), "changed or cut short")
    for other in (b"", b"\xff\xd8\xff\xe0" + bytes(100), zipped.getvalue(), bytes(4096), b"\xff" * 4096, b"hello"):
        refused(put(tmp_path, other, about | {"sha256": hashlib.sha256(other).hexdigest()}), "no program")
    for kind in ODD:
        odd(tmp_path / "model", kind)
        refused(tmp_path / "model", "model")
        with contextlib.suppress(IsADirectoryError):
            (tmp_path / "model").unlink()
        if kind == "folder":
            (tmp_path / "model").rmdir()


# Random changes.


def mutated(rng, content):
    """A text with a few random changes."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        place = rng.randrange(len(data))
        token = rng.choice((b"[", b"]", b"{", b"}", b"null", b"true", b"-1", b"1e999", b"99999999999", b'"', b",", b"NaN",
                            b"0.5", b"\xff", b"\\", b'"x"', b"[[[]]]"))  # fmt: skip
        data[place : place + rng.choice((0, 1, len(token)))] = token
    return bytes(data)


def values(value):
    """The places of a JSON value: (container, key)."""
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(inner, dict | list):
            yield from values(inner)


def exchanged(rng, content):
    """A text with one value exchanged or removed."""
    value = json.loads(content)
    container, key = rng.choice(list(values(value)))
    if rng.random() < 0.2:
        del container[key]
    else:
        container[key] = rng.choice((None, True, -1, 0, 3, 1e30, 10**30, "x", "", [], {}, [1], {"a": 1}, [[]], 0.5))
    return json.dumps(value).encode()


READERS = {
    "config.json": lambda run: RunDir(run).read_config(),
    "dataset.json": lambda run: RunDir(run).read_facts(),
    "results.json": lambda run: RunDir(run).check_results(),
    f"checkpoints/{LAST}/progress/metadata": lambda run: untrusted.read_progress(run / "checkpoints" / str(LAST)),
}


@pytest.mark.parametrize("file", READERS)
def test_random_changes_of_a_file_end_in_an_error_of_ours_or_in_none(run, file):
    path, rng, ended = run / file, random.Random(0), 0
    content = path.read_bytes()
    for number in range(400):
        path.write_bytes((exchanged if number % 2 else mutated)(rng, content))
        try:
            READERS[file](run)
        except NclError as error:
            ended += 1
            assert "\n" not in str(error) and file in str(error)
    assert 50 < ended < 400


def test_random_changes_of_arrays_and_of_a_log_are_left_out(run):
    rng, path, log = random.Random(0), run / "predictions.npz", run / "metrics.jsonl"
    packed, lines = path.read_bytes(), log.read_bytes()
    records = len(read_metrics(log))
    for _ in range(200):
        path.write_bytes(mutated(rng, packed))
        assert predictions_file.read(path, 10, 3) is None or path.stat().st_size
        log.write_bytes(mutated(rng, lines))
        assert len(read_metrics(log)) <= records


@pytest.mark.parametrize("content", [*TEXTS.values(), b'{"a": [1, 2.5, "x", null, true]}', b'{"a": "\\ud800"}'])
def test_texts_are_read_or_refused(content):
    with contextlib.suppress(ValueError):
        schema.parse(content)


def test_an_old_run_is_read(old_run):
    content = results.read(RunDir(old_run))
    assert content.results["split"] == "test" and content.results["config"]["data"]["eval_split"] == "test"
