"""`halo-forge submit`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from haloforge.cli.options import settings_of

if TYPE_CHECKING:
    from haloforge.config import Settings
    from haloforge.submit import Job


@click.command(
    "submit",
    context_settings={"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]},
)
@click.option("--address", help="The job server: host, host:8265 or a URL.  [default: RAY_ADDRESS]")
@click.option("--detach", is_flag=True, help="Print the job's id and end; the job goes on.")
@click.argument("stage")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def submit_command(
    stage: str, arguments: tuple[str, ...], address: str | None, detach: bool
) -> None:
    """Runs STAGE with ARGUMENTS as a job of a Ray cluster, and follows it to its end.

    STAGE is prepare, sft, raft, benchmark, pipeline or verify; ARGUMENTS are what its own command
    takes. Files that they name by a relative path go along; outputs have to be absolute or a URI.
    The job outlives this command, whose exit code is the job's; submitted again it goes on.
    """
    from haloforge.submit import connect, follow, submit

    job, settings = job_of(stage, arguments)
    client = connect(address or _job_server(settings))
    name = submit(client, job, _say)
    stop = f"stop it: ray job stop {name}"
    if detach:
        _say(f"follow it: ray job logs -f {name}; {stop}")
        click.echo(name)
        return
    _say(f"job {name}: Ctrl-C ends this command, not the job; {stop}")
    try:
        code = follow(client, name, _write)
    except KeyboardInterrupt:
        _say(f"\nnot followed any more; the job goes on: ray job logs -f {name}; {stop}")
        sys.exit(130)
    _say(f"job {name}: exit code {code}")
    sys.exit(code)


def job_of(stage: str, arguments: tuple[str, ...]) -> "tuple[Job, Settings]":
    """The job, and the settings that it will have. Raises what the stage's own command would for
    arguments that it does not take, and InputError for an output that would be lost."""
    from haloforge.cli.stages import STAGES, command_line, parsed
    from haloforge.errors import InputError
    from haloforge.submit import Job, check_output, named_files

    if stage not in STAGES:
        raise InputError(f"unknown stage '{stage}'; known: {', '.join(STAGES)}")
    given = parsed(command_line(stage, arguments))
    dotted = {name: value for name, value in given.items() if "__" in name}
    settings = settings_of(given.get("config"), given.get("assignments", ()), None, **dotted)
    outputs = {
        "sft": ("--output", given.get("sft__output") or settings.sft.output),
        "raft": ("--output", given.get("raft__output") or settings.raft.output),
        "pipeline": ("--output", given.get("output") or settings.output),
    }
    flag, output = outputs.get(stage, ("--output", given.get("output")))
    if output is not None:
        check_output(output, flag)
    values = [*_texts(settings.model_dump()), *_texts(given)]
    own = str(output)
    files = named_files(value for value in values if value != own)
    return Job(stage, arguments, files), settings


def _texts(tree: Any) -> list[str]:
    """All texts and paths in a tree of settings or options."""
    if isinstance(tree, str | Path):
        return [str(tree)]
    if isinstance(tree, dict):
        tree = tuple(tree.values())
    return (
        [text for each in tree for text in _texts(each)] if isinstance(tree, list | tuple) else []
    )


def _job_server(settings: "Settings") -> str | None:
    """What the settings name, where it is one: `ray.address` may be that of the cluster itself."""
    named = settings.ray.address
    return named if named and named.startswith(("http://", "https://")) else None


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _write(words: str) -> None:
    sys.stdout.write(words)
    sys.stdout.flush()
