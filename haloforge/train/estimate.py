"""What a training run will take, told before it starts."""

from dataclasses import dataclass
from pathlib import Path

from transformers import AutoConfig

from haloforge.train.examples import Examples
from haloforge.train.model import ModelSize, model_size
from haloforge.train.plan import StepPlan
from haloforge.train.settings import TrainSettings

# Bytes that a layer keeps of a token for its backward pass, in bf16, where attention keeps no
# matrix (Korthikanti et al. 2022, section 4.1): 18 of each hidden value and, as the MLP is gated,
# four times 2 of each value inside it. LoRA's dropout keeps a copy and a mask of what goes into
# each of seven linear layers. With checkpointing a layer keeps its input.
_HIDDEN_BYTES, _INSIDE_BYTES, _CHECKPOINT_BYTES = 18, 8, 2
_DROPOUT_HIDDEN_BYTES, _DROPOUT_INSIDE_BYTES = 18, 2
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
    size = model_size(AutoConfig.from_pretrained(base_path), adapter_path, settings)
    memory = trainer_memory(size, settings, workers, largest, predicted)
    return Estimate(
        rows=len(examples),
        dropped=dropped,
        steps=plan.num_steps,
        tokens=sum(examples.lengths()),
        trained_tokens=examples.trained_tokens(range(len(examples))),
        filled=filled,
        parameters=size.parameters,
        trained_parameters=size.trained,
        workers=workers,
        memory={name: size / 2**20 for name, size in memory.items()},
    )


def trainer_memory(
    size: ModelSize, settings: TrainSettings, workers: int, tokens: int, predicted: int
) -> dict[str, float]:
    """Bytes that each of `workers` takes, by what for, at a micro-batch of `tokens` tokens that
    predicts `predicted`; an estimate, without what libraries take.

    Weights, gradients and optimizer states, and what a stage of ZeRO shares out of them, as
    Rajbhandari et al. 2020 (section 3.1) count them; activations as Korthikanti et al. 2022.
    """
    width = 2 if settings.dtype == "bf16" else 4
    share = dict.fromkeys(range(1, settings.zero_stage + 1), 1 / workers)
    master = 4 if settings.dtype == "bf16" else 0
    layer = _HIDDEN_BYTES * size.hidden + _INSIDE_BYTES * size.intermediate
    if settings.use_lora and settings.lora.dropout:
        layer += _DROPOUT_HIDDEN_BYTES * size.hidden + _DROPOUT_INSIDE_BYTES * size.intermediate
    kept = layer * size.layers
    if settings.gradient_checkpointing:  # one layer at a time is computed again
        kept = _CHECKPOINT_BYTES * size.hidden * size.layers + layer
    frozen: float = (size.parameters - size.trained) * width
    if settings.load_in_4bit:  # PEFT makes what is left of it fp32
        frozen = (size.parameters - size.trained - size.embeddings) / 2 + size.embeddings * 4
    return {
        "frozen weights": frozen * share.get(3, 1),
        "trained weights": size.trained * width * share.get(3, 1),
        "gradients": size.trained * 4 * share.get(2, 1),
        "optimizer": size.trained * (master + 8) * share.get(1, 1),
        "activations": tokens * kept * width / 2,
        "logits": predicted * size.vocabulary * _LOGIT_BYTES,
    }


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
