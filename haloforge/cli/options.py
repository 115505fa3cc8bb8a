"""Options that several commands share, and how flags become settings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from haloforge.config import Settings, load_settings
from haloforge.store.storage import local_path

_Command = TypeVar("_Command", bound=Callable[..., Any])


class LocalPath(click.Path):
    """A path on this machine; an address is refused."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(local_path(str(value)), param, ctx)


LOCAL = LocalPath()


def shared_options(command: _Command) -> _Command:
    """--config, --set, --address and --fresh."""
    fresh = click.option(
        "--fresh", is_flag=True, help="Set an earlier run in the output aside, start anew."
    )
    return settings_options(fresh(command))


def settings_options(command: _Command) -> _Command:
    """--config, --set and --address, for commands whose output is a file and no run."""
    address = click.option(
        "--address", help="A Ray cluster.  [default: RAY_ADDRESS, or a private local Ray]"
    )
    return given_options(address(command))


def given_options(command: _Command) -> _Command:
    """--config and --set, for commands that need no Ray."""
    config = click.option("--config", "config", type=LOCAL, help="Settings in YAML.")
    assignments = click.option(
        "--set",
        "assignments",
        multiple=True,
        metavar="ROOM.KEY=VALUE",
        help="Any setting; may be repeated.",
    )
    return config(assignments(command))


def settings_of(
    config: Path | None, assignments: tuple[str, ...], address: str | None = None, **flags: Any
) -> Settings:
    """The settings from file, flags (`room__key` is `room.key`) and --set, in rising priority."""
    dotted = {name.replace("__", "."): value for name, value in flags.items()}
    return load_settings(config, {**dotted, "ray.address": address}, assignments)


def integers(context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
    """`1,5,10` as a list of whole numbers."""
    if value is None:
        return None
    try:
        return [int(part) for part in value.split(",")]
    except ValueError:
        raise click.BadParameter(
            f"expected whole numbers such as 1,5,10, found {value!r}"
        ) from None


def share_or_file(context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
    """`0.1` as a number, anything else as a path."""
    if value is None:
        return None
    try:
        return float(value)
    except ValueError:
        return value
