"""The rule for names of classes, whether they come from folders or from lists."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

LONGEST = 255  # characters: no folder has a longer name
MISSING = {"nan", "<na>", "null", "n/a", "#n/a"}  # what other programs write for a label that is missing
PERHAPS_MISSING = MISSING | {"none", "na"}  # or that may be a class: no animal


def clean(name: str) -> str:
    """The form that is compared, kept and shown: without blanks around it, é as one character, bytes that are not text
    as their numbers."""
    try:
        raw = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a pair, from JSON
        raw = name.encode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", raw.decode("utf-8", "backslashreplace")).strip()


def fault(name: str) -> str:
    """What is wrong with a class's name, or nothing."""
    if not name:
        return "a class without a name"
    if len(name) > LONGEST:
        return f"a class whose name has {len(name):,} characters ({name[:30]!r}...), more than {LONGEST}"
    if any(unicodedata.category(letter) == "Cc" for letter in name):
        return f"a class whose name {name!r} has a line break or another control character"
    return ""


def remarks(names: Sequence[str], counts: Sequence[int]) -> tuple[str, ...]:
    """Lines about names that may be a mistake: two that differ in case or blanks alone, one that means no label or has
    a quotation mark; `counts` are the images of each class."""
    found: dict[str, int] = {}
    alike = []
    for label, name in enumerate(names):
        other = found.setdefault(_folded(name), label)
        if other != label:
            alike.append(f"{names[other]!r} ({_images(counts[other])}) and {name!r} ({counts[label]:,})")
    missing = [repr(name) for name in names if name.casefold() in PERHAPS_MISSING]
    lines = {
        "classes whose names differ only in case, blanks, _ or invisible characters": alike,
        "classes whose names usually mean a missing label": missing,
        "classes whose names have a quotation mark": [repr(name) for name in names if '"' in name],
    }
    advice = ["; where they are one class, give them one name", "", ""]
    said = zip(lines.items(), advice, strict=True)
    return tuple(f"warning: {text}: {first_few(items)}{more}" for (text, items), more in said if items)


def _images(count: int) -> str:
    return f"{count:,} image{'s' * (count != 1)}"


def _folded(name):
    visible = "".join(c for c in unicodedata.normalize("NFKC", name) if unicodedata.category(c) != "Cf")
    return re.sub(r"[\s_-]+", " ", visible).strip().casefold() or name


def first_few(items: Iterable[object], most: int = 3) -> str:
    """The first few of some things, and how many more there are."""
    every = [str(item) for item in items]
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more
