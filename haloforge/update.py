"""One update of a policy: conversations in, an adapter with its provenance and card out."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from haloforge.data.chat import ensure_template
from haloforge.model.adapter import AdapterInfo, finish_adapter, installed_versions
from haloforge.model.card import model_card
from haloforge.model.policy import Policy, resolve_policy
from haloforge.schema import Message
from haloforge.session import Session
from haloforge.train.loop import StepMetrics
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
    cycle: int | None = None,
    system: str | None = None,
    data: str = "",
    facts: dict[str, Any] | None = None,
) -> Policy:
    """Trains `policy` (its adapter goes on, or a new one starts) on `rows`; returns the new policy.

    `target` becomes a PEFT folder when training has ended; before that nothing is there. `data` and
    `facts` say in the model card what it learned from. Raises what `train` raises.
    """
    place = session.placement
    settings = settings.model_copy(update={"workers": place.trainers})
    work = target.with_name(f"{target.name}.training")
    shutil.rmtree(work, ignore_errors=True)
    plan = StepPlan([1] * len(rows), settings.batch_size, settings.epochs, settings.seed)
    title = f"train {stage}" + (f" cycle {cycle}" if cycle else "")
    with session.report.stage(title, plan.num_steps, "steps") as progress:

        def on_step(step: StepMetrics) -> None:
            progress.advance(1, f"loss {step.loss:.3f}", total=step.num_steps)

        result = train(
            [{"messages": list(row)} for row in rows],
            policy.base.path,
            policy.adapter,
            work,
            settings,
            place.cpus_per_trainer,
            place.threads_per_trainer,
            on_step,
            place.gpus_per_trainer,
        )
    training = {
        "rows": len(rows),
        "dropped_rows": result.dropped_rows,
        "steps": result.steps,
        "loss_first": result.loss_first,
        "loss_last": result.loss_last,
        "trained_tokens": result.trained_tokens,
        "seconds": result.seconds,
        **(facts or {}),
    }
    info = AdapterInfo(
        base=policy.base.name,
        base_public_id=policy.base.public_id,
        base_digest=policy.base.digest,
        stage=stage,
        cycle=cycle,
        parent=policy.digest,
        system=system,
        chat_template=ensure_template(session.tokenizer(policy.base)),
        config=session.settings.model_dump(mode="json"),
        training=training,
        versions=installed_versions(),
    )
    shutil.copy(work / "metrics.jsonl", result.adapter_path / "metrics.jsonl")
    finish_adapter(
        result.adapter_path, target, policy.base, info, model_card(info, data, policy.base.license)
    )
    shutil.rmtree(work)
    return resolve_policy(str(target))
