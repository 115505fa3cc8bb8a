"""`halo-forge view` and `halo-forge samples`."""

from pathlib import Path
from typing import Any

import click

from haloforge.cli.options import LOCAL


@click.command("view")
@click.argument("run", type=LOCAL)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", default=8400, show_default=True, type=click.IntRange(0, 65535))
@click.option("--require-token", is_flag=True, help="Ask for a token on this machine too.")
def view_command(run: Path, host: str, port: int, require_token: bool) -> None:
    """A local page over the samples of the run in the folder RUN, until Ctrl-C.

    A run that goes on is shown as it grows. Beyond this machine a token is needed: that in
    HALOFORGE_VIEW_TOKEN, or a new one, which is in the address that is printed.
    """
    from haloforge.view.server import serve

    serve(run, host, port, require_token)


@click.command("samples")
@click.argument("run", type=LOCAL)
@click.option("--cycle", type=int, help="0 is the evaluation before the first.")
@click.option("--source", help="samples, evaluation, or a benchmark's name.")
@click.option("--outcome", multiple=True, help="compile_error, passed, ...; may be repeated.")
@click.option("--problem", default="", help="An id, or a part of ids.")
@click.option("--min-reward", type=float)
@click.option("--max-reward", type=float)
@click.option("--kept/--not-kept", default=None, help="What its cycle trained on, or did not.")
@click.option(
    "--sort",
    default="commits",
    show_default=True,
    help="reward, -reward (the highest first), tokens, -tokens; commits: as they came.",
)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(min=1))
@click.option("--full", is_flag=True, help="Prompt, code and diagnostics of each.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines with all that is stored.")
def samples_command(
    run: Path, outcome: tuple[str, ...], limit: int, full: bool, as_json: bool, **asked: Any
) -> None:
    """Samples of the run in the folder RUN, by outcome, problem, reward and so on."""
    from haloforge.view.filters import Filter
    from haloforge.view.terminal import print_samples

    print_samples(run, Filter(outcomes=outcome, **asked), limit, full, as_json)
