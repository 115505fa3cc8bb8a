"""Supervised fine-tuning: the stage before RAFT."""

from pathlib import Path

from haloforge.config import save_settings
from haloforge.data.sft import common_system, read_sft
from haloforge.model.policy import Policy, resolve_policy
from haloforge.schema import digest
from haloforge.session import Session
from haloforge.store.run import identity_of, open_run
from haloforge.update import update_policy

FINAL = "final_model"


def sft(session: Session, policy: Policy, output: Path, fresh: bool = False) -> Policy:
    """Trains `policy` on the conversations of `sft.data`; `output/final_model` is the adapter.

    A run that has ended is not repeated. Raises InputError where `output` holds another run.
    """
    settings = session.settings
    chosen = settings.sft
    rows = read_sft(
        chosen.data, settings.language, settings.system, chosen.difficulty, chosen.limit
    )
    training = settings.train.model_copy(
        update={
            "epochs": chosen.epochs or settings.train.epochs,
            "learning_rate": chosen.learning_rate or settings.train.learning_rate,
        }
    )
    identity = {
        "what": "sft",
        "data": digest(*rows),
        "policy": policy.digest,
        "train": identity_of(training, {"workers", "micro_batch_size"}),
    }
    open_run(output, identity, fresh)
    save_settings(settings, output)
    target = output / FINAL
    if target.is_dir():
        session.report.say(f"sft: {target} is there already")
        return resolve_policy(str(target))
    return update_policy(
        session,
        policy,
        rows,
        target,
        training,
        stage="sft",
        system=common_system(rows),
        data=f"Supervised fine-tuning on `{Path(chosen.data).name}`.",
    )
