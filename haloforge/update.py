"""One update of a policy: conversations in, an adapter or model with provenance and card out."""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from haloforge.data.chat import ensure_template
from haloforge.data.sft import View
from haloforge.errors import InputError
from haloforge.model.adapter import AdapterInfo, finish_training, installed_versions
from haloforge.model.card import model_card
from haloforge.model.places import places_of
from haloforge.model.policy import Policy, resolve_policy
from haloforge.observe.activity import TRAINER
from haloforge.schema import Message
from haloforge.session import Session
from haloforge.store.layout import METRICS, TENSORBOARD, TRAINING
from haloforge.train.metrics import StepMetrics
from haloforge.train.plan import StepPlan
from haloforge.train.settings import TrainSettings
from haloforge.train.trainer import train


def update_policy(
    session: Session,
    policy: Policy,
    rows: Sequence[Sequence[Message]],
    target: Path,
    settings: TrainSettings,
    stage: str,
    lineage: str,
    cycle: int | None = None,
    system: str | None = None,
    data: str = "",
    facts: dict[str, Any] | None = None,
    validation: Sequence[Sequence[Message]] = (),
) -> Policy:
    """Trains `policy` (its adapter goes on, or a new one starts) on `rows`; returns the new policy.

    `target` becomes a PEFT folder, or without `use_lora` a model folder, when training has ended;
    before that nothing is there, and a training that was stopped goes on. `validation` are
    conversations that are held out. `lineage` is a digest of the run and the cycle; `data` and
    `facts` say in the model card what it learned from. Raises what `train` raises.
    """
    place = session.room_for_trainers()
    session.rest_engines()
    settings = settings.model_copy(update={"workers": place.trainers})
    work = _work(target)
    plan = StepPlan([1] * len(rows), settings.batch_size, settings.epochs, settings.seed)
    session.observer.trainers(place.trainers)
    title = f"train {stage}" + (f" cycle {cycle}" if cycle else "")
    with session.report.stage(title, plan.num_steps, "steps") as progress:

        def on_step(step: StepMetrics) -> None:
            told = "" if step.eval_loss is None else f", held out {step.eval_loss:.3f}"
            progress.advance(1, f"loss {step.loss:.3f}{told}", total=step.num_steps)
            session.observer.trained(step, place.trainers)

        result = train(
            ({"messages": list(row)} for row in rows),
            policy.base.path,
            policy.adapter,
            work,
            settings,
            place.cpus_per_trainer,
            place.threads_per_trainer,
            on_step,
            partial(session.observer.restarted, TRAINER, 1),
            place.gpus_per_trainer,
            View(validation, lambda index: {"messages": list(validation[index])}),
            place.steering,
            places_of(policy),
        )
    training = {
        "rows": len(rows),
        "dropped_rows": result.dropped_rows,
        "steps": result.steps,
        "loss_first": result.loss_first,
        "loss_last": result.loss_last,
        "trained_tokens": result.trained_tokens,
        "seconds": result.seconds,
        "restarts": result.restarts,
        **({"best_step": result.best_step, "eval_loss": result.eval_loss} if validation else {}),
        **(facts or {}),
    }
    info = AdapterInfo(
        base=policy.base.name,
        base_public_id=policy.base.public_id,
        base_digest=policy.base.digest,
        stage=stage,
        cycle=cycle,
        parent=policy.digest,
        lineage=lineage,
        system=system,
        chat_template=ensure_template(session.tokenizer(policy.base)),
        config=session.settings.model_dump(mode="json"),
        training=training,
        versions=installed_versions(),
    )
    shutil.copy(work / METRICS, result.path)
    shutil.copytree(work / TENSORBOARD, result.path / TENSORBOARD)
    finish_training(
        result.path,
        target,
        policy.base,
        info,
        model_card(info, data, policy.base.license, not settings.use_lora),
    )
    # Only now, with the policy on the disk, is what it could be made from again given up.
    result.checkpoints.clear()
    shutil.rmtree(work)
    return resolve_policy(str(target))


def check_trainable(policy: Policy, settings: TrainSettings) -> None:
    """Raises InputError where `policy` cannot be trained as `settings` say."""
    if policy.adapter is not None and not settings.use_lora:
        raise InputError(
            f"train.use_lora=false trains all weights of a model; '{policy.name}' is an adapter: "
            "make one model of it and its base with `halo-forge model merge`"
        )


def is_trained(target: Path) -> bool:
    """Whether training has ended with `target`; what a kill left of its work is cleared then."""
    if target.is_dir():
        shutil.rmtree(_work(target), ignore_errors=True)
    return target.is_dir()


def _work(target: Path) -> Path:
    """Where a training that was stopped goes on."""
    return target.with_name(f"{target.name}{TRAINING}")
