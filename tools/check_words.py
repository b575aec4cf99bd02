"""Finds words of which standard English has a plainer one, in every text that a user reads: pages, messages, help,
docstrings and notebooks. Prints `FILE:LINE: what was found, and what to write`; exit code 1 if there is any.

python tools/check_words.py
"""

import ast
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parent.parent
PROGRAM = r"(?:run|program|command|inspect|message|note|error|log|line|page|report|configuration)"
# What is found, and what to write instead; patterns do not mind case.
EVERYWHERE = {
    r"\b(?:go|goes|going|went|gone) on\b": "resume, continue",
    r"\bmend(?:s|ed)?\b": "fix",
    r"\bback from a copy\b": "restore from a backup",
    r"\b(?:can(?:not)?|could|to) be had\b": "is available, was found",
    r"\bis not here\b|\bnone (?:is )?here\b": "was not found, is not available",
    r"\bmakes? room\b": "free disk space",
    r"\bpass(?:es|ed) over\b": "skip",
    r"\b(?:is|are|was|were) left out\b": "is skipped, is omitted",
    r"\bstands? (?:in|beside|there)\b(?! for\b)": "is in, is listed in",
    r"(?<!there )\b(?:is|are) no (?!longer\b|more\b|less\b|better\b|worse\b)": "is not a",
    r"\bto the bit\b|\bsame bits\b|\bthe bits of\b|'s bits\b": "bit-identical",
    r"\bof our own\b": "custom, ours",
    r"\b(?:at|its cost in) use\b": "at inference",
    r"\bat hand\b": "available",
    r"\bdead features?\b": "features that are always 0",
    r"\ba sign of doubt\b": "a measure of uncertainty",
    r"\bgives? (?:another --|the same command|it again)|\bgiv(?:en|ing) (?:it )?(?:again|twice)\b": "pass",
    r"[:;] (?:or )?give\b": "pass, set, choose",
    rf"\b{PROGRAM}s? (?:say|says|said|speaks?|tells?)\b": "prints, reports, shows",
    r"\b(?:images|keys|records|examples|views) an? (?:second|expert|image)\b": "per second, per expert, per image",
    r"\b(?:goes|gone) through\b": "processed",
    r"\bparts? of (?:a|the|its|their) loss\b": "loss terms",
    r"\bmethods?'s? memory\b|\bmemory of a method\b": "method state",
}
# Words of the program's own insides: not on pages, and in no message.
SHOWN = {r"(?<![./])\bfeeds?\b(?!=)": "data loader"}


class Found(NamedTuple):
    """A finding: where, what stands there, and what to write."""

    place: str
    words: str
    better: str


class Text(NamedTuple):
    """A text, and the line where it begins; `is_shown`: on a page or in a message, and not a docstring."""

    path: pathlib.Path
    line: int
    content: str
    is_shown: bool


def pages() -> Iterator[Text]:
    """The pages, a text for each line, without the names of code between backticks and the generated reference."""
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob(".github/**/*.md")]:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            yield Text(path, number, re.sub(r"`[^`]*`|\]\([^)]*\)|<!--.*-->", "``", line), True)


def literals() -> Iterator[Text]:
    """The texts in the package's code and in the notebooks' source: docstrings, messages, help."""
    for path in [*ROOT.glob("ncl_jax/**/*.py"), *ROOT.glob("configs/*.py"), ROOT / "tools" / "make_notebooks.py"]:
        tree = ast.parse(path.read_text())
        statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                content = " ".join(re.sub(r"`[^`]*`", "``", node.value).split())
                yield Text(path, node.lineno, content, id(node) not in statements)


def findings(text: Text) -> Iterator[Found]:
    """What is wrong with a text."""
    for pattern, better in {**EVERYWHERE, **(SHOWN if text.is_shown else {})}.items():
        for match in re.finditer(pattern, text.content, re.IGNORECASE):
            around = text.content[max(0, match.start() - 40) : match.end() + 40]
            yield Found(f"{text.path.relative_to(ROOT)}:{text.line}", around, better)


def main() -> int:
    """Prints all findings."""
    found = [one for text in (*pages(), *literals()) for one in findings(text)]
    for one in found:
        print(f"{one.place}: ...{one.words}...: {one.better}")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
