"""The rooms of the package and what they may import, as docs/architecture.md says."""

import ast

import pytest
from programs import ROOT

PACKAGE = ROOT / "ncl_jax"
ROOMS = {
    "cli", "runs", "report", "storage", "config", "evaluation", "training", "export", "data", "models", "methods",
    "weights", "losses", "runtime", "trust",
}  # fmt: skip
ABOVE = {"config", "storage", "runs", "report"}  # what a run is made of, and what is done with it
LOW = ("losses", "methods", "models", "evaluation", "training", "weights", "export")
FORBIDDEN = {
    **{room: {"cli"} for room in ROOMS - {"cli"}},
    **{room: {"cli", *ABOVE} for room in LOW},
    "data": {"cli", *ABOVE, "training"},
    "report": {"cli", "storage", "runs"},
    "storage": {"cli", "report", "runs"},
    "config": {"cli", "runs", "storage", "report"},
    "runtime": ROOMS - {"runtime"},
    "trust": ROOMS - {"trust"},
}
EMPTY = ("runtime", "storage", "runs", "training", "evaluation", "export", "weights", "data/images", "data/augment",
         "data/feeds")  # fmt: skip


def room_of(path):
    """The room that a module is in; a module of no room is one of its own."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported(path):
    """The rooms that a module imports, wherever it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "ncl_jax":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ncl_jax."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("ncl_jax."))
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path} imports relatively"


MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if "configs" not in path.relative_to(PACKAGE).parts]


def test_the_rooms_are_these():
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == ROOMS


@pytest.mark.parametrize("room", sorted(FORBIDDEN))
def test_no_room_imports_from_above(room):
    of_room = [path for path in MODULES if room_of(path) == room]
    found = {(path.name, name) for path in of_room for name in imported(path) if name in FORBIDDEN[room]}
    assert of_room and not found


def test_runtime_errors_and_field_carry_everything_and_lean_on_nothing():
    of = {name: {other for path in MODULES if room_of(path) == name for other in imported(path)}
          for name in ("runtime", "errors", "field")}  # fmt: skip
    assert of["runtime"] <= {"runtime", "errors"} and of["errors"] == set() and of["field"] == {"errors"}


def test_there_is_no_circle_between_rooms():
    below = {room: {n for p in MODULES if room_of(p) == room for n in imported(p)} & ROOMS - {room} for room in ROOMS}
    while below:
        lowest = {room for room, needs in below.items() if not needs}
        assert lowest, below
        below = {room: needs - lowest for room, needs in below.items() if room not in lowest}


def test_rooms_that_must_be_light_are_empty_but_for_a_docstring():
    for room in EMPTY:
        body = ast.parse((PACKAGE / room / "__init__.py").read_text()).body
        assert len(body) == 1 and isinstance(body[0].value, ast.Constant), room


def test_files_stay_short():
    long = {path.name: len(path.read_text().splitlines()) for path in MODULES}
    assert not {name: lines for name, lines in long.items() if lines > 310}
