"""ImageNet-LT, Places-LT and iNaturalist 2018: published lists over the images of their data sets."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ncl_jax.data.longtail import count_labels
from ncl_jax.data.sources import labels, list_files, lists, tfds_files
from ncl_jax.data.sources.tfds import read_folder
from ncl_jax.data.types import Request, Source
from ncl_jax.errors import DataError


class Benchmark(NamedTuple):
    """What a benchmark's lists are called, what they must add up to, and where everything is downloaded."""

    lists: dict[str, tuple[str, ...]]  # names that a split's list goes by
    totals: dict[str, int]
    largest: int  # training images of the largest class
    smallest: int
    num_classes: int
    tfds: str
    help: str


_LISTS = "the lists from github.com/facebookresearch/classifier-balancing (data/)"
# What git calls the published lists' content.
PUBLISHED = {
    "ImageNet_LT_train.txt": "a063f095fcd475db4cf8b0658c4b73955535bbf9",
    "ImageNet_LT_val.txt": "3ed3188b2f44829ce2dec1cc27040d8d40984088",
    "ImageNet_LT_test.txt": "76a2fb9749d6cd29e765cc4f8c270f2504131e2f",
    "Places_LT_train.txt": "6392252f8ae867bc8a5e841cc1b29e5b8ef4b636",
    "Places_LT_val.txt": "b93a2ca58ccb7f3b671c176f395a70bf52c95533",
    "Places_LT_test.txt": "e732e58b8aa718a2c1c11933375f5710652c2b93",
    "iNaturalist18_train.txt": "4accdb7584d2f0a5106c40a33ed6afa392189bcc",
    "iNaturalist18_val.txt": "4c23900857fd0f5adcd4cc0dffef345039eeb05f",
}
BENCHMARKS = {
    "imagenet_lt": Benchmark(
        {split: (f"ImageNet_LT_{split}.txt",) for split in ("train", "val", "test")},
        {"train": 115_846, "val": 20_000, "test": 50_000}, 1280, 5, 1000, "imagenet_lt",
        "ImageNet's ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from image-net.org (an account is needed), "
        f"unpacked to train/<wnid>/ and val/<wnid>/ or val/, and {_LISTS}",
    ),
    "places_lt": Benchmark(
        {split: (f"Places_LT_{split}.txt",) for split in ("train", "val", "test")},
        {"train": 62_500, "val": 7_300, "test": 36_500}, 4980, 5, 365, "",
        "Places365-Standard from places2.csail.mit.edu/download-private.html (places365standard_easyformat.tar, or "
        f"train_256_places365standard.tar and val_256.tar), unpacked to train/ and val/, or data_256/ and val_256/, "
        f"and {_LISTS}",
    ),
    "inaturalist2018": Benchmark(
        {"train": ("iNaturalist18_train.txt", "train2018.json"), "test": ("iNaturalist18_val.txt", "val2018.json")},
        {"train": 437_513, "test": 24_426}, 1000, 2, 8142, "i_naturalist2018",
        "train_val2018.tar.gz, train2018.json.tar.gz and val2018.json.tar.gz from github.com/visipedia/inat_comp "
        "(2018), unpacked to train_val2018/, train2018.json and val2018.json",
    ),
}  # fmt: skip


def read(request: Request) -> Source:
    """A benchmark's splits, each from its list in `data.dir`, or as prepared by TensorFlow Datasets.

    iNaturalist's validation images, on which everybody reports, are its split test.

    Raises:
      DataError: a list or an image is not there, or a list's total or its largest or smallest class is not the
        published one.
    """
    benchmark, root = BENCHMARKS[request.name], request.directory
    if benchmark.tfds and (place := tfds_files.find(benchmark.tfds, root)):
        source = read_folder(request, place)
        check(request.name, {name: split.labels for name, split in source.splits.items()}, f"{place}")
        return source
    found = {split: _list(root, names) for split, names in benchmark.lists.items()}
    missing = [names[0] for split, names in benchmark.lists.items() if found[split] is None and split != "val"]
    if missing:
        lacking = " and ".join(missing)
        raise DataError(f"{request.name}: {root} lacks {lacking}. Put there {benchmark.help} (docs/data.md)")
    entries = {split: lists.parse(path) for split, path in found.items() if path}
    names = lists.class_names(entries)
    numeric = labels.are_numbers(entries)
    of_splits = {s: labels.numbers(e, names, s, numeric).astype(np.int64) for s, e in entries.items()}
    notes = tuple(identity(path) for path in found.values() if path)
    check(request.name, of_splits, "; ".join(notes))
    source = lists.build(request, entries, names)
    return source._replace(notes=(*notes, *source.notes))


def _list(root: Path, names: tuple[str, ...]) -> Path | None:
    """The first of the files that is there, as it is or compressed."""
    candidates = [root / (name + suffix) for name in names for suffix in ("", ".gz")]
    return next((path for path in candidates if path.is_file()), None)


def identity(path: Path) -> str:
    """Says what a list is: its content's git blob id (SHA-1 of a header and the content), and whether it is known."""
    content = list_files.content(path)
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    known = PUBLISHED.get(path.name.removesuffix(".gz"))
    told = {None: "", blob: ", as published"}.get(known, f", not the published one ({known[:12] if known else ''})")
    return f"{path.name}: git blob {blob[:12]}{told}"


def check(name: str, labels: dict[str, np.ndarray], where: str) -> None:
    """Raises DataError where the splits are not the published ones."""
    benchmark = BENCHMARKS[name]
    for split, total in benchmark.totals.items():
        if split in labels and len(labels[split]) != total:
            raise DataError(f"{name}: {split} has {len(labels[split]):,} images, not {total:,}; read from {where}")
    try:
        counts = count_labels(labels["train"], benchmark.num_classes)
    except ValueError as error:
        raise DataError(f"{name}: {error}; read from {where}") from error
    if (counts.max(), counts.min()) != (benchmark.largest, benchmark.smallest):
        raise DataError(
            f"{name}: the largest and smallest class have {counts.max()} and {counts.min()} training images, not "
            f"{benchmark.largest} and {benchmark.smallest}; read from {where}"
        )
