"""`halo-forge raft`."""

from typing import Any

import click

from haloforge.cli.options import settings_of, shared_options
from haloforge.cli.output import json_option, show


@click.group("raft")
def raft_group() -> None:
    """Training on the model's own answers that the compiler and the tests accept."""


@raft_group.command("train")
@click.option("--checkpoint", "raft__checkpoint", help="Model to start from.  [default: the base]")
@click.option("--prompts", "raft__prompts", help="JSONL of problems, or 'starter'.")
@click.option("--verifier", "verify__verifier", help="Toolchain that judges.  [default: auto]")
@click.option("--cycles", "raft__cycles", type=int, help="[default: 5]")
@click.option("--samples-per-prompt", "raft__samples_per_prompt", type=int, help="[default: 8]")
@click.option(
    "--reward-threshold", "raft__reward_threshold", type=float, help="Least reward.  [default: 0.5]"
)
@click.option(
    "--keep-top-percent",
    "raft__keep_top_percent",
    type=float,
    help="Fraction in (0, 1] of a problem's samples to keep.  [default: 0.5]",
)
@click.option(
    "--curriculum",
    "raft__curriculum",
    help="'historical': problems that are solved always or never rest.  [default: none]",
)
@click.option(
    "--eval-prompts",
    "raft__eval_prompts",
    help="Problems to score each cycle on, never trained on.  [default: none]",
)
@click.option(
    "--patience",
    "raft__patience",
    type=int,
    help="Stop after so many cycles without a better score.  [default: off]",
)
@click.option(
    "--no-lora", "train__use_lora", flag_value=False, default=None, help="Train all weights."
)
@click.option("--output", "raft__output", help="Folder of the run.  [default: models/raft]")
@json_option
@shared_options
def train(fresh: bool, as_json: bool, **options: Any) -> None:
    """Samples, judges, selects, trains, and again; OUTPUT/cycle_N_final is the last adapter."""
    settings = settings_of(**options)
    from haloforge.preflight import check_raft

    check_raft(settings)
    from haloforge.raft.cycle import raft
    from haloforge.report.runs import raft_table
    from haloforge.report.trees import raft_tree
    from haloforge.session import Session
    from haloforge.store.layout import STATISTICS
    from haloforge.store.remote import run_folder, shown

    with Session(settings) as session:
        start = session.policy(settings.raft.checkpoint)
        output = run_folder(settings.raft.output)
        policy = raft(session, start, output, fresh)

    def text() -> str:
        return f"{raft_table(output / STATISTICS)}\n{shown(policy.name)}"

    show(as_json, lambda: raft_tree(policy), text)
