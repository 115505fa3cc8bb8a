"""The same losses and weights whatever the split, and those of plain PyTorch and of Hugging Face's
Trainer on the same batches."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from haloforge.train.examples import Examples, encode_rows
from haloforge.train.model import load_policy
from haloforge.train.plan import StepPlan, learning_rate
from haloforge.train.settings import LoraSettings, TrainSettings
from haloforge.train.trainer import train

# Answers of very different lengths: a mean of means would be far off.
ROWS: list[dict[str, Any]] = [
    {
        "messages": [
            {"role": "user", "content": "say " * (1 + number % 5) + str(number)},
            {"role": "assistant", "content": f"{number} " * (1 + number * number % 23)},
        ]
    }
    for number in range(21)
]
SETTINGS = TrainSettings(
    epochs=2,
    batch_size=8,
    learning_rate=3e-3,
    warmup_ratio=0.2,
    weight_decay=0.1,
    max_grad_norm=0.5,  # every step is clipped
    dtype="fp32",
    lora=LoraSettings(rank=8, dropout=0),
)
STEPS = 6  # 21 rows in batches of 8, twice


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def examples(tiny_model: Path) -> Examples:
    return encode_rows(ROWS, tiny_model, SETTINGS.max_length)[0]


Run = tuple[list[float], dict[str, torch.Tensor]]


def ours(base: Path, output: Path, workers: int, **settings: Any) -> Run:
    """The losses of all steps, and the adapter."""
    from safetensors.torch import load_file

    chosen = SETTINGS.model_copy(update={"workers": workers, **settings})
    result = train(ROWS, base, None, output, chosen, 1 / workers, threads_per_worker=1)
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    weights = load_file(result.path / "adapter_model.safetensors")
    return [line["loss"] for line in lines], weights


@pytest.fixture(scope="module")
def one(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    found = ours(tiny_model, tmp_path_factory.mktemp("one"), workers=1)
    assert len(found[0]) == STEPS
    assert found[0][-1] < 0.9 * found[0][0], "nothing was learned: all would agree"
    return found


def assert_agree(found: Run, expected: Run, rate: float = SETTINGS.learning_rate) -> None:
    assert found[0] == pytest.approx(expected[0], rel=1e-4)
    assert found[1].keys() == expected[1].keys()
    for name, tensor in expected[1].items():
        # Adam's first steps have the size of the rate, whatever the gradient's: where that is next
        # to nothing, rounding decides its sign. This is a twentieth of one step.
        assert (found[1][name] - tensor).abs().max() < 0.05 * rate, name


SPLITS: dict[str, dict[str, Any]] = {
    "accumulation 4 x 2": {"workers": 1, "micro_batch_size": 2},
    "a row at a time": {"workers": 1, "micro_batch_size": 1},
    "two workers": {"workers": 2},
    "two workers, a row at a time": {"workers": 2, "micro_batch_size": 1},
    "ZeRO 1": {"workers": 2, "zero_stage": 1},
    "ZeRO 2": {"workers": 2, "zero_stage": 2},
    "ZeRO 3": {"workers": 2, "zero_stage": 3},
    "ZeRO 2, offloaded": {"workers": 2, "zero_stage": 2, "cpu_offload": True},
    "ZeRO 3, offloaded": {"workers": 1, "zero_stage": 3, "cpu_offload": True},
    "activations computed twice": {"workers": 1, "gradient_checkpointing": True},
}


FAST = ("accumulation 4 x 2", "two workers", "ZeRO 2", "ZeRO 3")


@pytest.mark.parametrize(
    "split",
    [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in SPLITS],
)
def test_the_split_changes_nothing(split: str, one: Run, tiny_model: Path, tmp_path: Path) -> None:
    assert_agree(ours(tiny_model, tmp_path, **SPLITS[split]), one)


def padded(examples: Examples, rows: list[int]) -> dict[str, torch.Tensor]:
    """A batch as everyone else makes it."""
    longest = max(int(examples.length[row]) for row in rows)
    ids = torch.zeros((len(rows), longest), dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for index, row in enumerate(rows):
        tokens, trained = (torch.tensor(array) for array in examples.row(row))
        ids[index, : len(tokens)] = tokens
        mask[index, : len(tokens)] = 1
        labels[index, : len(tokens)] = torch.where(trained, tokens, -100)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def adapter(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    from peft import get_peft_model_state_dict

    return {name: tensor.detach() for name, tensor in get_peft_model_state_dict(model).items()}


def plan_of(examples: Examples) -> StepPlan:
    return StepPlan(examples.lengths(), SETTINGS.batch_size, SETTINGS.epochs, SETTINGS.seed)


def test_plain_pytorch_agrees(one: Run, examples: Examples, tiny_model: Path) -> None:
    model = load_policy(tiny_model, None, SETTINGS).train()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, weight_decay=SETTINGS.weight_decay)
    plan, losses = plan_of(examples), []
    for step in range(plan.num_steps):
        loss = model(**padded(examples, plan.rows(step))).loss  # the mean over trained tokens
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, SETTINGS.max_grad_norm)
        optimizer.param_groups[0]["lr"] = learning_rate(step, plan.num_steps, SETTINGS)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert_agree((losses, adapter(model)), one)


def test_hugging_faces_trainer_agrees(
    one: Run, examples: Examples, tiny_model: Path, tmp_path: Path
) -> None:
    from torch.utils.data import DataLoader
    from transformers import Trainer, TrainingArguments

    plan, losses = plan_of(examples), []
    batches = [padded(examples, plan.rows(step)) for step in range(plan.num_steps)]

    class SameBatches(Trainer):
        def get_train_dataloader(self) -> Any:
            return DataLoader(batches, batch_size=None)

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
            loss = super().compute_loss(model, inputs, *args, **options)
            losses.append(float(loss.detach()))
            return loss

    model = load_policy(tiny_model, None, SETTINGS)
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=plan.num_steps,
        learning_rate=SETTINGS.learning_rate,
        weight_decay=SETTINGS.weight_decay,
        max_grad_norm=SETTINGS.max_grad_norm,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1.0, weight_decay=SETTINGS.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate(min(step, STEPS - 1), STEPS, SETTINGS)
    )
    SameBatches(model=model, args=arguments, optimizers=(optimizer, schedule)).train()
    assert_agree((losses, adapter(model)), one)
