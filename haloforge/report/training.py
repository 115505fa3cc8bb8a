"""A training run as text, before it starts: its numbers, and one batch as the model will see it."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from haloforge.train.estimate import Estimate
from haloforge.train.plan import StepPlan
from haloforge.train.settings import TrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from haloforge.sft import Preview

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


@dataclass(frozen=True)
class Packed:
    """Rows that train as one sequence, with the runs of their text that are trained on or not."""

    worker: int
    micro_batch: int
    sequence: int
    tokens: int
    rows: dict[int, list[tuple[str, bool]]]


def first_batch(seen: "Preview") -> Iterator[Packed]:
    """The rows of the first step, packed as they train."""
    examples, settings = seen.examples, seen.training
    plan = StepPlan(examples.lengths(), settings.batch_size, settings.epochs, settings.seed)
    for worker, batches in enumerate(plan.micro_batches(0, seen.workers, settings)):
        for number, sequences in enumerate(filter(None, batches)):
            for place, rows in enumerate(sequences):
                tokens = sum(int(examples.length[row]) for row in rows)
                read = {int(row): _pieces(*examples.row(row), seen.tokenizer) for row in rows}
                yield Packed(worker, number, place, tokens, read)


def preview_text(seen: "Preview") -> str:
    """What `sft train --show-batch` and `--dry-run` print."""
    told = [batch_text(seen)] if seen.tokenizer is not None else []
    told += [estimate_text(seen.estimate, seen.training)] if seen.estimate else []
    return "\n".join(told)


def preview_tree(seen: "Preview") -> dict[str, Any]:
    """The same as plain values; what was not asked for is null. Memory is in MiB a worker."""
    batch = estimate = None
    if seen.tokenizer is not None:
        batch = {
            "trained_tokens": _trained_tokens(seen),
            "sequences": [
                {
                    **{n: getattr(packed, n) for n in ("worker", "micro_batch", "sequence")},
                    "tokens": packed.tokens,
                    "rows": [
                        {
                            "row": row,
                            "pieces": [{"text": text, "trained": on} for text, on in pieces],
                        }
                        for row, pieces in packed.rows.items()
                    ],
                }
                for packed in first_batch(seen)
            ],
        }
    if seen.estimate is not None:
        estimate = {
            **asdict(seen.estimate),
            "memory_mb": seen.estimate.memory_mb,
            "batch_size": seen.training.batch_size,
            "epochs": seen.training.epochs,
            "max_length": seen.training.max_length,
            "zero_stage": seen.training.zero_stage,
        }
    return {"estimate": estimate, "batch": batch}


def batch_text(seen: "Preview") -> str:
    """The first batch with the trained tokens in brackets."""
    lines: list[str] = []
    for packed in first_batch(seen):
        where = f"worker {packed.worker}, micro-batch {packed.micro_batch}"
        rows = ", ".join(map(str, packed.rows))
        lines.append(
            f"--- {where}, sequence {packed.sequence}: rows {rows}, {packed.tokens} tokens"
        )
        for pieces in packed.rows.values():
            marked = (f"{_OPEN}{text}{_CLOSE}" if on else text for text, on in pieces)
            lines.append("".join(marked))
    lines.append(f"--- {_trained_tokens(seen)} tokens are trained on, those in {_OPEN} {_CLOSE}")
    return "\n".join(lines)


def _trained_tokens(seen: "Preview") -> int:
    settings = seen.training
    lengths = seen.examples.lengths()
    plan = StepPlan(lengths, settings.batch_size, settings.epochs, settings.seed)
    return int(seen.examples.trained_tokens(plan.rows(0)))


def _pieces(
    ids: npt.NDArray[np.int32],
    trained: npt.NDArray[np.bool_],
    tokenizer: "PreTrainedTokenizerBase | None",
) -> list[tuple[str, bool]]:
    """A row's text in runs, and whether each is trained on."""
    assert tokenizer is not None
    runs = np.split(np.arange(len(ids)), np.flatnonzero(np.diff(trained)) + 1)
    return [(str(tokenizer.decode(ids[run])), bool(trained[run[0]])) for run in runs]
