"""`halo-forge report`."""

from pathlib import Path

import click

from haloforge.cli.options import LOCAL
from haloforge.cli.output import json_option, show
from haloforge.errors import InputError


@click.command("report")
@click.argument("run", type=LOCAL)
@json_option
def report_command(run: Path, as_json: bool) -> None:
    """Writes RUN/report.html again, from what the folder RUN holds, and prints its path.

    RUN is the folder of a pipeline, of RAFT, of SFT or of a benchmark, finished or not.
    """
    from haloforge.report.page import is_run, write_page

    if not run.is_dir():
        raise InputError(f"{run}: no folder")
    if not is_run(run):
        raise InputError(
            f"{run}: no run folder, neither of a pipeline, of RAFT, of SFT nor of a benchmark"
        )
    written = write_page(run)
    told = [warning.text for warning in written.warnings]
    show(
        as_json,
        lambda: {"report": written.path, "warnings": told},
        lambda: str(written.path),
    )
