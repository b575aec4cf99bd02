"""The command `ncl-jax predict`: classes of image files.

ncl-jax predict --run=DIR IMAGE_OR_FOLDER... [--top=5] [--expert=N] [--step=N|best] [--out=FILE.csv|FILE.jsonl]

Folders are searched at any depth; `-` reads names from standard input, one a line. `disagreement` is the share of the
pairs of experts that name different classes: where it is high, doubt the answer. Files that cannot be read are named
and passed over; the exit code is then 1.
"""

import csv
import json
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

import jax
import numpy as np

from ncl_jax import console, startup
from ncl_jax.calibration import TEMPERATURE_HELP
from ncl_jax.config import expand
from ncl_jax.data import decoding
from ncl_jax.data.sources import folder
from ncl_jax.errors import ConfigError, DataError, WriteError
from ncl_jax.model import Model, load
from ncl_jax.predict import combine, disagreement
from ncl_jax.priors import PRIOR_HELP

BATCH = 64


def find_files(names: Sequence[str]) -> list[str]:
    """The image files that arguments name, there or not. Raises DataError for none, or a folder without images."""
    found: list[str] = []
    for name in names:
        path = expand("IMAGE", name)
        inside = sorted(file for file, _ in folder.image_files(path)) if path.is_dir() else [str(path)]
        if not inside:
            raise DataError(f"{path} holds no image file")
        found += inside
    if not found:
        raise DataError("no image is named: give files or folders, or names on standard input")
    return found


def predict(model: Model, files: Sequence[str], top: int, expert: int | None) -> Iterator[dict]:
    """For each file in order: `file`, and `top`, the likeliest classes with `label` and `probability`, and
    `disagreement` between the experts; or `error` where it cannot be read."""

    def read(row: int) -> np.ndarray | str:
        try:
            return model.prepare(files[row])[0]
        except DataError as error:
            return str(error)

    batch: list[Any] = []
    for row, image in enumerate(decoding.in_threads(read, len(files), "predicting")):
        batch.append((files[row], image))
        if len(batch) == BATCH or row + 1 == len(files):
            yield from _predict_batch(model, batch, top, expert)
            batch = []


def _predict_batch(model, batch, top, expert):
    good = [image for _, image in batch if not isinstance(image, str)]
    answers: Iterator[Any] = iter(())
    if good:
        filled = np.stack(good + good[:1] * (BATCH - len(good)))  # one size, compiled once
        logits = model.experts(filled)[:, : len(good)]  # [E, b, C]
        answers = zip(np.asarray(jax.nn.softmax(combine(logits, expert))), disagreement(logits.argmax(-1)), strict=True)
    for file, image in batch:
        if isinstance(image, str):
            yield {"file": file, "error": image}
        else:
            probabilities, share = next(answers)
            best = np.argsort(-probabilities, kind="stable")[:top]
            classes = [{"label": model.class_names[c], "probability": round(float(probabilities[c]), 6)} for c in best]
            yield {"file": file, "top": classes, "disagreement": round(float(share), 4)}


def text_line(answer: dict) -> str:
    """An answer on the console."""
    if "error" in answer:
        return answer["error"]  # which names the file
    listed = ", ".join(f"{c['label']} {100 * c['probability']:.1f} %" for c in answer["top"])
    doubt = f"  (experts disagree: {100 * answer['disagreement']:.0f} %)" if answer["disagreement"] else ""
    return f"{answer['file']}: {listed}{doubt}"


def csv_writer(file: TextIO, top: int) -> Callable[[dict], object]:
    """Writes answers as rows, under a header."""
    writer = csv.writer(file)
    names = [f"{field}_{rank}" for rank in range(1, top + 1) for field in ("label", "probability")]
    writer.writerow(["file", *names, "disagreement", "error"])

    def write(answer: dict) -> None:
        cells = [cell for c in answer.get("top", ()) for cell in (c["label"], c["probability"])]
        cells += [""] * (2 * top - len(cells))
        writer.writerow([answer["file"], *cells, answer.get("disagreement", ""), answer.get("error", "")])

    return write


def jsonl_writer(file: TextIO, top: int) -> Callable[[dict], object]:
    """Writes answers as JSON, one a line."""
    return lambda answer: file.write(json.dumps(answer, ensure_ascii=False) + "\n")


WRITERS = {".csv": csv_writer, ".jsonl": jsonl_writer}


def run(model: Model, files: Sequence[str], top: int, expert: int | None, out: pathlib.Path | None) -> int:
    """Writes the answers to `out`, or shows them; returns how many files could not be read. Raises WriteError."""
    top, failed = min(top, len(model.class_names)), 0
    if out is None:
        for answer in predict(model, files, top, expert):
            failed += "error" in answer
            console.say(text_line(answer), error="error" in answer)
        return failed
    try:
        with out.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            write = WRITERS[out.suffix.lower()](file, top)
            for answer in predict(model, files, top, expert):
                failed += "error" in answer
                write(answer)
                if "error" in answer:
                    console.say(text_line(answer), error=True)
    except OSError as error:
        raise WriteError(f"--out={out} cannot be written: {error}") from error
    console.say(f"wrote {out}: {len(files) - failed} of {len(files)} files")
    return failed


def main(argv: list[str]) -> None:
    """The command."""
    parser = console.Parser(prog="ncl-jax predict", description="Predicts the classes of image files.")
    parser.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER", help="files, folders, or - for standard input")
    parser.add_argument("--run", required=True, help="directory of the run")
    parser.add_argument("--top", type=int, default=5, help="classes that are named for each image")
    parser.add_argument("--expert", type=int, help="one expert's number; the ensemble if not given")
    parser.add_argument("--step", type=console.step, help=console.STEP_HELP)
    parser.add_argument("--prior", help=PRIOR_HELP)
    parser.add_argument("--temperature", help=TEMPERATURE_HELP)
    parser.add_argument("--out", help="a file for the answers, .csv or .jsonl; the console if not given")
    args = parser.parse_args(argv)
    out = expand("--out", args.out) if args.out else None
    if out is not None and out.suffix.lower() not in WRITERS:
        raise ConfigError(f"--out={out} must end in {' or '.join(WRITERS)}")
    if args.top < 1:
        raise ConfigError(f"--top={args.top} must be at least 1")
    names = [n for name in args.images for n in (sys.stdin.read().splitlines() if name == "-" else [name]) if n]
    files = find_files(names)
    startup.prepare()
    try:
        model = load(args.run, step=args.step, expert=args.expert, prior=args.prior, temperature=args.temperature)
    except ValueError as error:
        raise ConfigError(f"--{error}") from error
    if failed := run(model, files, args.top, args.expert, out):
        raise DataError(f"{failed} of {len(files)} files cannot be read")


if __name__ == "__main__":
    from ncl_jax import cli

    cli.run("predict", sys.argv[1:])
