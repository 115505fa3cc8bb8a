"""`halo-forge study`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from haloforge.cli.options import LOCAL, integers, settings_of, shared_options
from haloforge.cli.output import json_option, show
from haloforge.store.storage import within

if TYPE_CHECKING:
    from haloforge.study import Study


@click.command("study")
@click.option("--output", default="runs/study", show_default=True, help="Folder of the runs.")
@click.option(
    "--results",
    type=LOCAL,
    default=Path("jobs/results/study"),
    show_default=True,
    help="Folder of the seeds' results.",
)
@click.option("--seeds", default="0,1,2", show_default=True, callback=integers)
@json_option
@shared_options
def study_command(
    output: str, results: Path, seeds: list[int], as_json: bool, fresh: bool, **options: Any
) -> None:
    """The pipeline once a seed, then all seeds pooled. A seed that has its result is not run."""
    if fresh:
        raise click.UsageError("a study keeps its results: move seed_N.json away to run it anew")
    places = within(output, [f"seed_{seed}" for seed in seeds])
    runs = [
        settings_of(**options, seed=seed, output=place)
        for seed, place in zip(seeds, places, strict=True)
    ]
    from haloforge.study import study

    found = study(runs, results)
    from haloforge.report.trees import study_tree

    show(as_json, lambda: study_tree(found, results), lambda: _told(found, results))


def _told(found: "Study", results: Path) -> str:
    from haloforge.report.tables import estimates_table

    trivial = ", ".join(f"{name} {rate:.0%}" for name, rate in found.trivial_rate.items())
    return "\n".join(
        [
            *estimates_table(found.models, found.differences),
            f"trivial answers: {trivial}",
            f"seeds {', '.join(map(str, found.seeds))} pooled: means over them, 95% intervals over "
            f"problems; each seed's own: {results}",
        ]
    )
