"""Writes the generated pages of docs/reference: python tools/make_reference.py

`configuration.md` from the fields' declarations, `commands.md` from the commands' help, `python.md` from the public
names, whose docstrings the documentation's site fills in.
"""

import importlib
import os
import pathlib
import types
from itertools import groupby

import ncl_jax
from ncl_jax import cli
from ncl_jax.config.fields import fields

FOLDER = pathlib.Path(__file__).parent.parent / "docs" / "reference"
PAGE = FOLDER / "configuration.md"
HEAD = """# Configuration: every field

Made from the declarations in `ncl_jax/config/fields.py` and `ncl_jax/methods/` by `python tools/make_reference.py`.

- Set a field with `--config.FIELD=VALUE`, or in a configuration file. Its value has the type of its default.
- Defaults are those of `base_config`, before a recipe changes them.
- Numbers must be finite.
"""
SECTIONS = {
    "": "The run", "data": "Data", "model": "Network", "loss": "Loss", "contrast": "Momentum contrast",
    "teacher": "Teacher (set by `ncl-jax distill`)", "optim": "Optimizer", "run": "Devices, and when to stop",
}  # fmt: skip


def section(name: str) -> str:
    """The section that a field is in; empty for those of the run itself."""
    return name.partition(".")[0] if "." in name else ""


def row(name: str, field) -> str:
    """A field's line of a table."""
    bounds = field.bounds()
    cells = (f"`{name}`", f"`{field.default!r}`", field.help, bounds, field.source)
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def table(rows: list[str]) -> str:
    """A Markdown table of fields."""
    return "\n".join(["| field | default | meaning | values | source of the default |", "|---|---|---|---|---|", *rows])


def page() -> str:
    """The whole page."""
    used = {name: field for name, field in fields().items() if not field.developer}
    parts = [HEAD]
    for of, group in groupby(used.items(), lambda item: section(item[0])):
        parts.append(f"## {SECTIONS[of]}\n\n{table([row(*item) for item in group])}\n")
    switches = [row(name, field) for name, field in fields().items() if field.developer]
    parts.append(f"## Switches for work on ncl_jax itself\n\nNo user needs them.\n\n{table(switches)}\n")
    own = (
        "`loss.own` is a section of your own: a method in your configuration file reads what you put there "
        "([methods.md](../methods.md)).\n"
    )
    return "\n".join([*parts, own])


COMMANDS = """# Commands: what each takes

Made from the commands' own help by `python tools/make_reference.py`. `python -m ncl_jax COMMAND` is the same as
`ncl-jax COMMAND`.
"""
NAMES = """# Python: every public name

Made from the package's public names by `python tools/make_reference.py`. Other modules may change without notice.
"""


def commands() -> str:
    """The page of the commands."""
    os.environ["COLUMNS"] = "120"  # of help texts
    helps = {
        name: cli.make_parser(name, importlib.import_module(command.module)).format_help()
        for name, command in cli.COMMANDS.items()
    }
    return "\n".join([COMMANDS, *(f"## ncl-jax {name}\n\n```text\n{text}```\n" for name, text in helps.items())])


def names() -> str:
    """The page of the public names: those of the package, and of the modules that it offers."""
    own = {name: getattr(ncl_jax, name) for name in ncl_jax.__all__ if name != "__version__"}
    parts = [
        NAMES,
        "## ncl_jax\n",
        *(_entry("ncl_jax", name, found) for name, found in own.items() if not _module(found)),
    ]
    for name, module in own.items():
        if _module(module):
            listed = [_entry(f"ncl_jax.{name}", public, getattr(module, public)) for public in _public(module)]
            parts += [f"## ncl_jax.{name}\n", f"::: {module.__name__}\n    options: {{members: false}}\n", *listed]
    return "\n".join(parts)


def _module(found) -> bool:
    return isinstance(found, types.ModuleType)


def _public(module) -> list[str]:
    """The functions and classes that a module offers: those that it names, or those that it defines."""
    offered = getattr(module, "__all__", None) or [
        name for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__ and not name.startswith("_")
    ]  # fmt: skip
    return sorted(name for name in offered if getattr(getattr(module, name), "__module__", "").startswith("ncl_jax"))


def _entry(of: str, name: str, found) -> str:
    """Where the site takes a name's docstring from."""
    place = ncl_jax._PLACES[name][0] if of == "ncl_jax" else found.__module__
    return f"### {of}.{name}\n\n::: {place}.{name}\n    options: {{show_root_heading: false}}\n"


PAGES = {PAGE: page, FOLDER / "commands.md": commands, FOLDER / "python.md": names}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for path, make in PAGES.items():
        path.write_text(make())
