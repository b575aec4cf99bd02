"""Image files sorted into folders by their answers: links where they are possible, otherwise copies."""

import contextlib
import itertools
import pathlib
import re
import shutil

from ncl_jax.errors import ConfigError, WriteError
from ncl_jax.runtime.files import expand, valid_utf8

UNSURE = "unsure"  # the folder of answers that should be looked at
UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')
LONGEST_ENDING = 16
LONGEST = 150  # bytes of a name before its ending, of 255 that file systems take


def safe_name(name: str) -> str:
    """A name that any file system takes: without slashes, control characters, bytes that are not UTF-8, a dot at its
    beginning or end."""
    text = UNSAFE.sub("_", valid_utf8(name).decode()).strip(". ")
    ending = pathlib.PurePath(text).suffix
    ending = ending if len(ending) <= LONGEST_ENDING else ""
    short = text.removesuffix(ending).encode()[:LONGEST].decode(errors="ignore")
    return f"{short}{ending}".strip(". ") or "_"


def folder_names(class_names: tuple[str, ...]) -> list[str]:
    """A folder's name for every class, all different where letters' cases are not told apart, too."""
    taken, found = {UNSURE}, []
    for name in map(safe_name, class_names):
        folder, number = name, 2
        while folder.casefold() in taken:
            folder, number = f"{name} ({number})", number + 1
        taken.add(folder.casefold())
        found.append(folder)
    return found


class Sorter:
    """Puts files into folders; nothing that is there is overwritten.

    Args:
      name: of the folder, which is new or empty.
      class_names: C names.

    Raises:
      ConfigError: the folder holds something.
      WriteError: it cannot be made.
    """

    def __init__(self, name: str, class_names: tuple[str, ...]):
        self.place = expand("--sort-into", name)
        labels = [valid_utf8(label).decode() for label in class_names]
        self._folders = dict(zip(labels, folder_names(class_names), strict=True))
        with self._writing():
            if self.place.exists() and (not self.place.is_dir() or any(self.place.iterdir())):
                raise ConfigError(f"--sort-into={name} exists and is not an empty folder: pass another name")
            self.place.mkdir(parents=True, exist_ok=True)

    def put(self, file: str, label: str, unsure: bool) -> None:
        """Puts a file into its class's folder, or into `UNSURE`. Raises WriteError."""
        folder = self.place / (UNSURE if unsure else self._folders[label])
        source = pathlib.Path(file).absolute()
        with self._writing():
            folder.mkdir(exist_ok=True)
            _place(source, folder, safe_name(source.name))

    @contextlib.contextmanager
    def _writing(self):
        try:
            yield
        except OSError as error:
            raise WriteError(f"--sort-into={self.place} cannot be written: {error}") from error


def _place(source: pathlib.Path, folder: pathlib.Path, name: str) -> None:
    """Links or copies a file under a name that is not taken. Raises OSError."""
    ending = pathlib.PurePath(name).suffix
    for number in itertools.count(1):
        target = folder / (name if number == 1 else f"{name.removesuffix(ending)} ({number}){ending}")
        with contextlib.suppress(FileExistsError):
            _link_or_copy(source, target)
            return


def _link_or_copy(source: pathlib.Path, target: pathlib.Path) -> None:
    try:
        target.symlink_to(source)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        with target.open("xb") as copy, source.open("rb") as original:
            shutil.copyfileobj(original, copy)
