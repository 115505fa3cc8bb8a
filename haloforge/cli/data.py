"""`halo-forge data`."""

from pathlib import Path
from typing import Any

import click

from haloforge.cli.data_tools import prompts_command, show_command, split_command


@click.group("data")
def data_group() -> None:
    """Rows that train, and problems to solve."""


for command in (split_command, show_command, prompts_command):
    data_group.add_command(command)


@data_group.command("prepare")
@click.option("--list", "listing", is_flag=True, help="Show the known data sets.")
@click.option("--dataset", help="A name from --list, or a JSONL file of your own.")
@click.option("--output", type=click.Path(path_type=Path), help="JSONL to write.")
@click.option(
    "--for",
    "purpose",
    type=click.Choice(["sft", "problems"]),
    help="Rows that train, or problems.  [default: what the data set is]",
)
@click.option("--language", help="c, cpp or python, for problems that name none.")
@click.option(
    "--test-fraction", default=0.1, show_default=True, type=click.FloatRange(0, 1, max_open=True)
)
@click.option("--seed", default=0, show_default=True)
@click.option("--no-test", is_flag=True, help="Hold nothing out.")
def prepare_command(
    listing: bool, dataset: str | None, output: Path | None, no_test: bool, **options: Any
) -> None:
    """Writes a data set to OUTPUT and held-out problems to test.jsonl beside it."""
    from haloforge.data.prepare import catalogue, prepare

    if listing:
        listed = ("\n".join(f"{key}: {value}" for key, value in row.items()) for row in catalogue())
        click.echo("\n\n".join(listed))
        return
    if dataset is None or output is None:
        raise click.UsageError("give --dataset and --output (or --list)")
    done = prepare(dataset, output, keep_all=no_test, **options)
    what = "conversations" if done.purpose == "sft" else "problems"
    click.echo(f"{done.output}: {done.rows} {what}")
    if done.test_output:
        click.echo(f"{done.test_output}: {done.test_rows} problems held out")
