"""`halo-forge submit`."""

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from haloforge.config import Settings


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

    STAGE is prepare, sft, raft, benchmark, pipeline, verify or serve; ARGUMENTS are what its own
    command takes. Files that they name by a relative path go along; outputs have to be absolute or
    a URI. The job outlives this command, whose exit code is the job's; submitted again it goes on.
    Tokens and keys are those of the cluster's nodes: nothing of the environment goes along. Of
    --detach the output is the job's id alone; --json is STAGE's, and in the job's log comes last.
    """
    from haloforge.cli.job import job_of
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


def _job_server(settings: "Settings") -> str | None:
    """What the settings name, where it is one: `ray.address` may be that of the cluster itself."""
    named = settings.ray.address
    return named if named and named.startswith(("http://", "https://")) else None


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _write(words: str) -> None:
    sys.stdout.write(words)
    sys.stdout.flush()
