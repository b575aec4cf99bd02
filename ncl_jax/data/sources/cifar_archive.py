"""CIFAR's Python archives: found, downloaded, and read without trusting them.

An archive is a tar file of pickles, and both formats can be made to do harm: a pickle can call any function, a tar
member can point anywhere or never end. So pickles are read by an interpreter that can build nothing but plain values
and arrays (`cifar_pickle`), the tar file is never unpacked, only read member by member, and nothing may be much larger
than it is in CIFAR.
"""

import hashlib
import http.client
import os
import sys
import tarfile
import tempfile
import urllib.request
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ncl_jax.data.sources import cifar_pickle, tarball
from ncl_jax.errors import DataError, one_line
from ncl_jax.runtime import compressed
from ncl_jax.runtime.files import open_regular, read_file

CONNECT_SECONDS = 10
MOST_OF_A_FILE = 1 << 28  # bytes; CIFAR-100's train has 155 MB, and the archives 170 MB
MOST_OF_ALL = 1 << 29  # bytes of an archive, expanded; both have 186 MB


class Layout(NamedTuple):
    """What a CIFAR archive is called and holds."""

    url: str
    md5: str
    folder: str
    train_files: tuple[str, ...]  # rows are concatenated in this order
    test_file: str
    names_file: str
    label_key: bytes
    names_key: bytes

    @property
    def archive(self) -> str:
        """File name of the archive."""
        return self.url.rpartition("/")[2]

    @property
    def files(self) -> tuple[str, ...]:
        """All files that are read."""
        return (*self.train_files, self.test_file, self.names_file)


# https://www.cs.toronto.edu/~kriz/cifar.html
LAYOUTS = {
    "cifar10": Layout(
        url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        md5="c58f30108f718f92721af3b95e74349a",
        folder="cifar-10-batches-py",
        train_files=tuple(f"data_batch_{i}" for i in range(1, 6)),
        test_file="test_batch",
        names_file="batches.meta",
        label_key=b"labels",
        names_key=b"label_names",
    ),
    "cifar100": Layout(
        url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        md5="eb9058c3a382ffc7106e4002c42a8d85",
        folder="cifar-100-python",
        train_files=("train",),
        test_file="test",
        names_file="meta",
        label_key=b"fine_labels",
        names_key=b"fine_label_names",
    ),
}


def find(layout: Layout, directory: Path) -> Path | None:
    """The unpacked folder at or in `directory`, else the archive in it, else an incomplete folder, else None."""
    for folder in (directory, directory / layout.folder):
        if all((folder / name).is_file() for name in layout.files):
            return folder
    for place in (directory / layout.archive, directory / layout.folder):
        if place.exists():
            return place
    return None


def read(layout: Layout, place: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
    """Reads the archive (.tar.gz) or unpacked folder at `place`.

    Returns:
      train_images uint8 [N, 32, 32, 3], train_labels int32 [N], test_images, test_labels, class_names.

    Raises:
      DataError: something is missing, damaged, or holds what a CIFAR archive does not.
    """
    contents = _read_folder(layout, place) if place.is_dir() else _read_tar(layout, place)
    unpickled = {name: cifar_pickle.load(contents.pop(name), f"{name} in {place}") for name in layout.files}
    train_images, train_labels = _split(layout, [unpickled[name] for name in layout.train_files], place)
    test_images, test_labels = _split(layout, [unpickled[layout.test_file]], place)
    try:
        names = tuple(name.decode() for name in unpickled[layout.names_file][layout.names_key])
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{layout.names_file} in {place} does not list class names under {layout.names_key!r} "
            f"({type(error).__name__}: {one_line(error)}): unpack or download it again"
        ) from error
    return train_images, train_labels, test_images, test_labels, names


def _split(layout: Layout, batches: list, place: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, 32, 32, 3] and labels [N] of one split, from its batches in order."""
    try:
        rows = [cifar_pickle.array(batch[b"data"]).reshape(-1, 3, 32, 32) for batch in batches]
        labels = np.concatenate([cifar_pickle.numbers(batch[layout.label_key]) for batch in batches])
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise DataError(
            f"{place} does not hold CIFAR batches ({type(error).__name__}: {one_line(error)}): expected b'data' with "
            f"rows of 3072 bytes and {layout.label_key!r}; unpack or download it again"
        ) from error
    images = np.empty((sum(map(len, rows)), 32, 32, 3), np.uint8)
    start = 0
    for batch in rows:
        for channel in range(3):  # Plane by plane, which is three times faster than one transposition.
            images[start : start + len(batch), :, :, channel] = batch[:, channel]
        start += len(batch)
    return images, labels


def _read_folder(layout: Layout, folder: Path) -> dict[str, bytes]:
    """Contents of the files of an unpacked archive."""
    missing = [name for name in layout.files if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder} lacks {', '.join(missing)}: unpack {layout.archive} there again")
    return {name: read_file(folder / name, MOST_OF_A_FILE) for name in layout.files}


def _read_tar(layout: Layout, archive: Path) -> dict[str, bytes]:
    """Contents of the files in a .tar.gz. Refuses an archive with members outside its folder, links or devices."""
    contents: dict[str, bytes] = {}
    try:
        with open_regular(archive) as file:
            stream = compressed.Expanded(file, MOST_OF_ALL, archive)
            for name, content in tarball.members(stream, lambda member: _member_name(layout, member, archive)):
                if name in layout.files and content:
                    contents[name] = content
    except (tarfile.TarError, *compressed.ERRORS) as error:
        raise DataError(
            f"{archive} is cut short or damaged ({error}): move it away and download it again from {layout.url}"
        ) from error
    except OSError as error:
        raise DataError(f"{archive} cannot be read ({error.strerror})") from error
    missing = [name for name in layout.files if name not in contents]
    if missing:
        raise DataError(f"{archive} lacks {', '.join(missing)}: move it away and download it again from {layout.url}")
    return contents


def _member_name(layout: Layout, member: tarfile.TarInfo, archive: Path) -> str:
    """Name of a member within the archive's folder ('' for the folder itself). Raises DataError for any other."""
    parts = [part for part in member.name.split("/") if part != "."]
    kinds = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE)
    plain = member.type in kinds and 0 <= member.size <= MOST_OF_A_FILE
    if not plain or parts[:1] != [layout.folder] or ".." in parts:
        kind = "file or folder" if plain else "link, device or too large"
        raise DataError(
            f"{archive} holds {member.name!r} ({kind}), where only plain files in {layout.folder}/ belong: "
            f"do not unpack it; get {layout.url} instead"
        )
    return "/".join(parts[1:])


def fetch(layout: Layout, directory: Path, *, allowed: bool) -> Path:
    """Downloads the archive into `directory`, which is made if need be.

    Raises:
      DataError: not allowed, not reachable, or not the file with the right MD5 sum; says what to put where.
    """
    target = directory / layout.archive
    wanted = (
        f"put {layout.archive} (from {layout.url}) into {directory.absolute()}, or its unpacked folder "
        f"{layout.folder}/ with {', '.join(layout.files)}"
    )
    if not allowed:
        raise DataError(f"no data in {directory.absolute()}, and downloading is switched off: {wanted}")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        print(f"downloading {layout.url} to {target}", file=sys.stderr)
        _download(layout, target)
    except (OSError, http.client.HTTPException) as error:
        raise DataError(
            f"no data in {directory.absolute()}, and {layout.url} cannot be downloaded ({error}): {wanted}"
        ) from error
    return target


def _download(layout: Layout, target: Path) -> None:
    """Downloads to a temporary name and renames, so that no run ever sees half a file."""
    later = f"try again, or get the file from elsewhere and put it at {target}"
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        digest = hashlib.md5(usedforsecurity=False)
        with os.fdopen(handle, "wb") as file, urllib.request.urlopen(layout.url, timeout=CONNECT_SECONDS) as response:
            while chunk := response.read(1 << 20):
                digest.update(chunk)
                file.write(chunk)
                if file.tell() > MOST_OF_A_FILE:
                    raise DataError(f"{layout.url} sends more than {MOST_OF_A_FILE:,} bytes: it was not kept; {later}")
        if digest.hexdigest() != layout.md5:
            raise DataError(
                f"{layout.url} has MD5 sum {digest.hexdigest()}, not {layout.md5}: it was not kept; {later}"
            )
        Path(temporary).chmod(0o644)
        Path(temporary).replace(target)
    finally:
        Path(temporary).unlink(missing_ok=True)
