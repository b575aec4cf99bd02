"""The command `ncl-jax`: help, versions, and what its arguments are turned into."""

import re
import shutil
import subprocess
import sys

import pytest

from ncl_jax import __version__, cli
from ncl_jax.cli import train
from ncl_jax.config import files as config_files
from ncl_jax.errors import ConfigError

QUICKSTART = config_files.INSTALLED / "quickstart.py"


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["ncl-jax", *arguments])
    cli.main()


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("help",)])
def test_help_names_every_command_with_examples(arguments, monkeypatch, capsys):
    command(monkeypatch, *arguments)
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in cli.COMMANDS) and "examples:" in text


@pytest.mark.parametrize("arguments", [("--version",), ("train", "--version")])
def test_the_version(arguments, monkeypatch, capsys):
    if arguments[0] == "train":
        with pytest.raises(SystemExit, match="^0$"):
            command(monkeypatch, *arguments)
    else:
        command(monkeypatch, *arguments)
    assert capsys.readouterr().out == f"ncl-jax {__version__}\n"


def test_an_unknown_command_is_answered_with_the_nearest_or_all(monkeypatch):
    with pytest.raises(SystemExit, match=r"unknown command 'trian' \(did you mean train\?\); ncl-jax --help"):
        command(monkeypatch, "trian")
    with pytest.raises(SystemExit, match=r"unknown command 'xxxxxx'\nusage: ncl-jax COMMAND"):
        command(monkeypatch, "xxxxxx")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_helps(name, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="^0$"):
        command(monkeypatch, name, "--help")
    assert f"ncl-jax {name}" in capsys.readouterr().out


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(cli.COMMANDS, "fly", cli.Command("no_such_package", ""))
    message, code = cli.attempt("fly", [])
    assert code == 1 and re.search(rf"No module named 'no_such_package' for {sys.executable}", message)


def test_help_of_training_names_methods_and_fields():
    text = train.epilog()
    for word in (
        "nclpp",
        "optim.batch_size = 64",
        "cifar100lt",
        "imbalance",
        "run.conv",
        "folder:dir=DIR",
        "image_size",
    ):
        assert word in text


def test_the_short_help_of_training_has_the_fields_that_people_change(capsys):
    short = train.epilog(whole=False)
    assert all(f"  {name} = " in short for name in train.OFTEN) and "run.conv" not in short and "--help-all" in short
    with pytest.raises(SystemExit):
        cli.make_parser("train", train).read(["--help-all"])
    assert "run.conv" in capsys.readouterr().out


def test_a_configuration_is_a_file_or_an_installed_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_files.load("quickstart:epochs=2").epochs == 2
    (tmp_path / "mine.py").write_text(
        f"from runpy import run_path\nget_config = run_path({str(QUICKSTART)!r})['get_config']"
    )
    assert config_files.load("mine.py:epochs=3").epochs == 3
    with pytest.raises(ConfigError, match=r"'configs/quickstart.py' does not exist.*installed are: .*quickstart"):
        config_files.load("configs/quickstart.py")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("configs/cifar100lt.py:imbalance=50,seed=1", "cifar100lt-imbalance=50,seed=1"),
        ("quickstart", "quickstart"),
    ],
)
def test_a_runs_name(path, name):
    assert config_files.run_name(path) == name


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        (["train", "--config", "quickstart", "--config.epoch", "3"], "unknown field 'epoch' (did you mean epochs?)"),
        (["train", "--config=quickstart:epoch=3"], "unknown argument 'epoch=3' (did you mean epochs?)"),
        (["train", "--config=quickstat"], "(did you mean quickstart?)"),
        (["train", "--config=quickstart", "--workdr=x"], "(did you mean --workdir?)"),
        (["predict", "--run=x", "--topp", "3", "y.jpg"], "(did you mean --top?)"),
        (["train", "--config=quickstart:method=nclp"], "(did you mean nclpp?)"),
        (["train", "--config=quickstart", "--config.optim.schedule=cosin"], "(did you mean cosine?)"),
        (["train", "--config=quickstart", "--batch_size=8"], "(did you mean --config.optim.batch_size?)"),
        (["train", "--config=quickstart", "--epochs=8"], "(did you mean --config.epochs?)"),
        (["train", "--config=folder", "--dir=photos"], "--config=folder:dir=DIR"),
        (["train", "--config=quickstart", "--tme=30m"], "(did you mean --time?)"),
        (["train", "--config=cifar100lt:backbone=efficientnet_lite"], "(did you mean efficientnet_lite0?)"),
    ],
)
def test_the_nearest_name_is_suggested(argument, said):
    message, code = cli.attempt(argument[0], argument[1:])
    assert code == 1 and said in message


def test_a_value_follows_an_equals_sign_or_a_space():
    parser = cli.make_parser("train", train)
    for argv in (
        ["--config=a", "--extend=2", "--config.epochs=3"],
        ["--config", "a", "--extend", "2", "--config.epochs", "3"],
    ):
        args = parser.read([*argv, "--config.data.download=False"])
        assert (args.config, args.extend) == ("a", 2)
        assert args.fields == ["--config.epochs=3", "--config.data.download=False"]


def test_the_package_is_the_command(tmp_path):
    done = subprocess.run([sys.executable, "-m", "ncl_jax", "--version"], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == f"ncl-jax {__version__}\n"


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_a_shell_completes_commands_arguments_and_fields(tmp_path, capsys):
    assert cli.attempt("completion", ["bash"]) == ("", 0)
    (tmp_path / "completion").write_text(capsys.readouterr().out)
    for words, expected in (
        ("pre", "predict"),
        ("train --work", "--workdir"),
        ("train --config.optim.mom", "--config.optim.momentum"),
    ):
        line = f"ncl-jax {words}".split()
        script = f"source {tmp_path}/completion; COMP_WORDS=({' '.join(line)}); COMP_CWORD={len(line) - 1}; "
        script += '_shtab_ncl_jax; echo "${COMPREPLY[@]}"'
        assert subprocess.run(["bash", "-c", script], capture_output=True, text=True).stdout.split() == [expected]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "required: --config, for example --config=folder:dir=DIR"),
        (["--resume=x", "--config=quickstart"], "--resume=x"),
        (["--resume=x", "--workdir=y"], "leave --workdir out"),
        (["--resume=x", "--labels=y.csv"], "leave --labels out"),
        (["--resume={tmp}"], "config.json"),
        (["--resume={tmp}/none"], "none is not a directory"),
        (["--config=quickstart", "--time=30"], "--time=30 must be"),
    ],
)
def test_a_bad_start_is_one_line(arguments, said, tmp_path):
    message, code = cli.attempt("train", [word.replace("{tmp}", str(tmp_path)) for word in arguments])
    assert code == 1 and said in message and "\n" not in message
