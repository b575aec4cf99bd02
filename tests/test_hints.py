"""Every public function of the package has type hints; CI's mypy holds them against the code."""

import ast
import pathlib

import pytest
from programs import ROOT

FILES = [path for path in sorted((ROOT / "ncl_jax").rglob("*.py")) if "configs" not in path.parts]


def public_functions(tree: ast.AST, prefix: str = ""):
    """The public functions and methods of a module or class, by their dotted name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef) and (not node.name.startswith("_") or node.name == "__init__"):
            yield prefix + node.name, node


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_functions_are_annotated(path: pathlib.Path):
    missing = []
    for name, node in public_functions(ast.parse(path.read_text())):
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
        missing += [f"{name}({a.arg})" for a in arguments if a and a.arg not in ("self", "cls") and not a.annotation]
        missing += [f"{name} ->"] if node.returns is None and node.name != "__init__" else []
    assert not missing, missing
