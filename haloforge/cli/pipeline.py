"""`halo-forge pipeline`."""

from typing import Any

import click

from haloforge.cli.options import settings_of, shared_options


@click.command("pipeline")
@click.option("--model", "model", help="Base: smollm2-135m, a folder, or a Hugging Face id.")
@click.option("--output", "output", help="Folder of the run.  [default: runs/pipeline]")
@click.option(
    "--full", is_flag=True, help="RAFT and benchmark on all problems: no limit, every difficulty."
)
@shared_options
def pipeline_command(fresh: bool, full: bool, assignments: tuple[str, ...], **options: Any) -> None:
    """Measures the base, runs SFT and RAFT, measures both, as one job with one engine start."""
    if full:
        limits = ("raft.limit=null", "benchmark.limit=null")
        difficulties = (f"{room}.difficulty=[]" for room in ("raft", "benchmark"))
        assignments = (*assignments, *limits, *difficulties)
    settings = settings_of(assignments=assignments, **options)
    from haloforge.pipeline import pipeline
    from haloforge.report.tables import results_table

    results = pipeline(settings, fresh)
    click.echo(results_table(results))
    click.echo(f"Models, samples, summary.json and report.html: {settings.output}")
