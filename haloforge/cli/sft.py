"""`halo-forge sft`."""

from pathlib import Path
from typing import Any

import click

from haloforge.cli.options import settings_of, shared_options


@click.group("sft")
def sft_group() -> None:
    """Supervised fine-tuning on given answers."""


@sft_group.command("train")
@click.option("--data", "sft__data", help="JSONL with ChatML in 'text', or 'starter'.")
@click.option("--model", "model", help="Base: smollm2-135m, a folder, or a Hugging Face id.")
@click.option("--output", "sft__output", help="Folder of the run.  [default: models/sft]")
@click.option("--epochs", "sft__epochs", type=float, help="Passes over the data.  [default: 3]")
@click.option("--learning-rate", "sft__learning_rate", type=float, help="[default: 2e-4]")
@click.option("--batch-size", "train__batch_size", type=int, help="Examples a step.  [default: 8]")
@shared_options
def train(fresh: bool, **options: Any) -> None:
    """Trains a LoRA adapter; OUTPUT/final_model is what later stages take."""
    settings = settings_of(**options)
    from haloforge.preflight import check_sft

    check_sft(settings)
    from haloforge.session import Session
    from haloforge.sft import sft

    with Session(settings) as session:
        policy = sft(session, session.policy(None), Path(settings.sft.output), fresh)
    click.echo(policy.name)
