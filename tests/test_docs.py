"""What README and docs say of the code."""

import inspect
import re
import runpy
import sys
import tomllib

import pytest
from programs import ROOT

from ncl_jax.evaluation import predictions_file
from ncl_jax.methods import METHODS, terms
from ncl_jax.runtime import extras
from ncl_jax.storage.place import Names


def test_the_methods_are_the_codes():
    section = (ROOT / "docs" / "methods.md").read_text().partition("\n## What each computes\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.MULTILINE)
    assert rows == [(name, method.description) for name, method in METHODS.items()]


def test_files_that_architecture_names_exist():
    page = (ROOT / "docs" / "architecture.md").read_text()
    table = page.partition("## Which file to open")[2].partition("## Adding")[0]
    names = re.findall(r"`([\w/]+\.py|\w+/)`", table)
    assert len(names) > 50
    assert not [name for name in names if not any((folder / name).exists() for folder in (ROOT, ROOT / "ncl_jax"))]


def test_the_glossary_has_the_terms_of_the_losses():
    page = (ROOT / "docs" / "glossary.md").read_text()
    assert not [name for name in terms.WORDS if f"`{name}`" not in page]


def test_links_between_pages_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), (page.name, target)


def test_tables_are_those_of_the_kept_results():
    tool = runpy.run_path(str(ROOT / "tools" / "make_tables.py"))
    tables = 0
    for page in tool["PAGES"]:
        text = page.read_text()
        assert tool["made_again"](text) == text, f"{page.name}: python tools/make_tables.py writes it again"
        tables += len(tool["TABLE"].findall(text))
    assert tables


@pytest.mark.parametrize("name", ["configuration", "commands", "python"])
def test_pages_of_the_reference_are_made_of_the_code(name):
    tool = runpy.run_path(str(ROOT / "tools" / "make_reference.py"))
    path = tool["FOLDER"] / f"{name}.md"
    if name == "commands" and sys.version_info >= (3, 13):
        pytest.skip("this Python wraps help texts in other places")
    made = re.sub(", (one_layer|tiny_vit)", "", tool["PAGES"][path]())  # backbones of the tests
    assert path.read_text() == made, "python tools/make_reference.py writes it again"


def test_no_text_has_a_word_of_which_there_is_a_plainer_one():
    tool = runpy.run_path(str(ROOT / "tools" / "check_words.py"))
    texts = [*tool["pages"](), *tool["literals"]()]
    assert len(texts) > 3000
    assert not [f"{one.place}: {one.words}: {one.better}" for text in texts for one in tool["findings"](text)]


@pytest.mark.parametrize(
    ("content", "is_shown", "number"),
    [
        ("the same command goes on", False, 1),
        ("make room, or mend it: give another one", False, 3),
        ("a.csv is no list", False, 1),
        ("the feed waits", True, 1),
        ("the feed waits", False, 0),
        ("there is no longer a run; it stands in for another", True, 0),
    ],
)
def test_words_that_are_found(content, is_shown, number):
    tool = runpy.run_path(str(ROOT / "tools" / "check_words.py"))
    assert len(list(tool["findings"](tool["Text"](ROOT / "README.md", 1, content, is_shown)))) == number


def test_messages_install_the_packages_of_the_extras():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {name: tuple(project[name]) for name in extras.PACKAGES} == extras.PACKAGES
    assert extras.install("onnx") == "pip install 'jax2onnx>=0.13' 'onnxruntime>=1.24'"
    sources = [path.read_text() for path in (ROOT / "ncl_jax").rglob("*.py") if path.name != "extras.py"]
    assert len(sources) > 200 and not [s for s in sources if re.search(r"ncl[-_]jax\[", s)]


def test_the_files_of_a_run_are_described():
    page = (ROOT / "docs" / "run_directory.md").read_text()
    names = [value.name for name, value in vars(Names(ROOT / "x")).items() if name != "path"]
    assert len(names) > 20 and not [name for name in names if f"`{name}" not in page]
    keys = re.findall(r'^ *"(\w+)": ', inspect.getsource(predictions_file).partition("class ")[0], re.MULTILINE)
    assert len(keys) > 5 and not [name for name in keys if f"`{name}`" not in page and name != "pictures"]
