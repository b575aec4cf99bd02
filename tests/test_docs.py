"""What README and docs say of the code."""

import re
import runpy
import sys

import pytest
from programs import ROOT

from ncl_jax.methods import METHODS
from ncl_jax.runs import messages


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
    assert not [name for name in messages.TERMS if name not in ("ldam", "diversity") and f"`{name}`" not in page]


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
