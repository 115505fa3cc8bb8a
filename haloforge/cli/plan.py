"""`halo-forge plan`."""

from pathlib import Path
from typing import Any

import click

from haloforge.cli.options import LOCAL, given_options, settings_of
from haloforge.cli.output import json_option, show


@click.command("plan")
@click.option("--model", "model", help="Base: smollm2-135m, a folder, or a Hugging Face id.")
@click.option(
    "--rates-from",
    "measured",
    type=LOCAL,
    help="A finished RAFT run, whose speed the hours are estimated by.",
)
@json_option
@given_options
def plan_command(measured: Path | None, as_json: bool, **options: Any) -> None:
    """Tells, with no cluster, where all goes, what memory it takes, and whether that fits.

    The machines are the settings plan.nodes, plan.gpus_per_node, plan.gpu_memory_gb, ... Exit code
    3 where it does not fit.
    """
    settings = settings_of(**options)
    from haloforge.plan.fit import plan
    from haloforge.plan.table import plan_json, plan_text

    found = plan(settings, measured)
    show(as_json, lambda: plan_json(found), lambda: plan_text(found, settings))
    found.require_fit()
