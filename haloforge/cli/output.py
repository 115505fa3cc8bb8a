"""What a command writes to standard output: text for a reader, or one JSON document."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])


def json_option(command: _Command) -> _Command:
    """`--json`, as the parameter `as_json`."""
    told = "The result as one JSON document (haloforge/cli/README.md)."
    return click.option("--json", "as_json", is_flag=True, help=told)(command)


def show(as_json: bool, tree: Callable[[], Any], text: Callable[[], str | None]) -> None:
    """Writes `tree` as JSON, all in ASCII, or what `text` makes, which may also print by itself and
    return None."""
    if as_json:
        click.echo(json.dumps(plain(tree()), indent=2, allow_nan=False))
    elif (told := text()) is not None:
        click.echo(told)


def plain(tree: Any) -> Any:
    """The tree with paths as texts, and None for numbers that JSON has not."""
    if isinstance(tree, Mapping):
        return {str(name): plain(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [plain(value) for value in tree]
    if isinstance(tree, float) and not math.isfinite(tree):
        return None
    return str(tree) if isinstance(tree, PurePath) else tree
