"""Which folders of a dataset are its splits: by their names, and by what they hold."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ncl_jax.data.sources.names import first_few
from ncl_jax.data.sources.walk import SYSTEM, entries, is_image
from ncl_jax.errors import DataError

SPLITS = ("train", "val", "test")
WORDS = {
    "train": "train", "training": "train", "trainset": "train", "val": "val", "valid": "val", "validation": "val",
    "valset": "val", "test": "test", "testing": "test", "testset": "test",
}  # fmt: skip


class Layout(NamedTuple):
    """Where the splits are; without any, the folder holds the classes."""

    folders: dict[str, Path]
    beside: tuple[str, ...] = ()  # folders that are neither
    notes: tuple[str, ...] = ()


class _Kind(NamedTuple):
    """What a folder holds directly."""

    folders: list[str]
    images: bool

    @property
    def splits(self):
        """Whether it looks like a split: folders of classes and no image."""
        return bool(self.folders) and not self.images

    @property
    def classes(self):
        """Whether it looks like a class: images and no folder."""
        return self.images and not self.folders


def find(root: Path, given: Mapping[str, str] | None = None) -> Layout:
    """The splits of a folder: those that are `given` by name, else those whose names say so.

    A name in any case counts, and `valid` for val, `training` and `testing`. A folder of this name that holds images
    and no folder, beside others like it, is a class.

    Raises:
      DataError: it is not clear which folders are splits, a folder cannot be read, one that is given is not there.
    """
    if chosen := {split: given[split] for split in SPLITS if given and given.get(split)}:
        return Layout({split: _inside(root, split, name) for split, name in chosen.items()})
    names = visible(root)
    roles = {name: WORDS[name.lower()] for name in names if name.lower() in WORDS}
    loose = {name: role for name in names if name not in roles and (role := _role(name))}
    kinds = {name: kind(root / name) for name in (*roles, *loose)}
    loose = {name: role for name, role in loose.items() if kinds[name].splits}
    others = [name for name in names if name not in roles]
    if roles and not _are_classes(root, roles, others, loose, kinds):
        return _named(root, roles, others, loose, kinds)
    if len(set(loose.values())) > 1 or (loose and len(loose) == len(names)):
        raise DataError(_question(root, loose, names))
    return Layout({}, (), (f"{first_few(sorted(roles))} is taken for a class, not for a split",) * bool(roles))


def visible(folder: Path) -> list[str]:
    """The names of the folders in a folder that may be classes or splits, sorted."""
    return [name for name in entries(folder)[0] if not name.startswith(".") and name.casefold() not in SYSTEM]


def kind(folder: Path) -> _Kind:
    """What a folder holds."""
    folders, files = entries(folder)
    shown = [name for name in folders if not name.startswith(".") and name.casefold() not in SYSTEM]
    return _Kind(shown, any(is_image(name) for name in files))


def _role(name):
    """The split that a part of a name stands for: `train_images`, `flowers-test`, `TrainingSet`, `val2017`."""
    parts = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)
    found = {WORDS[part.lower()] for part in parts if part.lower() in WORDS}
    return found.pop() if len(found) == 1 else None


def _are_classes(root, roles, others, loose, kinds):
    """Whether folders with the names of splits are classes: they are like others, which have other names."""
    if len(set(roles.values())) > 1 or not others or "train" in loose.values():
        return False
    if all(kinds[name].classes for name in roles):
        return any(kind(root / name).images for name in others)
    return "train" not in roles.values() and not any(name in SPLITS for name in roles)


def _named(root, roles, others, loose, kinds):
    """The layout of a folder in which names are those of splits."""
    split_of = {role: [name for name in roles if roles[name] == role] for role in SPLITS}
    unclear = any(len(names) > 1 for names in split_of.values())
    if not split_of["train"] and "train" in loose.values():
        unclear = True
    elif not split_of["test"] and not split_of["val"]:
        classes = {c for name in split_of["train"] for c in kinds[name].folders}
        unclear = unclear or any(classes & set(kinds[name].folders) for name in loose)
    if unclear:
        raise DataError(_question(root, roles | loose, [*roles, *others]))
    folders = {role: root / names[0] for role, names in split_of.items() if names}
    if "train" not in folders:
        present = " and ".join(path.name for path in folders.values())
        raise DataError(
            f"{root} has {present}, but no train: put the training images into {root}/train, or pass the name of their "
            f"folder (train=FOLDER after the configuration's colon; data.list.train)"
        )
    renamed = [f"{role} is read from {path.name}" for role, path in folders.items() if path.name != role]
    return Layout(folders, tuple(others), (", ".join(renamed),) * bool(renamed))


def _question(root, roles, names):
    """What was found, and what to pass."""
    of = {role: [name for name in roles if roles[name] == role] for role in SPLITS}
    passed = ",".join(f"{role}={found[0]}" for role, found in of.items() if found)
    return (
        f"{root} has the folders {first_few(names, 8)}: which of them are splits is not clear. Name them, "
        f"--config=folder:dir={root},{passed}; or pass train=. if each is a class (fields: data.list.train, ...)"
    )


def _inside(root, split, name):
    """A split's folder that is given by name."""
    path = Path(os.path.normpath(root / name))
    if Path(os.path.relpath(path, root)).parts[:1] == (os.pardir,):
        raise DataError(f"{split}={name} leads out of data.dir={root}: pass a data.dir above all images")
    if not path.is_dir():
        raise DataError(f"{split}={name} is not a folder in {root}: there are {first_few(visible(root), 8)}")
    return path
