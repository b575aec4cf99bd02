"""What commands end with: the files that they wrote and the commands that come next."""

import shlex

import pytest

from ncl_jax import cli
from ncl_jax.cli import predict
from ncl_jax.errors import ConfigError, DataError
from ncl_jax.export.formats import FORMATS
from ncl_jax.runs import next_steps
from ncl_jax.runs.export import form_of

RUN = "runs/my photos"
LINES = [
    *next_steps.trained(RUN, 30, 30, [0.1, 0.2, 0.3]), *next_steps.trained(RUN, 3, 30, []),
    *next_steps.evaluated(RUN, True), *next_steps.evaluated(RUN, False), *next_steps.reported([RUN], "a b.html"),
    *next_steps.inspected("folder:dir=my photos", ["--config.seed=1"], True), *next_steps.compared(RUN, ["ce", "ncl"]),
    *next_steps.distilled(RUN, f"{RUN}-distilled"), *next_steps.unfinished(RUN, 0, 30),
]  # fmt: skip


@pytest.mark.parametrize("line", [line for line in LINES if "ncl-jax" in line])
def test_the_commands_can_be_given_as_they_are(line):
    """They are words of a shell, and their flags are known."""
    command = line.partition("ncl-jax ")[2]
    name, *arguments = shlex.split(command.partition(" continues ")[0])
    found = cli.make_parser(name, cli._imported(cli.COMMANDS[name].module)).read(arguments)
    given = [str(value) for value in vars(found).values() for value in (value if isinstance(value, list) else [value])]
    assert any("my photos" in value for value in given)


@pytest.mark.parametrize(
    ("accuracies", "rising"),
    [([], False), ([0.1, 0.2], False), ([0.1, 0.2, 0.3], True), ([0.1, 0.3, 0.2], False), ([0.3, 0.3, 0.302], False),
     ([0.5, 0.1, 0.2, 0.3], False), ([0.2, 0.1, 0.2, 0.3], True)],
)  # fmt: skip
def test_an_accuracy_that_rises(accuracies, rising):
    assert next_steps.is_rising(accuracies) is rising
    lines = next_steps.trained("r", 30, 30, accuracies)
    assert any("--extend=6" in line for line in lines) is rising


def test_an_unfinished_run_is_named_with_its_epochs():
    assert "epoch 0 of 30" in next_steps.unfinished("r", 0, 30)[0]
    assert next_steps.unfinished("r", 30, 30) == []
    assert any("epoch 3 of 30" in line and "--resume=r" in line for line in next_steps.trained("r", 3, 30, []))


def test_names_cannot_steer_a_terminal():
    assert "\x1b" not in "".join(next_steps.trained("a\x1b[2J", 1, 1, []))


@pytest.mark.parametrize("form", FORMATS)
def test_a_files_ending_is_its_format(tmp_path, form):
    assert form_of(tmp_path / f"x.{form}") == form and form_of(tmp_path / "x") == "stablehlo"


@pytest.mark.parametrize("name", ["x.onxx", "x.pt", "x.stablehlo.gz", "x.ONNX"])
def test_an_unknown_ending_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match=rf"--out=.*{name} must end in one of: .stablehlo"):
        form_of(tmp_path / name)


@pytest.mark.parametrize(
    "content",
    [b"\xff\xd8\xff\xe0\x00\x10JFIF", b"\x89PNG\r\n\x1a\n\x00\x00", b"GIF89a\x01\x00", b"RIFF\x10\0\0\0WEBPVP8 ",
     b"\0\0\0\x1cftypavif"],
)  # fmt: skip
def test_an_image_on_standard_input_is_refused_by_name(content, monkeypatch):
    monkeypatch.setattr("sys.stdin", Input(content))
    with pytest.raises(DataError, match="holds an image"):
        predict.read_names()


@pytest.mark.parametrize("name", ["images1/WEBP/a.jpg", "BMW/1.jpg", "GIF8/a.jpg"])
def test_names_that_look_like_images_are_names(name, monkeypatch):
    for end in (b"\n", b"\0"):
        monkeypatch.setattr("sys.stdin", Input(name.encode() + end))
        assert predict.read_names() == [name]


class Input:
    """Standard input that holds some bytes."""

    def __init__(self, content):
        self.buffer = self
        self.read = lambda most: content[:most]
