"""Writes docs/reference/configuration.md from the fields' declarations: python tools/make_reference.py"""

import pathlib
from itertools import groupby

from ncl_jax.config.fields import fields

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "reference" / "configuration.md"
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


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page())
