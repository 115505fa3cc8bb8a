"""One training run on Ray Train: rows and a base in, an adapter out."""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train import (
    FailureConfig,
    LoggingConfig,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
    WorkerGroupError,
)
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.callbacks.placement_group_callback import (
    PlacementGroupCleanerCallback,
)
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from haloforge.errors import HaloforgeError, InfraError, ResourceError
from haloforge.train.examples import encode_rows
from haloforge.train.loop import StepMetrics, TrainJob, train_worker
from haloforge.train.settings import TrainSettings

POLL_S = 0.25
START_ATTEMPTS = 10  # of one minute each, Ray Train's own patience for a worker to be placed


@dataclass(frozen=True)
class TrainResult:
    """What a run gave. Losses are of the first and the last step, in nats per trained token."""

    adapter_path: Path
    steps: int
    loss_first: float
    loss_last: float
    trained_tokens: int
    dropped_rows: int
    seconds: float


class _Progress:
    """Holds the steps' metrics between the worker that made them and the driver that asks."""

    def __init__(self) -> None:
        self._steps: list[StepMetrics] = []

    def push(self, metrics: StepMetrics) -> None:
        self._steps.append(metrics)

    def after(self, count: int) -> list[StepMetrics]:
        return self._steps[count:]


class _Trainer(TorchTrainer):
    """TorchTrainer without its detached placement group cleaner.

    The cleaner asks whichever Ray it finds on the machine if its controller lives; where a
    second private Ray starts, it is told no and removes the workers of a healthy run. What it
    guards against, a dead controller, ends the driver's run here, and so frees the workers.
    """

    def _create_default_callbacks(self) -> list[Any]:
        return [
            callback
            for callback in super()._create_default_callbacks()
            if not isinstance(callback, PlacementGroupCleanerCallback)
        ]


def train(
    rows: Sequence[dict[str, Any]],
    base_path: Path,
    adapter_path: Path | None,
    output: Path,
    settings: TrainSettings,
    cpus_per_worker: float,
    threads_per_worker: int,
    on_step: Callable[[StepMetrics], None] | None = None,
    gpus_per_worker: float = 1,
) -> TrainResult:
    """Train a LoRA adapter on `rows` and write it to `output / "adapter"`, whole or not at all.

    `rows` are `{"messages": [...]}`, the last message an assistant's answer, the only one
    trained on. `adapter_path` is continued where given. The caller has initialised Ray;
    `base_path` must exist on every node. `cpus_per_worker` and, where there are GPUs,
    `gpus_per_worker` are what Ray books, `threads_per_worker` what a worker computes with.
    `settings.workers` None is one worker per GPU of the cluster, or one on CPU. `on_step` runs in
    this thread while training goes on; `output / "metrics.jsonl"` gets the same metrics.

    The rows are encoded here, once, and go to the workers as one object, of which every worker
    reads what its seeded plan says: Ray Train's own sharding drops remainders and ties the
    global batch to the number of workers. Metrics come back through an actor and the adapter as
    the workers' result, so only this process writes to `output`: no file system is shared.

    Raises InputError (rows, settings, loss that is not finite), ResourceError (memory, workers
    that do not fit the cluster) and InfraError (a worker died).
    """
    began = time.perf_counter()
    output.mkdir(parents=True, exist_ok=True)
    examples, dropped = encode_rows(rows, base_path, settings.max_length)
    scaling = _scaling(settings, cpus_per_worker, gpus_per_worker)
    progress = ray.remote(num_cpus=0)(_Progress).remote()
    job = TrainJob(
        examples=ray.put(examples),
        base_path=base_path.resolve(),
        adapter_path=adapter_path.resolve() if adapter_path else None,
        settings=settings,
        threads=threads_per_worker,
        progress=progress,
    )
    try:
        with TemporaryDirectory(prefix="haloforge-ray-train-") as storage:
            files, steps = _fit(job, scaling, storage, output / "metrics.jsonl", on_step)
    finally:
        ray.kill(progress)
    final = output / "adapter"
    _write_adapter(files, base_path, final)
    return TrainResult(
        adapter_path=final,
        steps=len(steps),
        loss_first=steps[0].loss,
        loss_last=steps[-1].loss,
        trained_tokens=sum(step.trained_tokens for step in steps),
        dropped_rows=dropped,
        seconds=time.perf_counter() - began,
    )


def _scaling(
    settings: TrainSettings, cpus_per_worker: float, gpus_per_worker: float
) -> ScalingConfig:
    """Workers and what each books. Raises ResourceError for more than the cluster has."""
    cluster = ray.cluster_resources()
    num_gpus = int(cluster.get("GPU", 0))
    num_workers = settings.workers or max(1, num_gpus)
    num_cpus = cluster.get("CPU", 0)
    if num_workers * cpus_per_worker > num_cpus:
        raise ResourceError(
            f"train.workers={num_workers} of {cpus_per_worker:g} CPUs each do not fit the "
            f"cluster's {num_cpus:g} CPUs: lower train.workers"
        )
    if num_gpus and num_workers > num_gpus:
        raise ResourceError(
            f"train.workers={num_workers} do not fit the cluster's {num_gpus} GPUs: "
            "lower train.workers"
        )
    resources: dict[str, float] = {"CPU": cpus_per_worker}
    if num_gpus:
        resources["GPU"] = gpus_per_worker
    return ScalingConfig(
        num_workers=num_workers, use_gpu=num_gpus > 0, resources_per_worker=resources
    )


def _fit(
    job: TrainJob,
    scaling: ScalingConfig,
    storage: str,
    metrics_file: Path,
    on_step: Callable[[StepMetrics], None] | None,
) -> tuple[dict[str, bytes], list[StepMetrics]]:
    """Run the workers; the adapter's files and every step's metrics."""
    # A preempted run fails here and is the caller's to repeat: no watcher is needed.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    trainer = _Trainer(
        train_worker,
        train_loop_config={"job": job},
        scaling_config=scaling,
        torch_config=TorchConfig(backend="nccl" if scaling.use_gpu else "gloo"),
        run_config=RunConfig(
            name="train",
            storage_path=storage,
            failure_config=FailureConfig(
                max_failures=0,
                controller_failure_limit=START_ATTEMPTS,
                max_preemption_failures=0,
            ),
            logging_config=LoggingConfig(log_level="CRITICAL"),
        ),
    )
    outcome: list[Any] = []

    def fit() -> None:
        try:
            outcome.append(trainer.fit().return_value)
        except Exception as error:
            outcome.append(error)

    # In a thread of its own: `fit` would block this one, and in the main thread it would
    # replace the process's handler of SIGINT for good.
    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    thread.start()
    steps: list[StepMetrics] = []
    with metrics_file.open("w", encoding="utf-8") as file:

        def collect() -> None:
            for metrics in ray.get(job.progress.after.remote(len(steps))):
                steps.append(metrics)
                file.write(json.dumps(asdict(metrics)) + "\n")
                file.flush()
                if on_step is not None:
                    on_step(metrics)

        try:
            while thread.is_alive():
                thread.join(POLL_S)
                collect()
            collect()
        except BaseException:
            ray.kill(job.progress)  # the workers' next push fails, and the run ends
            thread.join(30)
            raise
    if isinstance(outcome[0], Exception):
        raise _unwrapped(outcome[0]) from outcome[0]
    return outcome[0], steps


def _unwrapped(error: Exception) -> Exception:
    """The error of ours inside what Ray Train raised, or one line that says what failed."""
    if isinstance(error, WorkerGroupError):
        failures = {
            rank: failure.health_check_failure
            if isinstance(failure, WorkerHealthCheckFailedError)
            else failure
            for rank, failure in sorted(error.worker_failures.items())
        }
        for failure in failures.values():
            if isinstance(failure, HaloforgeError):
                return failure
            if isinstance(failure, OutOfMemoryError):
                return ResourceError(
                    "Ray ended a training worker as its node ran out of memory: lower "
                    "train.micro_batch_size, train.max_length or train.workers"
                )
        rank, failure = next(iter(failures.items()))
        if isinstance(failure, RayActorError):
            return InfraError(f"training worker {rank} died: {_first_line(failure)}")
        return InfraError(
            f"training worker {rank} failed: {type(failure).__name__}: {_first_line(failure)}"
        )
    if isinstance(error, TrainingFailedError) and "startup timed out" in str(error):
        return ResourceError(
            f"the training workers found no free place for {START_ATTEMPTS} minutes: "
            "lower train.workers, or free CPUs or GPUs that others have booked"
        )
    return InfraError(f"training failed: {type(error).__name__}: {_first_line(error)}")


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")


def _write_adapter(files: dict[str, bytes], base_path: Path, final: Path) -> None:
    """Write the adapter beside `final` and rename it there, in place of an older one."""
    from transformers import AutoTokenizer

    folder = Path(mkdtemp(prefix=f".{final.name}-", dir=final.parent))
    try:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        tokenizer = AutoTokenizer.from_pretrained(base_path)
        tokenizer.save_pretrained(folder)
        folder.chmod(0o755)  # mkdtemp's 0o700 would lock others out
        if final.exists():
            older = Path(mkdtemp(prefix=f".{final.name}-old-", dir=final.parent))
            final.rename(older / final.name)
            folder.rename(final)
            shutil.rmtree(older)
        else:
            folder.rename(final)
    except BaseException:
        with suppress(OSError):
            shutil.rmtree(folder)
        raise
