"""The image files below a folder, and what lies there beside them, counted by reason."""

import importlib.util
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NoReturn

from ncl_jax.data.sources.names import first_few
from ncl_jax.errors import DataError
from ncl_jax.runtime import extras

HEIF = (".heic", ".heif", ".hif")  # which pillow-heif reads
SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".avif",
    ".jp2", *(HEIF if importlib.util.find_spec("pillow_heif") else ()),
)  # fmt: skip
# What systems and servers put beside images: a disk's server, an archive of macOS, Windows.
SYSTEM = {
    "@eadir", "__macosx", "@recycle", "#recycle", "$recycle.bin", "system volume information", "lost+found",
}  # fmt: skip
THUMBNAILS = {"thumbs", "thumbnails"}  # beside images: smaller copies of them
THUMBNAIL = re.compile(r"[ ._-]?thumb(?:nail)?$", re.IGNORECASE)  # what such a copy's name may end in


class Unused:
    """What is not used, by reason.

    Attributes:
      endings: files by their ending.
      hidden: names that begin with a dot, folders with all that is in them as one.
      system: files by the name of the folder that a system, not a person, put there.
      links: paths of links to folders, which are not followed.
      beside: images that lie beside the folders of classes.
      folders: names of folders that lie beside the splits.
      thumbnails: paths of images that are used, but named like thumbnails of others beside them.
    """

    def __init__(self) -> None:
        self.endings: Counter[str] = Counter()
        self.hidden = self.beside = 0
        self.system: Counter[str] = Counter()
        self.links: list[str] = []
        self.folders: list[str] = []
        self.thumbnails: list[str] = []

    def skips(self, path: str, beside_images: bool = False) -> bool:
        """Whether a folder is of the system or hidden, or has smaller copies; counts it if so."""
        name = os.path.basename(path)  # noqa: PTH119 - speed
        if name.startswith("."):
            self.hidden += 1
        elif name.casefold() in SYSTEM or (beside_images and name.casefold() in THUMBNAILS):
            self.system[name] += sum(len(files) for _, _, files in os.walk(path))
        else:
            return False
        return True

    def is_link(self, path: str) -> bool:
        """Whether a folder is a link; counts it if so."""
        found = os.path.islink(path)  # noqa: PTH114
        if found:
            self.links.append(path)
        return found

    def add_file(self, name: str) -> None:
        """Counts a file that is not an image."""
        if name.startswith("."):
            self.hidden += 1
        else:
            self.endings[ending(name).removeprefix(".") or "none"] += 1

    def add_beside(self, names: Iterable[str]) -> None:
        """Counts the files that lie beside the folders of classes."""
        for name in names:
            if is_image(name):
                self.beside += 1
            else:
                self.add_file(name)

    def add_thumbnails(self, place: str, images: list[str]) -> None:
        """Counts the images of a folder that are named like thumbnails of others in it."""
        ends = {name: THUMBNAIL.sub("", os.path.splitext(name)[0]) for name in images if "thumb" in name.lower()}  # noqa: PTH122
        known = {word for name in images for word in (name, os.path.splitext(name)[0])} if ends else set()  # noqa: PTH122
        self.thumbnails += [os.path.join(place, name) for name, end in ends.items() if end in known - {name}]  # noqa: PTH118

    def lines(self, root: Path) -> list[str]:
        """What is not used in one line, what is used and perhaps should not be in another."""
        found = [os.path.relpath(path, root) for path in sorted(self.thumbnails)]
        suspect = (
            f"images named like thumbnails of others beside them, which are used: {len(found):,} ({first_few(found)})"
        )
        return [*filter(None, [self._line(root)]), *[suspect] * bool(found)]

    def _line(self, root: Path) -> str:
        kinds = sorted(self.endings.items(), key=lambda item: (-item[1], item[0]))
        endings = first_few([f"{name} {count:,}" for name, count in kinds], 8)
        heif = any(f".{name}" in HEIF for name in self.endings)
        parts = [
            f"{_plural(self.endings.total())} without an image's ending ({endings})" if self.endings else "",
            *(f"{_plural(count)} in {name}" for name, count in sorted(self.system.items()) if count),
            _plural(self.hidden, "name") + " with a dot in front" if self.hidden else "",
            _named("link to a folder", "links to folders", [os.path.relpath(path, root) for path in self.links]),
            f"{_plural(self.beside)} beside the folders of classes" if self.beside else "",
            _named("folder beside the splits", "folders beside the splits", self.folders),
        ]
        hint = f"; HEIC needs {extras.install('heif')}" if heif else ""
        return "not used: " + ", ".join(part for part in parts if part) + hint if any(parts) else ""


def _plural(count, word="file"):
    return f"{count:,} {word}{'s' * (count != 1)}"


def _named(one, many, names):
    return f"{len(names):,} {one if len(names) == 1 else many} ({first_few(sorted(names))})" if names else ""


def ending(name: str) -> str:
    """What a file's name ends in, in small letters, with its dot."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - speed


def is_image(name: str) -> bool:
    """Whether a file is taken for an image, by its name."""
    return ending(name) in SUFFIXES and not name.startswith(".")


def image_files(folder: Path, unused: Unused | None = None) -> Iterator[tuple[str, int]]:
    """The path and size in bytes of every image file below a folder, in no order; `unused` counts the rest.

    Raises DataError for a folder that may not be read.
    """
    unused = Unused() if unused is None else unused
    for place, folders, files in os.walk(folder, onerror=refuse):
        images = [name for name in files if is_image(name)]
        paths = {name: os.path.join(place, name) for name in folders}  # noqa: PTH118
        folders[:] = [n for n, path in paths.items() if not (unused.skips(path, bool(images)) or unused.is_link(path))]
        for name in files:
            if not is_image(name):
                unused.add_file(name)
        unused.add_thumbnails(place, images)
        for name in images:
            path = os.path.join(place, name)  # noqa: PTH118
            try:
                yield path, os.stat(path).st_size  # noqa: PTH116
            except OSError:  # a link that leads nowhere: an unreadable file, as one that is empty
                yield path, 0


def entries(folder: Path) -> tuple[list[str], list[str]]:
    """The names of the folders, links to them included, and of the files in a folder. Raises DataError as above."""
    try:
        with os.scandir(folder) as found:
            every = [(entry.name, entry.is_dir()) for entry in found]
    except OSError as error:
        refuse(error)
    return sorted(name for name, place in every if place), [name for name, place in every if not place]


def refuse(error: OSError) -> NoReturn:
    """Raises DataError for a folder that cannot be listed."""
    advice = "give it read permission, or remove it" if isinstance(error, PermissionError) else "check the disk"
    raise DataError(f"the folder {error.filename} cannot be read ({error.strerror}): {advice}") from error
