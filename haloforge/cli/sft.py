"""`halo-forge sft`."""

from typing import Any

import click

from haloforge.cli.options import settings_of, share_or_file, shared_options
from haloforge.cli.output import json_option, show


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
@click.option(
    "--validation",
    "sft__validation",
    callback=share_or_file,
    help="Held-out share (0.1) or a JSONL of its own.  [default: none]",
)
@click.option("--eval-steps", "train__eval_steps", type=int, help="[default: each epoch]")
@click.option("--patience", "train__patience", type=int, help="Stop after so many in vain.")
@click.option("--save-steps", "train__save_steps", type=int, help="[default: 100]")
@click.option("--save-total-limit", "train__save_total_limit", type=int, help="[default: 2]")
@click.option(
    "--no-lora", "train__use_lora", flag_value=False, default=None, help="Train all weights."
)
@click.option("--deepspeed", "train__deepspeed", help="A DeepSpeed JSON of your own.")
@click.option("--show-batch", is_flag=True, help="Print one batch, trained tokens marked, and end.")
@click.option("--dry-run", is_flag=True, help="Print steps, tokens and memory, and end.")
@json_option
@shared_options
def train(fresh: bool, show_batch: bool, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Trains a LoRA adapter; OUTPUT/final_model is what later stages take.

    Stopped in whatever way, the same command goes on from the last checkpoint.
    """
    settings = settings_of(**options)
    from haloforge.preflight import check_sft

    check_sft(settings)
    from haloforge.report.runs import training_table
    from haloforge.report.training import preview_text, preview_tree
    from haloforge.report.trees import trained_tree
    from haloforge.session import Session
    from haloforge.sft import preview, sft
    from haloforge.store.layout import FINAL
    from haloforge.store.remote import run_folder, shown

    with Session(settings) as session:
        if show_batch or dry_run:
            seen = preview(session, session.policy(None), show_batch, dry_run)
            show(as_json, lambda: preview_tree(seen), lambda: preview_text(seen))
            return
        output = run_folder(settings.sft.output)
        policy = sft(session, session.policy(None), output, fresh)

    def text() -> str:
        return f"{training_table(output / FINAL)}\n{shown(policy.name)}"

    show(as_json, lambda: trained_tree(policy), text)
