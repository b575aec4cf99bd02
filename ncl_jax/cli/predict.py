"""Names the classes of image files.

Folders are searched at any depth; - reads names from standard input, one a line, or ended by NUL as find -print0
writes them. The answer's disagreement is the share of the pairs of experts that name different classes: a measure of
uncertainty, unless the experts are the same, as heads on frozen features mostly are. Files that cannot be read are
listed and skipped; the exit code is then 1. In a .csv a quote precedes names that a spreadsheet would take for
formulas; bytes of names that are not UTF-8 are written as \\xNN.

--coverage adds to each answer the set of classes that the image may be, --refuse marks images unlike those of training,
--prior=estimate finds out how common each class is among the given images: docs/trust.md says what each promises.
"""

import argparse
import os
import pathlib
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any

from ncl_jax.cli.arguments import Parser, add_force, add_model, add_run, at_least, check_writable, new_file
from ncl_jax.data.sources.walk import Unused
from ncl_jax.errors import ConfigError, DataError, Interrupted, WriteError
from ncl_jax.evaluation import priors
from ncl_jax.report import tables
from ncl_jax.runs import answers, messages, next_steps
from ncl_jax.runs.answer_files import WRITERS, text_line
from ncl_jax.runs.answers import How, Summary
from ncl_jax.runs.load import Model, load
from ncl_jax.runs.predict import Scored, find_files, score
from ncl_jax.runs.sorting import UNSURE, Sorter
from ncl_jax.runtime import console, startup
from ncl_jax.runtime.files import partial_of, writing_whole
from ncl_jax.storage.directory import RunDir
from ncl_jax.trust import sets

# How image files begin, and what stands at the ninth byte of WebP, AVIF and HEIC; what else there is holds zeros.
IMAGES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")
WITHIN = (b"WEBP", b"avif", b"heic", b"mif1")
MOST_NAMED = 10  # unreadable files that are named on the console, beside the file of the answers
MOST_INPUT = 2**28  # bytes of names on standard input
ESTIMATE = "estimate"  # the value of --prior for one that is estimated


def write_all(
    model: Model, found: Iterable[Scored], how: How, out: pathlib.Path | None, sorter: Sorter | None, summary: Summary
) -> None:
    """Writes the answers to `out`, or shows them, and sorts the files.

    Raises:
      WriteError: they cannot be written.
      Interrupted: nobody reads them any more.
    """

    def each(write: Callable[[dict[str, Any]], object]) -> None:
        for one in found:
            (answer,) = answers.answers(model, [one], how)
            summary.add(one, answer, how.shares)
            if sorter and not one.error:
                sorter.put(one.file, answer["top"][0]["label"], answer["unsure"])
            write(answer)

    if out is None:
        each(lambda answer: _show(answer, how))
        return

    def to_file(write, answer):
        write(answer)
        if "error" in answer and summary.failed <= MOST_NAMED:
            console.say(text_line(answer, how), error=True)

    try:
        with writing_whole(out) as file:
            write = WRITERS[out.suffix.lower()](file, how)
            each(lambda answer: to_file(write, answer))
    except OSError as error:
        partial = partial_of(out)
        kept = f"; the predictions so far are in {partial}" if partial.exists() else ""
        raise WriteError(f"--out={out} cannot be written: {error}{kept}") from error


def _show(answer, how):
    """Shows an answer. Raises Interrupted where the output's reader has gone, WriteError where it is full."""
    if "error" in answer:
        console.say(text_line(answer, how), error=True)
        return
    try:
        console.show(text_line(answer, how))
    except BrokenPipeError as error:
        raise Interrupted("", signal.SIGPIPE) from error
    except OSError as error:
        raise WriteError(f"the predictions cannot be written to standard output: {error}") from error


def read_names() -> list[str]:
    """The names on standard input. Raises DataError for what is not a list of names."""
    if sys.stdin is None:
        return []
    content = sys.stdin.buffer.read(MOST_INPUT + 1)
    if len(content) > MOST_INPUT:
        raise DataError(f"standard input holds more than {MOST_INPUT:,} bytes of names: pass folders, or fewer names")
    boxed = content.startswith(b"RIFF") or content[4:8] == b"ftyp"
    if content.startswith(IMAGES) or (boxed and content[8:12] in WITHIN):
        raise DataError(
            "standard input holds an image, not names: pass the image's file, or its name on standard input"
        )
    if b"\0" not in content:
        names = [name.removesuffix(b"\r") for name in content.split(b"\n")]
    elif b"\0\0" not in content:
        names = content.split(b"\0")
    else:
        raise DataError(
            "standard input holds binary data, not names: pass the names of images, one a line or each ended by NUL"
        )
    return [os.fsdecode(name) for name in names if name]


def arguments(parser: Parser) -> None:
    """The command's arguments."""
    parser.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER", help="files, folders, or - for standard input")
    add_run(parser)
    parser.add_argument("--top", type=int, default=5, metavar="K", help="classes named for each image; default: 5")
    parser.add_argument("--expert", type=int, metavar="N", help="one expert; default: the ensemble")
    add_model(parser, ", or estimate: from the given images")
    parser.add_argument("--out", metavar="FILE", help="file for the predictions, .csv or .jsonl; default: the console")
    add_force(parser)
    trust = parser.add_argument_group("how far predictions can be trusted (docs/trust.md)")
    trust.add_argument(
        "--coverage", type=float, metavar="SHARE",
        help="add the set of classes that holds the true one in this share of the cases, such as 0.9",
    )  # fmt: skip
    trust.add_argument(
        "--promise", choices=sets.PROMISES, default=sets.PROMISES[0],
        help="whether the coverage is meant over all images or as the mean over classes; default: marginal",
    )  # fmt: skip
    trust.add_argument(
        "--weights",
        metavar="FILE",
        help="how much each class matters in sets: a number above 0 for each",
    )
    trust.add_argument(
        "--refuse", type=float, metavar="LEVEL",
        help="mark images unlike anything in training at this level, such as 0.05: of images like those of training "
        "that share is marked",
    )  # fmt: skip
    trust.add_argument(
        "--sort-into",
        metavar="DIR",
        help="new folder for links to the images (or copies), a folder per class; unsure ones apart",
    )
    trust.add_argument(
        "--review",
        type=int,
        default=0,
        metavar="N",
        help="list the N images to check first: where doubt about rare classes is largest",
    )


def answers_file(args: argparse.Namespace) -> pathlib.Path | None:
    """The file of `--out`, if there is one. Raises ConfigError for a bad one or a bad `--top`, WriteError for one that
    cannot be written."""
    out = new_file("--out", args.out, args.force) if args.out else None
    if out is not None:
        if out.suffix.lower() not in WRITERS:
            raise ConfigError(f"--out={out} must end in {' or '.join(WRITERS)}")
        check_writable("--out", out)
    at_least("top", args.top, 1)
    return out


def _check(args: argparse.Namespace) -> pathlib.Path | None:
    """The file for the answers. Raises ConfigError for a bad argument, before anything is computed."""
    out = answers_file(args)
    at_least("review", args.review, 0)
    if args.coverage is not None:
        sets.check(args.coverage)
    elif args.weights or args.promise != sets.PROMISES[0]:
        raise ConfigError("--promise and --weights are for sets: pass --coverage=0.9 with them")
    if args.refuse is not None and not 0 < args.refuse < 1:
        raise ConfigError(f"--refuse={args.refuse} must lie between 0 and 1, such as 0.05")
    return out


def _how(args: argparse.Namespace, model: Model) -> How:
    """What answers shall hold. Raises ConfigError, DataError where there is nothing to calibrate on."""
    how = How(min(args.top, len(model.class_names)), refuse=args.refuse)
    if args.coverage is None:
        return how
    weights = priors.read_numbers(args.weights, "--weights") if args.weights else None
    rule = model.set_rule(args.coverage, args.promise, weights)
    for line in answers.rule_lines(rule, model.class_names, model.calibration().source, model.facts.split):
        console.say(line, error=True)
    return how._replace(rule=rule)


def main(args: argparse.Namespace) -> None:
    """The command."""
    out = _check(args)
    names = [n for name in args.images for n in (read_names() if name == "-" else [name]) if n]
    unused = Unused()
    files = find_files(names, unused)
    startup.prepare()
    prior = None if args.prior == ESTIMATE else args.prior
    try:
        chosen = {"prior": prior, "temperature": args.temperature, "crops": args.crops}
        model = load(args.run, step=args.step, expert=args.expert, **chosen)
    except ValueError as error:
        raise ConfigError(f"--{error}") from error
    directory = RunDir(args.run)
    if args.step is None:
        config = model.config
        done = model.step // (config.get("steps_per_epoch") or model.facts.num_train // config.optim.batch_size)
        epochs = config.epochs + config.get("extend", 0)
        for line in next_steps.unfinished(str(args.run), done, epochs):
            if not directory.is_finished(epochs, config.run.patience):  # perhaps early
                console.say(line, error=True)
    for line in messages.other_pixels(directory.read_pixels(), directory.files.exists()):
        console.say(line, error=True)
    sorter = Sorter(args.sort_into, model.class_names) if args.sort_into else None
    how, found = _scored(args, model, files)
    summary = Summary(model, args.review)
    write_all(model, found, how, out, sorter, summary)
    results = directory.read_results() or {}
    if results and tables.coincide(results):
        same = "note: the experts of this run give the same answers: their disagreement says nothing about an image"
        console.say(same, error=True)
    _end(summary, len(files), out, sorter, answers.why_unsure(how), unused, {} if args.prior else results)


def _scored(args: argparse.Namespace, model: Model, files: list[str]) -> tuple[How, Iterable[Scored]]:
    """What answers shall hold, and the scores that they are made of."""
    how = _how(args, model)
    known = None if args.refuse is None else model.knownness()
    if args.prior != ESTIMATE:
        return how, score(model, files, args.expert, known)
    answers.check_size(len(files), len(model.class_names))
    known = known or answers.measured_with(model)
    found = list(score(model, files, args.expert, known))
    estimated = answers.estimate(model, found, known is not None)
    for line in answers.mix_lines(model, estimated):
        console.say(line, error=True)
    if how.rule and how.rule.promise == "marginal" and not estimated.mix.refused:
        console.say("note: the sets' promise is for the training shares; --promise=macro is for any", error=True)
    return how._replace(shares=None if estimated.mix.refused else estimated.mix.shares), found


def _end(
    summary: Summary,
    number: int,
    out: pathlib.Path | None,
    sorter: Sorter | None,
    unsure: str,
    unused: Unused,
    results: dict,
) -> None:
    """The lines at the end; `unsure`: what makes a prediction so, `results`: of the run, empty where it has none or the
    prior was chosen. Raises DataError where files could not be read."""
    error = out is None  # standard output holds the answers
    if out is not None:
        console.say(f"wrote {out}: {number - summary.failed} of {number} files")
        console.say_lines(next_steps.predicted(results))
        for line in unused.lines(pathlib.Path()):
            console.say(line)
    console.say(summary.counts(), error=error)
    if summary.refused:
        console.say(f"unlike anything in training: {summary.refused:,} of {number - summary.failed:,}", error=error)
    if sorter:
        sure = summary.answered - summary.unsure
        console.say(
            f"sorted into {sorter.place}: {sure:,} in the folders of their classes, {summary.unsure:,} in {UNSURE}/ (a "
            f"prediction is unsure where {unsure})",
            error=error,
        )
    if chosen := summary.to_review():
        console.say("to check first, the most doubt about the rarest classes before all others:", error=error)
        for line in chosen:
            console.say(f"  {line}", error=error)
    if summary.failed:
        where = "" if out is None else f": the column error of {out} gives the reasons"
        raise DataError(f"{summary.failed} of {number} {'files' if number > 1 else 'file'} cannot be read{where}")
