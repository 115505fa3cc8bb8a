"""A training run as text, before it starts: its numbers, and one batch as the model will see it."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from haloforge.train.estimate import Estimate
from haloforge.train.examples import Examples
from haloforge.train.plan import StepPlan
from haloforge.train.settings import TrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_OPEN, _CLOSE = "⟦", "⟧"


def estimate_text(estimate: Estimate, settings: TrainSettings) -> str:
    """What `sft train --dry-run` prints."""
    share = estimate.trained_parameters / estimate.parameters
    largest = sorted(estimate.memory.items(), key=lambda part: -part[1])
    parts = ", ".join(f"{name} {size:,.0f}" for name, size in largest if size >= 0.5)
    return "\n".join(
        [
            f"rows           {estimate.rows:,} ({estimate.dropped:,} more have no answer token "
            f"within train.max_length={settings.max_length})",
            f"steps          {estimate.steps:,} of {settings.batch_size} rows, "
            f"{settings.epochs:g} epochs",
            f"tokens         {estimate.tokens:,} an epoch, {estimate.trained_tokens:,} of them "
            f"trained on; {1 - estimate.filled:.1%} padding beside them",
            f"parameters     {estimate.parameters:,}, of which {estimate.trained_parameters:,} "
            f"train ({share:.2%})",
            f"workers        {estimate.workers}, ZeRO stage {settings.zero_stage}",
            f"memory         about {estimate.memory_mb:,.0f} MiB a worker, beside what the "
            f"libraries take: {parts}",
        ]
    )


def batch_text(
    examples: Examples,
    tokenizer: "PreTrainedTokenizerBase",
    settings: TrainSettings,
    workers: int,
) -> str:
    """The rows of the first step, packed as they train, with the trained tokens in brackets."""
    plan = StepPlan(examples.lengths(), settings.batch_size, settings.epochs, settings.seed)
    lines: list[str] = []
    for worker, batches in enumerate(plan.micro_batches(0, workers, settings)):
        for number, sequences in enumerate(filter(None, batches)):
            for place, rows in enumerate(sequences):
                tokens = sum(int(examples.length[row]) for row in rows)
                where = f"worker {worker}, micro-batch {number}, sequence {place}"
                lines.append(f"--- {where}: rows {', '.join(map(str, rows))}, {tokens} tokens")
                for row in rows:
                    lines.append(_marked(*examples.row(row), tokenizer))
    total = examples.trained_tokens(plan.rows(0))
    lines.append(f"--- {total} tokens are trained on, those in {_OPEN} {_CLOSE}")
    return "\n".join(lines)


def _marked(
    ids: npt.NDArray[np.int32], trained: npt.NDArray[np.bool_], tokenizer: "PreTrainedTokenizerBase"
) -> str:
    """A row's text, what is trained on in brackets."""
    pieces = np.split(np.arange(len(ids)), np.flatnonzero(np.diff(trained)) + 1)
    return "".join(
        f"{_OPEN}{tokenizer.decode(ids[piece])}{_CLOSE}"
        if trained[piece[0]]
        else str(tokenizer.decode(ids[piece]))
        for piece in pieces
    )
