"""Writes what a shell needs to complete ncl-jax's commands, arguments and fields.

bash:  source <(ncl-jax completion bash)
zsh:   ncl-jax completion zsh > a folder of $fpath/_ncl-jax
"""

import argparse
import importlib

import shtab

from ncl_jax import cli
from ncl_jax.cli.arguments import FIELD, Parser
from ncl_jax.config.fields import fields
from ncl_jax.runtime import console


def arguments(parser: Parser) -> None:
    """The command's arguments."""
    parser.add_argument("shell", choices=shtab.SUPPORTED_SHELLS, help="the shell")


def whole_parser() -> argparse.ArgumentParser:
    """All commands with their arguments, and every field where fields are taken."""
    parser = argparse.ArgumentParser(prog="ncl-jax")
    commands = parser.add_subparsers(parser_class=Parser)
    for name, command in cli.COMMANDS.items():
        one = commands.add_parser(name, help=command.description)
        importlib.import_module(command.module).arguments(one)
        if one.takes_fields:
            for field, declared in fields().items():
                one.add_argument(f"{FIELD}{field}", help=declared.help, choices=declared.choices)
    return parser


def main(args: argparse.Namespace) -> None:
    """The command."""
    console.say_text(shtab.complete(whole_parser(), args.shell))
