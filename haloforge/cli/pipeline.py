"""`halo-forge pipeline`."""

from typing import Any

import click

from haloforge.cli.options import settings_of, shared_options
from haloforge.cli.output import json_option, show


@click.command("pipeline")
@click.option("--model", "model", help="Base: smollm2-135m, a folder, or a Hugging Face id.")
@click.option("--output", "output", help="Folder of the run.  [default: runs/pipeline]")
@click.option(
    "--full", is_flag=True, help="RAFT and benchmark on all problems: no limit, every difficulty."
)
@json_option
@shared_options
def pipeline_command(
    fresh: bool, full: bool, as_json: bool, assignments: tuple[str, ...], **options: Any
) -> None:
    """Measures the base, runs SFT and RAFT, measures both, as one job with one engine start."""
    if full:
        limits = ("raft.limit=null", "benchmark.limit=null")
        difficulties = (f"{room}.difficulty=[]" for room in ("raft", "benchmark"))
        assignments = (*assignments, *limits, *difficulties)
    settings = settings_of(assignments=assignments, **options)
    from haloforge.pipeline import SUMMARY, pipeline
    from haloforge.report.tables import results_table
    from haloforge.report.trees import pipeline_tree
    from haloforge.store.remote import run_folder

    results = pipeline(settings, fresh)
    output = settings.output
    show(
        as_json,
        lambda: pipeline_tree(output, run_folder(output) / SUMMARY),
        lambda: (
            f"{results_table(results)}\nModels, samples, summary.json and report.html: {output}"
        ),
    )
