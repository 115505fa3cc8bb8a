"""`halo-forge model`."""

import os
from pathlib import Path

import click


@click.group("model")
def model_group() -> None:
    """Trained models as files."""


@model_group.command("merge")
@click.option("--model", required=True, help="Adapter folder.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="A new folder.")
def merge(model: str, output: Path) -> None:
    """Writes an adapter and its base as one plain model folder."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # PEFT asks DeepSpeed, which asks for a GPU
    from haloforge.errors import InputError
    from haloforge.model.policy import resolve_policy

    if output.exists():
        raise InputError(f"{output} exists; name a new folder")
    policy = resolve_policy(model)
    partial = output.with_name(f"{output.name}.tmp")
    policy.merge_into(partial)
    partial.rename(output)
    click.echo(str(output))
