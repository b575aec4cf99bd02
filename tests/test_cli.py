"""The command `ncl-jax`: help, versions, and what its arguments are turned into."""

import sys

import pytest

from ncl_jax import __version__, cli, main
from ncl_jax.errors import ConfigError


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


def test_an_unknown_command_lists_the_known_ones(monkeypatch):
    with pytest.raises(SystemExit, match=r"there is no command 'trian'\nusage: ncl-jax COMMAND"):
        command(monkeypatch, "trian")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_helps(name, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="^0$"):
        command(monkeypatch, name, "--help")
    assert f"ncl-jax {name}" in capsys.readouterr().out


def test_help_of_training_names_methods_and_fields():
    text = main.usage()
    for word in ("nclpp", "optim.batch_size = 64", "--workdir", "cifar100lt", "imbalance"):
        assert word in text


def test_a_configuration_is_a_file_or_an_installed_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main.find_config("quickstart:epochs=2") == f"{main.CONFIGS / 'quickstart.py'}:epochs=2"
    (tmp_path / "mine.py").write_text("")
    assert main.find_config("mine.py:a=1") == "mine.py:a=1"
    with pytest.raises(ConfigError, match=r"'configs/quickstart.py' does not exist; installed are: .*quickstart"):
        main.find_config("configs/quickstart.py")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("configs/cifar100lt.py:imbalance=50,seed=1", "cifar100lt-imbalance=50,seed=1"),
        ("quickstart", "quickstart"),
    ],
)
def test_a_runs_name(path, name):
    assert main.run_name(path) == name
