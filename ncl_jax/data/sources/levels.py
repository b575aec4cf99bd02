"""Which folders of a split are classes, and which are groups above them: `<class>/...` or `<group>/<class>/...`."""

import os
import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NoReturn

from ncl_jax.data.sources import names as class_names
from ncl_jax.data.sources.names import first_few
from ncl_jax.data.sources.splits import WORDS, kind, visible
from ncl_jax.data.sources.walk import Unused, entries
from ncl_jax.errors import DataError

CLASSES, GROUPS = "class/group", "group/class"
LAYOUTS = ("auto", CLASSES, GROUPS)


def classes(folder: Path, layout: str = CLASSES, unused: Unused | None = None) -> dict[str, list[Path]]:
    """The folders of a split's classes by name, sorted; `unused` counts the rest.

    Raises DataError without any, for two of one name in one folder, or one that cannot be the name of a class.
    """
    unused = Unused() if unused is None else unused
    if layout != GROUPS:
        return {name: [path] for name, path in _inside(folder, unused).items()}
    found: dict[str, list[Path]] = {}
    for group in _inside(folder, unused).values():
        for name, path in _inside(group, unused, empty=True).items():
            found.setdefault(name, []).append(path)
    if not found:
        _no_class(folder / "<group>")
    return dict(sorted(found.items()))


def _inside(folder: Path, unused: Unused, empty: bool = False) -> dict[str, Path]:
    """The folders in a folder by their clean names, sorted; none only where that is allowed."""
    folders, files = entries(folder)
    found = [name for name in folders if not unused.skips(str(folder / name))]
    unused.add_beside(files)
    if not found and not empty:
        _no_class(folder)
    names = [class_names.clean(name) for name in found]
    for name, entry in zip(names, found, strict=True):
        if fault := class_names.fault(name):
            raise DataError(f"{str(folder / entry)!r:.300} would be {fault}: rename the folder")
        if (folder / entry).is_symlink() and folder.resolve().is_relative_to((folder / entry).resolve()):
            raise DataError(f"{folder / entry} is a link to a folder above it, and would hold every image: remove it")
    if double := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{folder} has two folders of the name {double[0]!r} (written in two ways): rename one")
    return {name: folder / entry for name, entry in zip(names, found, strict=True)}


def _no_class(folder: Path) -> NoReturn:
    itself = ", or pass train=. if it is a class itself" if folder.name.lower() in WORDS else ""
    raise DataError(f"{folder} has no folder of a class: the images of each class belong in {folder}/<class>/{itself}")


def check(folder: Path) -> None:
    """Raises DataError where folders in folders have names that recur, so that either level may be the classes."""
    upper = visible(folder)
    lower = {name: found.folders for name in upper if (found := kind(folder / name)).splits}
    counts = Counter(name for names in lower.values() for name in names)
    recurring = sorted(name for name, count in counts.items() if count > 1)
    often = sum(counts[name] for name in recurring)
    if 2 * len(lower) < len(upper) or len(recurring) < 2 or 2 * often < counts.total():
        return
    if all(name.lower() in WORDS for name in recurring):
        raise DataError(
            f"the folders {first_few(lower)} in {folder} hold {first_few(recurring)}: if those are splits, move them "
            f"above the classes ({folder}/train/{next(iter(lower))}); if not, pass layout={CLASSES} (data.layout)"
        )
    raise DataError(
        f"{folder} holds folders in folders, and it is not clear which are the classes. Pass layout={CLASSES} if they "
        f"are the {len(upper):,} upper ones ({first_few(upper)}; with group_by=folder where the lower ones are sites or"
        f" the like, which are then kept whole), or layout={GROUPS} if they are the {len(counts):,} lower ones "
        f"({first_few(sorted(counts))}) and the upper ones are cameras, sites, patients or the like, which "
        f"are then kept whole: --config=folder:dir=DIR,layout={GROUPS} (data.layout)"
    )


def turned(classes: Mapping[str, list[Path]], layout: str) -> list[str]:
    """A line where the classes' names are those of cameras (CAM00, CAM01), and those of the other level are not."""
    if not _are_numbered(classes):
        return []
    others = {
        class_names.clean(name)
        for places in classes.values()
        for place in places
        for name in ([place.parent.name] if layout == GROUPS else visible(place))
    }
    if len(others) < 2 or _are_numbered(others):
        return []
    advice = f"layout={CLASSES},group_by=folder" if layout == GROUPS else f"layout={GROUPS}"
    return [
        f"warning: the classes are called {first_few(classes)}, as cameras or sites are, and the folders "
        f"{'above' if layout == GROUPS else 'below'} them {first_few(sorted(others))}: if those are the classes, pass "
        f"{advice}"
    ]


def _are_numbered(names: Collection[str]) -> bool:
    """Whether all of several names are one word with different numbers."""
    parts = [re.fullmatch(r"([^\W\d_]+)[ _-]?\d+", name) for name in names]
    return len(parts) > 1 and None not in parts and len({part[1].casefold() for part in parts if part}) == 1


def group_of(path: str, folder: Path, layout: str) -> str:
    """The group of an image by its folder: the one above the class, or the first one below it; empty without such a
    folder.

    Args:
      path: of the image, that of `folder` included.
      folder: of its class.
      layout: of `LAYOUTS`.
    """
    if layout == GROUPS:
        return class_names.clean(folder.parent.name)
    inner, _, rest = path[len(str(folder)) + 1 :].partition(os.sep)
    return class_names.clean(inner) if rest else ""
