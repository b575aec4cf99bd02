"""Code on the pages: Python is executed, commands are read by the command line's own parser."""

import ast
import itertools
import json
import pathlib
import re
import shlex
import zipfile

import numpy as np
import pytest
from PIL import Image
from programs import ROOT

from ncl_jax import cli
from ncl_jax.cli import arguments
from ncl_jax.config.fields import fields as declared_fields
from ncl_jax.runs.export import export

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "UPGRADING.md", *sorted((ROOT / "docs").glob("*.md"))]
ELSEWHERE = {"own_loop.md": "test_own_loop.py", "methods.md": "test_own_parts.py"}  # and what executes them
NEEDS_TORCH = "import torchvision\n"  # which no test installs
EXAMPLES = {
    "DIR": "DIR",
    "clothing": "DIR",
    "photos": "DIR",
    "METHOD": "ce",
    "S": "0",
    "N": "1",
    "STEP": "1",
    "FIXED.csv": "labels.csv",
}


def blocks(path, language):
    """The fenced blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


def lines(path):
    """The command lines of a page's blocks, fenced or indented, each in one line."""
    text = path.read_text().replace("\\\n", " ")
    text += "\n".join(blocks(path, "bash") + blocks(path, "console"))
    found = re.findall(r"^(?:    |\$ )?((?:ncl-jax|python -m ncl_jax(?:\.main)?) .+)$", text, re.MULTILINE)
    for line in dict.fromkeys(found):
        yield from re.sub(r"\[(--.*)\]", r"\1", line).split(" && ")


def words(line):
    """Name and arguments of a command line, with values for the placeholders."""
    line = re.sub(r"(?<![\w./])([A-Z]+|clothing|photos|FIXED\.csv)(?![\w/])", lambda m: EXAMPLES.get(m[1], m[1]), line)
    name, *rest = shlex.split(line, comments=True)
    if name == "python":
        rest = ["train", *rest[2:]] if rest[1] == "ncl_jax.main" else rest[2:]
    return rest[0], rest[1:]


def parser_of(name):
    """The parser of a command."""
    return cli.make_parser(name, __import__(cli.COMMANDS[name].module, fromlist=["main"]))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with what the pages' commands name: photographs in DIR, and lists of them."""
    place = tmp_path_factory.mktemp("pages")
    image, table = Image.fromarray(np.full((100, 120, 3), 80, np.uint8)), ["path,Art,Station"]
    for split, name, number in itertools.product(("train", "test"), ("cat", "dog"), range(50)):
        path = place / "DIR" / split / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        table.append(f"{split}/{name}/{number}.png,{name},{split}{number}")
    for split in ("train", "test"):
        (place / "DIR" / f"{split}.txt").write_text(f"{split}/cat/0.png 0\n{split}/dog/0.png 1\n")
    (place / "DIR" / "labels.csv").write_text("\n".join(table))
    (place / "configs").symlink_to(ROOT / "configs")
    return place


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_commands_are_those_of_the_command_line(path, place, monkeypatch):
    monkeypatch.chdir(place)
    for line in lines(path):
        name, rest = words(line)
        args = parser_of(name).read(rest)
        if getattr(args, "config", None):
            arguments.read_config(args)


def test_commands_are_found_on_the_pages():
    assert sum(len(list(lines(path))) for path in PAGES) > 40


def texts():
    """Inline code of the pages, and the texts of the package with their values as {}."""
    for path in PAGES:
        yield from ((path.name, code) for code in re.findall(r"`([^`\n]+)`", path.read_text()))
    for path in (ROOT / "ncl_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
                yield path.name, "".join(parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield path.name, node.value


def unknown_flags(text):
    """The flags of `ncl-jax COMMAND --flag` in a text that the command has not, and fields that there are not."""
    for name, rest in re.findall(r"ncl-jax (\w+)((?: (?!ncl-jax)[^\s;:]+)*)", text):
        if name in cli.COMMANDS:
            known = set(parser_of(name)._option_string_actions)
            flags = {flag.rstrip(".,)") for flag in re.findall(r"(?<!\S)--[a-z][\w.-]*", rest)}
            yield from (f"{name} {flag}" for flag in flags if not flag.startswith("--config") and flag not in known)
    for field in re.findall(r"--config\.([a-z_]+(?:\.[a-z_]+)*)=", text):
        if field not in declared_fields():
            yield field


def test_flags_and_fields_that_texts_name_exist():
    found = [(place, list(unknown_flags(text))) for place, text in texts() if "ncl-jax " in text or "--config." in text]
    assert len(found) > 60 and not [one for one in found if one[1]]


def test_a_flag_and_a_field_that_there_are_not_are_found():
    assert list(unknown_flags("ncl-jax train --fold=3 --config.data.dirs=x")) == ["train --fold", "data.dirs"]


@pytest.fixture(scope="module")
def run(place):
    """The run of the pages, runs/mine, with out-of-fold scores, and its export; a photograph; an ONNX file."""
    with zipfile.ZipFile(ROOT / "tests" / "data" / "run_v0.zip") as file:
        file.extractall(place)
    (place / "runs").mkdir()
    (place / "runs" / "first").symlink_to("mine")  # the tutorial's
    run = (place / "run_v0").rename(place / "runs" / "mine")
    labels = np.repeat(np.arange(10), 8)
    logits = np.random.default_rng(0).normal(size=(80, 2, 10)) + 3 * np.eye(10)[labels][:, None]
    about = [5, json.loads((run / "results.json").read_text())["step"]]
    np.savez(run / "out_of_fold.npz", logits=np.float32(logits), labels=labels, folds=np.arange(80) % 5, about=about)
    export(run, place / "model.stablehlo")
    Image.fromarray(np.full((20, 20, 3), 80, np.uint8)).save(place / "photo.jpg")
    write_onnx(place / "model.onnx")


def write_onnx(path: pathlib.Path):
    """A graph with the names of an exported one: the colours' means as probabilities."""
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=kinds.FLOAT),
        helper.make_node("GlobalAveragePool", ["floats"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("Softmax", ["flat"], ["probabilities"]),
    ]
    inputs = [helper.make_tensor_value_info("images", kinds.UINT8, ["B", 224, 224, 3])]
    outputs = [helper.make_tensor_value_info("probabilities", kinds.FLOAT, ["B", 224])]
    graph = helper.make_graph(nodes, "means", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {"class_names": str([f"class {i}" for i in range(224)]).replace("'", '"')})
    onnx.save(model, path)


def arrays():
    """What docs/inspect.md calls its arrays: three classes of features, small grey images, probabilities."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], [20, 12, 8])
    features = (rng.normal(size=(40, 8)) + 3 * np.eye(8)[y]).astype(np.float32)
    small = rng.integers(0, 256, (40, 16, 16), np.uint8)
    return {
        "features": features, "y": y, "num_classes": 3, "probabilities": np.full((40, 3), 1 / 3, np.float32),
        "groups": np.zeros(3, int), "small": small, "test_features": features[:5] + 1e-4, "small_test": small[:5],
        "right": np.ones(5, bool),
    }  # fmt: skip


EXECUTED = [
    (path, code)
    for path in PAGES
    if path.name not in ELSEWHERE
    for code in blocks(path, "python")
    if NEEDS_TORCH not in code
]


@pytest.mark.parametrize(("path", "code"), EXECUTED, ids=lambda part: part.name if hasattr(part, "name") else "")
def test_python_on_the_pages_runs(path, code, place, run, monkeypatch, capsys):
    monkeypatch.chdir(place)
    names = arrays() if path.name == "inspect.md" else {}
    exec(compile(code, path.name, "exec"), names)
    assert "print(" not in code or capsys.readouterr().out
    if "probabilities" in names:
        np.testing.assert_allclose(np.asarray(names["probabilities"]).sum(-1), 1, rtol=1e-4)


def test_python_that_others_execute():
    assert len(EXECUTED) > 3
    for page, test in ELSEWHERE.items():
        assert page in (ROOT / "tests" / test).read_text() and blocks(ROOT / "docs" / page, "python")
