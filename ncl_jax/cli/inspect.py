"""Shows what a dataset holds, and what would stop or spoil a run.

Decodes every image once, on all cores. The exit code is 1 if something would stop or spoil a run.
"""

import argparse
import pathlib
from collections.abc import Sequence

import ml_collections
import numpy as np

from ncl_jax.cli.arguments import Parser, add_config, add_force, new_file, read_config
from ncl_jax.config import build, build_data, checks, recipes
from ncl_jax.config.fields import flatten
from ncl_jax.data import dataset
from ncl_jax.data.augment import views
from ncl_jax.data.feeds.resident import LARGEST_RESIDENT, alike, decoded_bytes
from ncl_jax.data.images import examine
from ncl_jax.data.images.examine import Examined
from ncl_jax.data.longtail import count_labels
from ncl_jax.errors import ConfigError, DataError, WriteError, printable
from ncl_jax.report import charts, plots
from ncl_jax.runs import next_steps
from ncl_jax.runtime import console
from ncl_jax.runtime.files import write_bytes

SHOWN = 60  # classes of a table: of more, the largest and the smallest
PICTURES = (".png", ".svg", ".pdf", ".jpg")
NAMED = 5  # files of a problem that are named


def class_table(data: dataset.Data) -> str:
    """A line for each class, the largest first: its images in every split and its group."""
    counts = {name: count_labels(split.labels, data.facts.num_classes) for name, split in data.splits().items()}
    groups = next(iter(data.facts.groups().values()))
    order = np.argsort(-counts["train"], kind="stable")
    lines = ["".join([f"{'class':<32}", *(f"{name:>9}" for name in counts), "  group"])]
    for label in order:
        group = next(name for name, mask in groups.items() if mask[label])
        cells = "".join(f"{numbers[label]:>9,}" for numbers in counts.values())
        lines.append(f"{printable(data.facts.class_names[label])[:30]:<32}{cells}  {group}")
    if len(order) > SHOWN:
        left_out = len(order) - SHOWN
        lines[1 + SHOWN // 2 : -SHOWN // 2] = [f"... {left_out} classes between, see the picture ..."]
    totals = "".join(f"{numbers.sum():>9,}" for numbers in counts.values())
    return "\n".join([*lines, f"{f'all {len(order):,} classes':<32}{totals}"])


def summary(data: dataset.Data, examined: dict[str, Examined]) -> str:
    """The imbalance factor, the groups of classes and the sizes of the images, a line each."""
    counts = data.facts.class_counts
    groups = {name: int(mask.sum()) for name, mask in next(iter(data.facts.groups().values())).items()}
    sizes = np.concatenate([part.sizes for part in examined.values()])
    sizes = sizes[sizes.min(1) > 0]
    low, middle, high = np.quantile(sizes, (0, 0.5, 1), axis=0).astype(int) if len(sizes) else np.zeros((3, 2), int)
    return (
        f"imbalance factor {max(counts) / min(counts):.4g} ({max(counts):,} to {min(counts):,} training images)\n"
        f"{groups['many']} many-shot classes (more than 100 training images), {groups['medium']} medium-shot (20 to "
        f"100), {groups['few']} few-shot (fewer than 20)\n"
        f"image sizes in pixels: width {low[1]} to {high[1]}, median {middle[1]}; height {low[0]} to {high[0]}, median "
        f"{middle[0]}"
    )


def suggestions(config: ml_collections.ConfigDict, data: dataset.Data, sizes: np.ndarray) -> list[str]:
    """What suits these data, a line for each field, beside what the configuration has."""
    fitted = ml_collections.ConfigDict(config.to_dict())
    recipes.fit_batch(fitted, data.facts.num_train)
    values = {
        "loss.num_hard": recipes.num_hard(data.facts.num_classes),
        "optim.batch_size": fitted.optim.batch_size,
    }
    if not isinstance(data.train.images, np.ndarray):
        sizes = sizes[sizes.min(1) > 0]
        size = recipes.size_for(sizes) if len(sizes) else 0
        small = decoded_bytes(len(data.train), size) <= LARGEST_RESIDENT
        whole = not all(views.resizes(name) for name in build.view_names(config)) or alike(sizes)
        values |= {"data.image_size": size, "data.feed": "resident" if small and whole else "stream"}
    present = flatten(config)
    marks = {
        name: "" if present[name] in (value, "auto") else f"  (the configuration has {present[name]})"
        for name, value in values.items()
    }
    return ["suggested:", *(f"  --config.{name}={value}{marks[name]}" for name, value in values.items())]


def problems(config: ml_collections.ConfigDict, data: dataset.Data, examined: dict[str, Examined]) -> list[str]:
    """What would stop or spoil a run."""
    found = []
    for name, part in examined.items():
        if part.errors:
            found.append(_listed(f"unreadable images in {name}: {len(part.errors)}", part.errors))
    for name, part in examined.items():
        if name != "train" and (pairs := examine.shared(examined["train"], part)):
            places = _places(data, "train", name, pairs)
            found.append(_listed(f"images that stand in train and in {name}: {len(pairs)} of {name}", places))
    try:
        checks.check_against_data(config, data.facts.num_train, data.facts.num_classes)
    except ConfigError as error:
        found.append(str(error))
    return found


def remarks(data: dataset.Data, examined: dict[str, Examined]) -> list[str]:
    """What should be known, but stops nothing."""
    found, names = [*data.notes], data.facts.class_names
    for name, split in data.splits().items():
        lacking = [printable(names[label]) for label in np.flatnonzero(count_labels(split.labels, len(names)) == 0)]
        if lacking:
            found.append(
                _listed(f"classes without an image in {name} (no figure can be given): {len(lacking)}", lacking)
            )
    for name, part in examined.items():
        if part.flat.any():
            lines = [data.place(name, row) for row in np.flatnonzero(part.flat).tolist()]
            found.append(_listed(f"images of one colour, or nearly, in {name}: {len(lines)}", lines))
    same, other = examine.repeated(data.train, examined["train"])
    if other:
        places = _places(data, "train", "train", other)
        found.append(_listed(f"training images that stand in two classes: {len(other)}", places))
    if same:
        places = _places(data, "train", "train", same)
        found.append(_listed(f"training images that repeat an earlier one of their class: {len(same)}", places))
    return found


def _places(data: dataset.Data, first: str, second: str, pairs: examine.Pairs) -> list[str]:
    """Where images are that are the same, a line for each pair."""
    return [f"{data.place(first, one)} is {data.place(second, other)}" for one, other in pairs]


def _listed(text: str, items: Sequence[str]) -> str:
    more = [f"... and {len(items) - NAMED} more"] if len(items) > NAMED else []
    return "\n    ".join([text, *items[:NAMED], *more])


def inspect(config: ml_collections.ConfigDict, file: pathlib.Path) -> list[str]:
    """Says what the data is, draws its classes, and returns what would stop or spoil a run with it.

    Args:
      config: of the run.
      file: where the picture of the classes goes.

    Raises:
      ConfigError: a bad value.
      DataError: the data cannot be read at all.
      WriteError: the picture cannot be written; all else has been said.
    """
    checks.validate(config)
    whole = ml_collections.ConfigDict(config.to_dict())
    whole.data.skip_unreadable = False  # they are to be found
    whole.data.image_size = config.data.image_size or 1  # not needed here, and perhaps not known yet
    data = build_data.data(whole)
    console.say_text(class_table(data))
    examined = {name: examine.examine(split, f"decoding {name}") for name, split in data.splits().items()}
    console.say_text(summary(data, examined))
    for line in suggestions(config, data, examined["train"].sizes):
        console.say(line)
    for line in remarks(data, examined):
        console.say_text(f"note: {line}")
    found = problems(config, data, examined)
    for line in found:
        console.say_text(f"problem: {line}")
    try:
        figure = charts.class_sizes(data.facts.name, data.facts.class_counts)
        write_bytes(file, plots.drawn(figure, file.suffix[1:].lower()))
    except OSError as error:
        above = f"; {len(found)} problem{'s' * (len(found) > 1)} above" if found else ""
        raise WriteError(f"cannot write --picture={file} ({error}): pass another file{above}") from error
    console.say(f"picture of the class sizes: {file}")
    return found


def arguments(parser: Parser) -> None:
    """The command's arguments."""
    add_config(parser)
    where = "file for the picture of the class sizes; default: class_sizes.png"
    parser.add_argument("--picture", default="class_sizes.png", metavar="FILE", help=where)
    add_force(parser)


def main(args: argparse.Namespace) -> None:
    """The command."""
    config, picture_file = read_config(args), new_file("--picture", args.picture, args.force)
    if picture_file.suffix.lower() not in PICTURES:
        raise ConfigError(f"--picture={args.picture} must end in {', '.join(PICTURES)}")
    found = inspect(config, picture_file)
    console.say_lines(next_steps.inspected(args.config, args.fields, not found))
    if found:
        raise DataError(f"{len(found)} problem{'s' * (len(found) > 1)} would stop or spoil a run: fix the data first")
    console.say("nothing was found that would stop or spoil a run")
