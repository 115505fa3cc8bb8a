"""`halo-forge doctor`."""

from typing import Any

import click

from haloforge.cli.options import settings_of, settings_options
from haloforge.cli.output import json_option, show


@click.command("doctor")
@click.option(
    "--verifier",
    "verify__verifier",
    help="Toolchain that runs need.  [default: auto, which needs gcc and python]",
)
@json_option
@settings_options
def doctor_command(as_json: bool, **options: Any) -> None:
    """Tells what this machine has of what runs need, and how to get the rest.

    Versions, machine, sandbox, toolchains, Ray (with --address or RAY_ADDRESS whether it can be
    reached and takes the token), models. Exit code 3 where something needed is missing; nothing is
    started or changed. --json: {"ok", "checks": [{"name", "status", "found", "advice"}]}, where a
    status is ok, warning or fault.
    """
    settings = settings_of(**options)
    from haloforge.doctor.checks import examine, findings_json
    from haloforge.doctor.finding import Status
    from haloforge.errors import ResourceError
    from haloforge.report.findings import print_findings
    from haloforge.report.rows import rows_console

    findings = examine(settings)
    show(
        as_json,
        lambda: findings_json(findings),
        lambda: print_findings(rows_console(), findings),
    )
    faults = [each.name for each in findings if each.status is Status.FAULT]
    if faults:
        raise ResourceError(f"what runs need is missing or wrong: {', '.join(faults)}")
