from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import typer.main

from transenc.cli.app import app
from transenc.cli.help import EXAMPLES


def found() -> dict[str, Any]:
    """Every command by its name."""
    top = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return {**top, **top["export"].commands}


def helped(command: Any) -> str:
    return str(command.get_help(command.make_context(command.name, [], resilient_parsing=True)))


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_help_names_what_an_option_takes_and_ends_with_examples(name: str) -> None:
    text = helped(found()[name])
    options = text.partition("\nOptions:\n")[2]
    assert not re.search(r"<[a-z]", options.replace("runs/<plm>-<task>", "")), "a type of Python"
    assert text.rstrip().endswith(EXAMPLES[name].splitlines()[-1])


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines.splitlines()])
def test_the_examples_of_help_are_understood(line: str) -> None:
    program, *words = shlex.split(line, comments=True)
    assert program == "transenc"
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context(command.name, words)  # raises for an option that there is not, or that lacks


def test_what_a_value_is_called_is_said_for_options_that_exist() -> None:
    from transenc.cli.help import VALUES

    names = {option.name.rstrip("_") for command in found().values() for option in command.params}
    assert set(VALUES) <= names
