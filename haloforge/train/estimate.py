"""What a training run will take, told before it starts."""

from dataclasses import dataclass
from pathlib import Path

from haloforge.train.examples import Examples
from haloforge.train.model import model_size
from haloforge.train.plan import StepPlan
from haloforge.train.settings import TrainSettings

# Bytes that a layer keeps of each hidden value of each token for its backward pass, in bf16, where
# attention keeps no matrix (Korthikanti et al. 2022, section 4.1); with checkpointing its input.
_ACTIVATION_BYTES, _CHECKPOINT_BYTES = 34, 2
_LOGIT_BYTES = 2 + 4 + 4  # a logit, its fp32 copy, and that one's gradient


@dataclass(frozen=True)
class Estimate:
    """A run in numbers. `tokens` and `trained_tokens` are those of one epoch, `filled` the share of
    computed tokens that are no padding. Memory is per worker, in MiB; `memory` says for what."""

    rows: int
    dropped: int
    steps: int
    tokens: int
    trained_tokens: int
    filled: float
    parameters: int
    trained_parameters: int
    workers: int
    memory: dict[str, float]

    @property
    def memory_mb(self) -> float:
        """In all."""
        return sum(self.memory.values())


def estimate(
    examples: Examples,
    dropped: int,
    base_path: Path,
    adapter_path: Path | None,
    settings: TrainSettings,
    workers: int,
) -> Estimate:
    """Counted: rows, steps, tokens, parameters. Estimated: memory, without what libraries take."""
    plan = StepPlan(examples.lengths(), settings.batch_size, settings.epochs, settings.seed)
    filled, largest, predicted = _largest_micro_batch(examples, plan, settings, workers)
    parameters, trained, hidden, vocabulary = model_size(base_path, adapter_path, settings)
    width = 2 if settings.dtype == "bf16" else 4
    share = dict.fromkeys(range(1, settings.zero_stage + 1), 1 / workers)
    frozen = 0.5 if settings.load_in_4bit else width
    master = 4 if settings.dtype == "bf16" else 0
    kept = _CHECKPOINT_BYTES if settings.gradient_checkpointing else _ACTIVATION_BYTES
    memory = {
        "frozen weights": (parameters - trained) * frozen * share.get(3, 1),
        "trained weights": trained * width * share.get(3, 1),
        "gradients": trained * 4 * share.get(2, 1),
        "optimizer": trained * (master + 8) * share.get(1, 1),
        "activations": largest * hidden * kept * width / 2,
        "logits": predicted * vocabulary * _LOGIT_BYTES,
    }
    return Estimate(
        rows=len(examples),
        dropped=dropped,
        steps=plan.num_steps,
        tokens=sum(examples.lengths()),
        trained_tokens=examples.trained_tokens(range(len(examples))),
        filled=filled,
        parameters=parameters,
        trained_parameters=trained,
        workers=workers,
        memory={name: size / 2**20 for name, size in memory.items()},
    )


def _largest_micro_batch(
    examples: Examples, plan: StepPlan, settings: TrainSettings, workers: int
) -> tuple[float, int, int]:
    """The share of computed tokens that are no padding; of the largest micro-batch its tokens, and
    those that it predicts from. Of the first steps: they are a random sample."""
    computed = real = largest = predicted = 0
    for step in range(min(plan.num_steps, 100)):
        for worker in plan.micro_batches(step, workers, settings):
            for sequences in filter(None, worker):
                lengths = [sum(int(examples.length[r]) for r in rows) for rows in sequences]
                size = len(sequences) * max(lengths)
                computed += size
                real += sum(lengths)
                largest = max(largest, size)
                trained = examples.trained_tokens([row for rows in sequences for row in rows])
                predicted = max(predicted, trained)
    return real / computed, largest, predicted
