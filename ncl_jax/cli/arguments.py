"""What the commands share: one parser, fields of the configuration on the command line, arguments that several take."""

import argparse
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any, Literal, NoReturn

import ml_collections
from absl import flags
from ml_collections import config_flags

from ncl_jax.config import files as config_files
from ncl_jax.config import recipes, schedule
from ncl_jax.config.fields import fields as declared_fields
from ncl_jax.config.fields import flatten
from ncl_jax.errors import ConfigError, WriteError, did_you_mean
from ncl_jax.runtime.files import expand, target_of

EXAMPLE = ", for example --config=folder:dir=DIR for a folder of photographs, or --config=quickstart to try it"
OF_IMAGES = ("--dir", "--folder", "--images", "--photos", "--path")  # what people call --data
FIELD = "--config."  # how an argument begins that sets a field
PRIOR_HELP = (
    "class prior that is expected: uniform, train, or a file of numbers in the order of class_names in the run's "
    "dataset.json; default: as trained"
)
TEMPERATURE_HELP = "divides the scores: a number, or val to fit it on the run's val split; default: 1"
_NUMBER = r"(\d{1,9}(?:\.\d{1,9})?)"
DURATION = re.compile(f"(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?", re.ASCII)
LONGEST = 365 * 24 * 3600  # seconds
CROPS_HELP = "5: the mean of the scores of an image's corners and centre, which takes five times as long; default: 1"
STEP_HELP = "step of the checkpoint, or best: the one that was best on the test set; default: the latest good one"


class Parser(argparse.ArgumentParser):
    """Reads a command's arguments, `--flag VALUE` or `--flag=VALUE`.

    Attributes:
      takes_fields: whether `--config.FIELD=VALUE` is an argument, too; set by `add_config` and `add_fields`. They are
        found as `fields` in what `parse_args` returns.
    """

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)
        self.takes_fields = False

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """The arguments of a command line. Raises ConfigError for a bad one."""
        fields, rest = take_fields(argv) if self.takes_fields else ([], list(argv))
        found, unknown = self.parse_known_args(rest)
        if unknown:
            near = self._nearest(unknown[0].partition("=")[0])
            hint = f"; a field is set by {FIELD}FIELD=VALUE" if self.takes_fields and not near else ""
            self.error(f"unknown argument {unknown[0]!r}{near}{hint}")
        found.fields = fields
        return found

    def _nearest(self, name: str) -> str:
        """What an unknown flag may have meant: a field or an argument of a recipe of that name, or another flag."""
        leaf = name.removeprefix("--").replace("-", "_")
        if not name.startswith("--"):
            return ""
        found = [f for f in declared_fields() if leaf in (f, f.rpartition(".")[2])] if self.takes_fields else []
        if self.takes_fields and leaf in ("dir", *recipes.OWN) and leaf not in found:
            return f" (did you mean the argument {leaf} of a configuration, --config=folder:dir=DIR,...?)"
        if found:
            return f" (did you mean {FIELD}{found[0]}?)"
        known = self._option_string_actions
        return did_you_mean("--data" if name in OF_IMAGES and "--data" in known else name, known)

    def error(self, message: str) -> NoReturn:
        """See `argparse.ArgumentParser.error`, which would end the program. Raises ConfigError."""
        example = EXAMPLE if message.endswith("required: --config") else ""
        raise ConfigError(f"{message}{example}; {self.prog} --help shows all")


def take_fields(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments that set fields, each as `--config.FIELD=VALUE`, and the others."""
    fields, rest, arguments = [], [], list(argv)
    while arguments:
        word = arguments.pop(0)
        if not word.startswith(FIELD):
            rest.append(word)
        elif "=" in word or not arguments or arguments[0].startswith("--"):
            fields.append(word)
        else:
            fields.append(f"{word}={arguments.pop(0)}")
    return fields, rest


def add_config(parser: Parser, *, required: bool = True) -> None:
    """The configuration and its fields."""
    names = ", ".join(config_files.names())
    parser.add_argument(
        "--config", required=required, metavar="CONFIG[:ARGUMENT=VALUE,...]",
        help=f"configuration: {names} (installed), or a file such as configs/cifar100lt.py; a value that "
        "holds a comma and = needs double quotes, --config='folder:dir=\"a,b=c\",epochs=30'",
    )  # fmt: skip
    add_fields(parser)


def add_fields(parser: Parser) -> None:
    """The fields alone, of commands that take the configuration from elsewhere."""
    parser.takes_fields = True
    fields = parser.add_argument_group("fields of the configuration")
    fields.add_argument(
        "--config.FIELD", metavar="VALUE", help="set any field, such as --config.optim.batch_size=32; "
        "docs/reference/configuration.md and ncl-jax train --help-all list them",
    )  # fmt: skip


def add_labels(parser: Parser) -> None:
    """Corrected labels."""
    text = "corrected labels of training images, such as suspected_labels.csv of ncl-jax inspect: sets data.labels"
    parser.add_argument("--labels", default="", metavar="FILE.csv", help=text)


def read_config(args: argparse.Namespace) -> ml_collections.ConfigDict:
    """The configuration that `--config` names, with the fields that are set. Raises ConfigError."""
    config = config_files.load(args.config)
    set_fields(config, args.fields)
    if getattr(args, "labels", ""):
        config.data.labels = args.labels
    return config


def given(args: argparse.Namespace) -> list[str]:
    """The arguments that say what is trained, of a command line that has them."""
    labels = [f"--labels={args.labels}"] if args.labels else []
    return [f"--config={args.config}", *args.fields, *labels] if args.config is not None else []


def set_fields(config: ml_collections.ConfigDict, fields: Sequence[str]) -> None:
    """Sets fields of a configuration, each given as `--config.FIELD=VALUE`. Raises ConfigError."""
    values, given = flatten(config), list(fields)
    valid, declared = list(values), declared_fields()
    for index, argument in enumerate(fields):
        name, equals, value = argument.removeprefix(FIELD).partition("=")
        if name not in valid:
            section = name.rpartition(".")[0]
            listed = [field for field in valid if field.rpartition(".")[0] == section] or valid
            raise ConfigError(f"unknown field {name!r}{did_you_mean(name, valid)}; there are: {', '.join(listed)}")
        if not equals and not isinstance(values[name], bool):
            raise ConfigError(f"{FIELD}{name} has no value: pass {FIELD}{name}=VALUE, such as {values[name]!r}")
        word = declared[name].words.get(value) if name in declared else None
        given[index] = f"{FIELD}{name}={word}" if word is not None else argument if equals else f"{argument}=True"
    parsed = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=parsed, sys_argv=["", *given])
        parsed(["", *given])
    except (flags.Error, TypeError, ValueError) as error:
        raise ConfigError(f"{' '.join(str(error).split())}; ncl-jax train --help-all lists the fields") from error
    named = {argument.removeprefix(FIELD).partition("=")[0] for argument in fields}
    if "epochs" in named and "optim.milestones" not in named:
        schedule.rescale(config, values["epochs"])


def add_run(parser: Parser, *aliases: str, help: str = "directory of the run") -> None:
    """The directory of a run."""
    parser.add_argument("--run", *aliases, required=True, type=pathlib.Path, metavar="DIR", help=help)


def add_model(parser: Parser, more: str = "") -> None:
    """Which checkpoint of a run, and what its scores are for; `more`: what else --prior takes."""
    parser.add_argument("--step", type=step, help=STEP_HELP)
    parser.add_argument("--prior", metavar="PRIOR", help=PRIOR_HELP.replace("; default", f"{more}; default"))
    parser.add_argument("--temperature", metavar="NUMBER", help=TEMPERATURE_HELP)
    parser.add_argument("--crops", type=int, default=1, metavar="NUMBER", help=CROPS_HELP)


def step(text: str) -> int | Literal["best"]:
    """The value of --step. Raises ValueError."""
    return "best" if text == "best" else int(text)


def add_force(parser: Parser) -> None:
    """Whether a file may be replaced."""
    parser.add_argument("--force", action="store_true", help="overwrite a file that exists")


def new_file(flag: str, name: str, force: bool) -> pathlib.Path:
    """The file that a command is to write. Raises ConfigError for one that exists, unless it may be replaced, and for
    what is not a file."""
    path = expand(flag, name)
    if path.is_dir():
        raise ConfigError(f"{flag}={name} is a directory: pass the name of a file in it")
    if path.exists() and not path.is_file():
        raise ConfigError(f"{flag}={name} is a pipe, socket or device: pass the name of a file")
    if path.exists() and not force:
        raise ConfigError(f"{flag}={name} exists already: choose another name, or pass --force to overwrite it")
    return path


def check_writable(flag: str, path: pathlib.Path) -> None:
    """Raises WriteError, before work is done in vain, where a file cannot be written."""
    folder = target_of(path).parent
    if not folder.is_dir():
        raise WriteError(f"{flag}={path} cannot be written: there is no folder {folder}; make it, or pass another name")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise WriteError(f"{flag}={path} cannot be written: {folder} may not be written to; pass another name")


def seconds(flag: str, text: str) -> float:
    """A duration such as 90s, 30m, 2h or 1h30m. Raises ConfigError for anything else, or none."""
    found = DURATION.fullmatch(text)
    parts = [float(part or 0) for part in found.groups()] if found else []
    total = sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=bool(parts)))
    if not 1 <= total <= LONGEST:
        raise ConfigError(f"{flag}={text} must be a duration of 1 s to a year, such as 90s, 30m, 2h or 1h30m")
    return total


def at_least(name: str, value: int, least: int) -> None:
    """Raises ConfigError for an argument that is too small."""
    if value < least:
        raise ConfigError(f"--{name}={value} must be at least {least}")
