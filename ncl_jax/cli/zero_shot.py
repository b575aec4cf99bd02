"""Names the classes of image files by the classes' names alone, with CLIP or SigLIP: a baseline without training.

The classes are those of --classes, one name a line, or the folders of the one folder that is passed. Where folders name
the classes of the images, the accuracy is printed; otherwise, or with --out, the answers, as ncl-jax predict writes
them. Weights and vocabularies: docs/transformers.md.
"""

import argparse
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ncl_jax.cli.arguments import Parser, add_force
from ncl_jax.cli.predict import answers_file, write_all
from ncl_jax.config.fields import fields
from ncl_jax.errors import DataError
from ncl_jax.models.named import TEXT
from ncl_jax.runs import zero_shot
from ncl_jax.runs.answers import How, Summary
from ncl_jax.runs.predict import Scored, score
from ncl_jax.runtime import console, startup


def arguments(parser: Parser) -> None:
    """The command's arguments."""
    parser.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER", help="files and folders")
    parser.add_argument("--classes", default="", metavar="FILE", help="names of the classes, one a line")
    parser.add_argument("--backbone", default="clip_base", metavar="NAME", help=f"one of {', '.join(TEXT)}")
    parser.add_argument("--pretrained", default="", metavar="FILE", help="its weights; default: those of the hub")
    parser.add_argument(
        "--text", default="", metavar="FILE",
        help="weights of the text tower, its vocabulary beside them; default: those of --pretrained, or of the hub",
    )  # fmt: skip
    template = fields()["model.template"].default
    parser.add_argument(
        "--template", default=template, metavar="TEXT", help=f"text about a class, several with |; default: {template}"
    )
    parser.add_argument("--top", type=int, default=5, metavar="K", help="classes named for each image; default: 5")
    parser.add_argument("--out", metavar="FILE", help="file for the predictions, .csv or .jsonl")
    add_force(parser)


def main(args: argparse.Namespace) -> None:
    """The command."""
    out = answers_file(args)
    config = zero_shot.configuration(args.backbone, args.pretrained, args.text, args.template)
    wanted = zero_shot.wanted(args.images, args.classes)
    startup.prepare()
    model: Any = zero_shot.ZeroShot(config, wanted.class_names)
    for line in (*wanted.notes, f"{len(wanted.class_names):,} classes by {model.record['file']}: {args.template}"):
        console.say(line, error=True)
    _answer(model, wanted, How(min(args.top, len(wanted.class_names))), out)


def _answer(model: Any, wanted: zero_shot.Wanted, how: How, out: pathlib.Path | None) -> None:
    """Writes the answers and prints the accuracy. Raises DataError where files could not be read."""
    tops: list[int] = []
    found, summary = _noted(score(model, wanted.files, None), tops), Summary(model)
    if out is None and wanted.labels is not None:
        for one in found:
            if one.error:
                console.say(one.error, error=True)
                summary.failed += 1
    else:
        write_all(model, found, how, out, None, summary)
    if wanted.labels is not None:
        console.say(accuracy_line(np.array(tops), wanted.labels))
    if out is not None:
        console.say(f"wrote {out}: {len(tops) - summary.failed} of {len(tops)} files")
    if summary.failed:
        raise DataError(f"{summary.failed} of {len(tops)} files cannot be read")


def _noted(scored: Iterable[Scored], tops: list[int]) -> Iterator[Scored]:
    """The same, each answer's class added to `tops`: -1 where the file cannot be read."""
    for one in scored:
        tops.append(-1 if one.error else int(one.scores.argmax()))
        yield one


def accuracy_line(tops: np.ndarray, labels: np.ndarray) -> str:
    """The accuracy in words, of images that could be read."""
    read = tops >= 0
    if not read.any():
        return "accuracy: no image could be read"
    share, mean = zero_shot.accuracy(tops[read], labels[read])
    return f"accuracy {100 * share:.1f} % of {int(read.sum()):,} images, {100 * mean:.1f} % as a mean of classes"
