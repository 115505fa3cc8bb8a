"""What a command writes to standard output: text for a reader, or one JSON document."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])


def json_option(command: _Command) -> _Command:
    """`--json`, as the parameter `as_json`. Errors stay one line on standard error."""
    option = click.option(
        "--json", "as_json", is_flag=True, help="The result as one JSON document."
    )
    return option(command)


def show(as_json: bool, tree: Callable[[], Any], text: Callable[[], object]) -> None:
    """Writes `tree`, of plain values and paths, as JSON, or what `text` makes, which may also print
    by itself and return None."""
    if as_json:
        # Not NaN, which is no JSON.
        click.echo(json.dumps(tree(), indent=2, default=str, allow_nan=False))
        return
    told = text()
    if told is not None:
        click.echo(told)
