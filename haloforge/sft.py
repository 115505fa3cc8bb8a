"""Supervised fine-tuning: the stage before RAFT."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from haloforge.config import Settings, save_settings
from haloforge.data.sft import common_system, hold_out, read_sft
from haloforge.errors import InputError
from haloforge.model.policy import Policy, resolve_policy
from haloforge.schema import Message, digest, digest_of
from haloforge.session import Session
from haloforge.store.layout import FINAL
from haloforge.store.run import identity_of, open_run
from haloforge.train.settings import NOT_LEARNED, TrainSettings
from haloforge.update import check_trainable, is_trained, update_policy

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from haloforge.train.estimate import Estimate
    from haloforge.train.examples import Examples


def sft(session: Session, policy: Policy, output: Path, fresh: bool = False) -> Policy:
    """Trains `policy` on the conversations of `sft.data`; `output/final_model` is the adapter.

    A run that has ended is not repeated. Raises InputError where `output` holds another run.
    """
    settings = session.settings
    rows, held_out, training = read_inputs(settings)
    check_trainable(policy, training)
    identity = {
        "what": "sft",
        "data": digest_of(rows),
        "policy": policy.identity,
        "train": identity_of(training, NOT_LEARNED),
    }
    if held_out:
        identity["validation"] = digest_of(held_out)
    run = open_run(output, identity, fresh, {"weights": policy.digest})
    save_settings(settings, output)
    target = output / FINAL
    if is_trained(target):
        session.report.say(f"sft: {target} is there already")
        session.report.reused()
        return resolve_policy(str(target))
    session.check_memory(policy, "trainers")
    watched = session.observer.run(output, "sft", settings.model_dump(mode="json"))
    with watched, session.observer.phase("train"):
        return update_policy(
            session,
            policy,
            rows,
            target,
            training,
            stage="sft",
            lineage=digest(run),
            system=common_system(rows),
            data=f"Supervised fine-tuning on `{Path(settings.sft.data).name}`.",
            validation=held_out,
        )


def read_inputs(
    settings: Settings,
) -> tuple[Sequence[list[Message]], Sequence[list[Message]], TrainSettings]:
    """The conversations to train on, those held out, and how training is done."""
    chosen = settings.sft
    rows = read_sft(
        chosen.data, settings.language, settings.system, chosen.difficulty, chosen.limit
    )
    held_out: Sequence[list[Message]] = []
    if isinstance(chosen.validation, str):
        held_out = read_sft(chosen.validation, settings.language, settings.system)
    elif chosen.validation is not None:
        rows, held_out = hold_out(rows, chosen.validation, settings.seed)
    training = settings.train.of_stage(chosen.epochs, chosen.learning_rate)
    if not held_out and (training.patience or training.eval_steps):
        raise InputError(
            "train.patience and train.eval_steps need held-out rows: set sft.validation"
        )
    return rows, held_out, training


@dataclass(frozen=True)
class Preview:
    """What `sft` would train on: its `examples`, its numbers where they are asked for, and the
    `tokenizer` to read its first batch by where that is."""

    examples: "Examples"
    training: TrainSettings
    workers: int
    tokenizer: "PreTrainedTokenizerBase | None"
    estimate: "Estimate | None"


def preview(session: Session, policy: Policy, batch: bool, numbers: bool) -> Preview:
    """What `sft` would train on, without training: for its first batch, its numbers, or both."""
    from haloforge.train.estimate import estimate
    from haloforge.train.examples import encode_rows
    from haloforge.train.plan import StepPlan, warmup_steps

    rows, _, training = read_inputs(session.settings)
    check_trainable(policy, training)
    messages = ({"messages": row} for row in rows)
    examples, dropped = encode_rows(messages, policy.base.path, training.max_length)
    plan = StepPlan(examples.lengths(), training.batch_size, training.epochs, training.seed)
    warmup_steps(plan.num_steps, training)
    workers = session.placement.trainers
    training = training.on(gpu=session.placement.gpus_per_trainer > 0)
    found = None
    if numbers:
        found = estimate(examples, dropped, policy.base.path, policy.adapter, training, workers)
    tokenizer = session.tokenizer(policy.base) if batch else None
    return Preview(examples, training, workers, tokenizer, found)
