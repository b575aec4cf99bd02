"""What commands end with: the files that they wrote and the commands that come next."""

import shlex

import pytest

from ncl_jax import cli
from ncl_jax.cli import predict
from ncl_jax.config.fields import base_config
from ncl_jax.errors import ConfigError, DataError
from ncl_jax.export.formats import FORMATS
from ncl_jax.runs import durations, next_steps
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


def test_only_a_folder_of_other_images_is_predicted(tmp_path):
    (line,) = next_steps.evaluated(RUN, False, str(tmp_path))
    assert f"predict --run={next_steps.quoted(RUN)} {tmp_path} " in line
    (tmp_path / "list.csv").write_text("path,label\n")
    assert next_steps.evaluated(RUN, False, str(tmp_path / "list.csv")) == []


@pytest.mark.parametrize(
    ("accuracies", "rising"),
    [([], False), ([0.1, 0.2], False), ([0.1, 0.2, 0.3], True), ([0.1, 0.3, 0.2], False), ([0.3, 0.3, 0.302], False),
     ([0.5, 0.1, 0.2, 0.3], False), ([0.2, 0.1, 0.2, 0.3], True)],
)  # fmt: skip
def test_an_accuracy_that_rises(accuracies, rising):
    assert next_steps.is_rising(accuracies) is rising
    lines = next_steps.trained("r", 30, 30, accuracies, rates=[0.1] * 30)
    assert any("--extend=6" in line for line in lines) is rising


@pytest.mark.parametrize(("images", "rising"), [(0, True), (100, False), (10_000, True)])
def test_an_accuracy_rises_by_more_than_chance(images, rising):
    """Of 100 images 4 more are chance, of 10,000 are 400 not."""
    assert next_steps.is_rising([0.80, 0.82, 0.84], images) is rising


@pytest.mark.parametrize(
    ("rates", "command", "expected"),
    [([0.1, 0.001], (), "--resume=r --extend=6"),
     ([0.1, 0.0009], ["--config=x:a=1"], "--config=x:a=1 --config.epochs=60"),
     ([0.1, 0.0], (), "--config.epochs=60"), ([], ["--config=x"], "--config.epochs=60 --workdir=r-60-epochs")],
)  # fmt: skip
def test_a_run_whose_learning_rate_is_spent_is_not_extended(rates, command, expected):
    (line,) = [
        line
        for line in next_steps.trained("r", 30, 30, [0.1, 0.2, 0.3], rates=rates, command=command)
        if "rising" in line
    ]
    assert expected in line and ("--extend" in line) == ("--extend" in expected)
    warned = durations.extension(30, 4, rates or [1.0])[1:]
    assert len(warned) == (bool(rates) and "--extend" not in expected)


def test_what_extend_counts_from():
    assert "--extend=6 trains 2 more" in durations.counted(30, 4, 2)[0] and "34" in durations.counted(30, 4, 2)[0]
    assert durations.counted(30, 4, 0) == durations.counted(30, 4, 5) == []


@pytest.mark.parametrize("installed", [True, False])
@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [("folder:dir=my photos,image_size=64", 64, "'--config=folder:dir=my photos,backbone=efficientnet_lite0' --x=1"),
     ("configs/list.py:dir=d,image_size=0,train=a", 224, "--config=configs/list.py:dir=d,train=a,backbone="),
     ("folder:dir=d,pretrained=none", 64, ""), ("folder:backbone=resnet18,dir=d", 64, ""), ("quickstart", 28, "")],
)  # fmt: skip
def test_the_command_that_uses_pretrained_features(text, size, expected, installed, monkeypatch):
    monkeypatch.setattr("ncl_jax.config.backbone.is_installed", lambda named: installed)
    config = base_config()
    config.data.image_size = size
    lines = durations.faster(config, text, "--x=1")
    assert len(lines) == bool(expected) and all(expected in line for line in lines)
    assert all(("pip install" in line) != installed for line in [*lines, *map("; ".join, [durations.shorter(own())])])
    config.model.pretrained = "efficientnet_lite0"
    assert durations.faster(config, text, "") == []


def own():
    """The configuration of own images."""
    config = base_config()
    config.data.name = "folder"
    return config


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
