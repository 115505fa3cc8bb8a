"""The stages by name, for the entry scripts in `jobs/` and for `halo-forge submit`."""

import sys
from collections.abc import Sequence

import click

from haloforge.cli.main import cli, main

STAGES = {
    "prepare": ("data", "prepare"),
    "sft": ("sft", "train"),
    "raft": ("raft", "train"),
    "benchmark": ("benchmark", "run"),
    "pipeline": ("pipeline",),
    "verify": ("verify",),
    "serve": ("serve",),
}
"""The command that each stage is. Another of its group may be named first: `benchmark eval`."""


def command_line(stage: str, arguments: Sequence[str]) -> list[str]:
    """The words of the command line that `stage` with `arguments` stands for."""
    group, *usual = STAGES[stage]
    found = cli.commands[group]
    if isinstance(found, click.Group) and arguments and arguments[0] in found.commands:
        usual = []
    return [group, *usual, *arguments]


def parsed(words: Sequence[str]) -> click.Context:
    """What the command line `words` gives, as its command would have it. Raises click's
    UsageError."""
    command: click.Command = cli
    context = click.Context(cli, info_name="halo-forge")
    left = list(words)
    while isinstance(command, click.Group):
        command = command.commands[left.pop(0)]
    return command.make_context(command.name, left, parent=context)


def run_stage(stage: str) -> None:
    """Runs `stage` with this process's arguments, as the command line would, and ends."""
    sys.argv[1:] = command_line(stage, sys.argv[1:])
    main()
