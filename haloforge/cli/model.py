"""`halo-forge model`."""

import os
from pathlib import Path
from typing import Literal

import click

from haloforge.cli.options import LOCAL
from haloforge.cli.output import json_option, show


@click.group("model")
def model_group() -> None:
    """Trained models as files."""


@model_group.command("merge")
@click.option("--model", required=True, help="Adapter folder.")
@click.option("--output", required=True, type=LOCAL, help="A new folder.")
@click.option(
    "--dtype",
    type=click.Choice(["bf16", "fp32"]),
    default="bf16",
    show_default=True,
    help="bf16 is what haloforge's engines sample from; fp32 rounds nothing, at twice the size.",
)
@json_option
def merge(model: str, output: Path, dtype: Literal["bf16", "fp32"], as_json: bool) -> None:
    """Writes an adapter and its base as one plain model folder.

    Its greedy answers are those of the adapter: in bf16 those that haloforge samples and measures,
    in fp32 those of the adapter on its base in fp32.
    """
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # PEFT asks DeepSpeed, which asks for a GPU
    from haloforge.errors import InputError
    from haloforge.model.policy import resolve_policy

    if output.exists():
        raise InputError(f"{output} exists; name a new folder")
    policy = resolve_policy(model)
    partial = output.with_name(f"{output.name}.tmp")
    policy.merge_into(partial, dtype)
    partial.rename(output)
    show(as_json, lambda: {"output": output, "dtype": dtype}, lambda: str(output))
