"""The training loop that each Ray Train worker runs."""

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
import torch
import torch.distributed
import torch.nn.functional as F  # noqa: N812

from haloforge.errors import InputError, ResourceError
from haloforge.train.examples import Examples
from haloforge.train.plan import StepPlan, learning_rate
from haloforge.train.settings import TrainSettings

IGNORED = -100


@dataclass(frozen=True)
class StepMetrics:
    """One optimizer step, counted from 1. `loss` is in nats per trained token."""

    step: int
    num_steps: int
    loss: float
    lr: float
    grad_norm: float
    trained_tokens: int
    seconds: float


@dataclass(frozen=True)
class TrainJob:
    """All that a worker is told; paths are valid on the worker's node."""

    examples: Any  # an object ref to Examples
    base_path: Path
    adapter_path: Path | None
    settings: TrainSettings
    threads: int
    progress: Any  # the actor that takes each step's metrics


def train_worker(config: dict[str, TrainJob]) -> dict[str, bytes]:
    """Train as `config["job"]` says; the adapter's files on rank 0.

    Raises InputError where the loss is not finite, ResourceError where memory runs out.
    """
    job = config["job"]
    context = ray.train.get_context()
    _output_to_log_file(context.get_world_rank())
    torch.set_num_threads(job.threads)
    if not torch.cuda.is_available():
        os.environ["DS_ACCELERATOR"] = "cpu"  # read when deepspeed is first imported
    with out_of_memory_named(job.settings):
        return _train(job, context.get_world_rank(), context.get_world_size())


def _train(job: TrainJob, rank: int, num_workers: int) -> dict[str, bytes]:
    from haloforge.train.engine import adapter_files, optimizer_step, start_engine

    settings = job.settings
    examples: Examples = ray.get(job.examples)
    plan = StepPlan(examples.lengths(), settings.batch_size, settings.epochs, settings.seed)
    engine = start_engine(job.base_path, job.adapter_path, settings)
    torch.manual_seed(settings.seed + rank)  # dropout differs between workers
    sent = None
    for step in range(plan.num_steps):
        began = time.perf_counter()
        rate = learning_rate(step, plan.num_steps, settings)
        num_trained = examples.trained_tokens(plan.rows(step))
        micro_batches = plan.micro_batches(step, num_workers, settings.micro_batch_size)[rank]
        loss = _accumulate(engine, examples, micro_batches, num_trained)
        _check_finite("loss", loss, step, rate)
        for group in engine.optimizer.param_groups:
            group["lr"] = rate
        norm = optimizer_step(engine)
        _check_finite("gradient", norm, step, rate)
        if rank == 0:
            if sent is not None:
                ray.get(sent)  # fails once the driver has given the run up
            seconds = time.perf_counter() - began
            metrics = StepMetrics(step + 1, plan.num_steps, loss, rate, norm, num_trained, seconds)
            sent = job.progress.push.remote(metrics)
    if sent is not None:
        ray.get(sent)
    return adapter_files(engine)


def _accumulate(
    engine: Any, examples: Examples, micro_batches: list[list[int]], num_trained: int
) -> float:
    """Gradients of the mean loss over the global batch's `num_trained` tokens, and that loss.

    Each micro-batch adds its sum of token losses over the global count, so that the result
    does not depend on the split. DeepSpeed averages over workers: their number undoes that.
    """
    total = torch.zeros((), dtype=torch.float64, device=engine.device)
    scale = torch.distributed.get_world_size() / num_trained
    for number, rows in enumerate(micro_batches, 1):
        engine.set_gradient_accumulation_boundary(number == len(micro_batches))
        loss = token_loss_sum(engine, examples, rows)
        engine.backward(loss * scale)
        total += loss.detach().double()
    torch.distributed.all_reduce(total)
    return float(total) / num_trained


def token_loss_sum(model: Any, examples: Examples, rows: list[int]) -> torch.Tensor:
    """Cross-entropy in nats, fp32, summed over the trained tokens of `rows`; 0 for no rows.

    Rows are padded on the right, logits are computed only from the first trained token on.
    """
    if not rows:  # the collectives of ZeRO need every worker's forward and backward pass
        idle = torch.zeros((1, 1), dtype=torch.long, device=model.device)
        return model(input_ids=idle).logits.float().sum() * 0.0
    longest = max(len(examples.row(row)) for row in rows)
    input_ids_BT = np.zeros((len(rows), longest), np.int64)  # noqa: N806
    mask_BT = np.zeros_like(input_ids_BT)  # noqa: N806
    labels_BT = np.full_like(input_ids_BT, IGNORED)  # noqa: N806
    for index, row in enumerate(rows):
        tokens, num_prompt = examples.row(row), int(examples.num_prompt[row])
        input_ids_BT[index, : len(tokens)] = tokens
        mask_BT[index, : len(tokens)] = 1
        labels_BT[index, num_prompt : len(tokens)] = tokens[num_prompt:]
    first = min(int(examples.num_prompt[row]) for row in rows)
    predicting = torch.arange(first - 1, longest - 1, device=model.device)
    logits = model(
        input_ids=torch.from_numpy(input_ids_BT).to(model.device),
        attention_mask=torch.from_numpy(mask_BT).to(model.device),
        logits_to_keep=predicting,
    ).logits
    targets = torch.from_numpy(labels_BT[:, first:]).to(model.device)
    return F.cross_entropy(
        logits.float().flatten(0, 1),
        targets.flatten(),
        ignore_index=IGNORED,
        reduction="sum",
    )


def _check_finite(what: str, value: float, step: int, rate: float) -> None:
    if not math.isfinite(value):
        raise InputError(
            f"step {step + 1}: the {what} is {value}; lower train.learning_rate "
            f"(it was {rate:.3g} at this step)"
        )


@contextmanager
def out_of_memory_named(settings: TrainSettings) -> Iterator[None]:
    """Turn torch's out-of-memory errors into a ResourceError that names what to lower."""
    try:
        yield
    except RuntimeError as error:
        # The CPU's allocator has no class of its own for it.
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise ResourceError(
            "training ran out of memory: lower train.micro_batch_size "
            f"(now {settings.micro_batch_size or 'auto'}) or train.max_length "
            f"(now {settings.max_length})"
        ) from error


def _output_to_log_file(rank: int) -> None:
    """Send what the libraries print to a file in Ray's log folder, not to the user's terminal."""
    logs = Path(ray._private.worker.global_worker.node.get_logs_dir_path())
    file = os.open(
        logs / f"haloforge-train-{os.getpid()}-rank{rank}.log",
        os.O_WRONLY | os.O_CREAT | os.O_APPEND,
        0o644,
    )
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
