"""One training run on Ray Train: rows and a base in, an adapter or a model out."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any
from uuid import uuid4

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError
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

from haloforge.data.chat import ensure_template
from haloforge.errors import HaloforgeError, InfraError, ResourceError
from haloforge.model.bases import files_digest
from haloforge.model.places import HERE, Places
from haloforge.model.precision import cpu_has_bf16
from haloforge.schema import digest
from haloforge.store.remote import checkpoints_of
from haloforge.store.run import identity_of, write_atomic
from haloforge.train.checkpoint import Checkpoints
from haloforge.train.deepspeed_config import adamw_options, read_deepspeed
from haloforge.train.examples import Examples, encode_rows
from haloforge.train.loop import TrainJob, train_worker
from haloforge.train.metrics import MetricsLog, StepMetrics
from haloforge.train.plan import StepPlan, warmup_steps
from haloforge.train.progress import start_progress
from haloforge.train.settings import NOT_LEARNED, TrainSettings
from haloforge.train.sittings import Sittings

POLL_S = 0.25
START_ATTEMPTS = 10  # of one minute each, Ray Train's own patience for a worker to be placed


@dataclass(frozen=True)
class TrainResult:
    """What a run gave. Losses are of the first and the last step, in nats per trained token.

    `best_step` is the step whose weights the adapter has, and `eval_loss` their loss on the
    held-out rows; both None where there are none. `restarts` counts workers' new beginnings; they
    and `seconds` are of all sittings that the run took. `checkpoints` are the run's, for the caller
    to clear once it has put `path` in its place.
    """

    path: Path
    checkpoints: Checkpoints
    steps: int
    loss_first: float
    loss_last: float
    trained_tokens: int
    dropped_rows: int
    seconds: float
    best_step: int | None = None
    eval_loss: float | None = None
    restarts: int = 0


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
    rows: Iterable[dict[str, Any]],
    base_path: Path,
    adapter_path: Path | None,
    output: Path,
    settings: TrainSettings,
    cpus_per_worker: float,
    threads_per_worker: int,
    on_step: Callable[[StepMetrics], None] | None = None,
    on_restart: Callable[[], None] | None = None,
    gpus_per_worker: float = 1,
    validation: Sequence[dict[str, Any]] = (),
    steering: Mapping[str, float] | None = None,
    places: Places = HERE,
) -> TrainResult:
    """Train on `rows` and write an adapter (without `settings.use_lora` the model) to
    `output / "trained"`, whole or not at all.

    `rows` are `{"messages": [...]}`, the last message an assistant's answer (see `encode_example`
    for what is trained on); `validation` are more of them, held out. `adapter_path` is continued
    where given.

    The caller has initialised Ray; `base_path` and `adapter_path` are this machine's, and `places`
    says where nodes that have no such path have them from. `cpus_per_worker` and, where there are
    GPUs, `gpus_per_worker` are what Ray books, and `steering` of custom resources;
    `threads_per_worker` is what a worker computes with. `settings.workers` None is one worker per
    GPU of the cluster, or one on CPU.

    Called again with the same arguments after it was stopped, in whatever way, it goes on from its
    last checkpoint, with any number of workers. `on_step` runs in this thread while training goes
    on, once a step, those before the checkpoint included, `on_restart` where workers that died
    begin anew; `output` gets the same metrics (see
    `MetricsLog`).

    Tasks of Ray Data encode the rows, and every worker reads those of their blocks that its seeded
    plan lists: Ray Train's own sharding drops remainders, cannot begin in the middle, and ties the
    global batch to the number of workers. Metrics and what was trained come back through an actor;
    rank 0 writes checkpoints, and only where workers may move to other nodes does their place have
    to be shared.

    Raises InputError (rows, settings, loss that is not finite), ResourceError (memory, disk,
    workers that do not fit the cluster) and InfraError (workers died too often, or a process did
    that no other stands in for).
    """
    began = time.perf_counter()
    output.mkdir(parents=True, exist_ok=True)
    # Before they train, workers' CPUs are free to encode.
    shape = base_path, settings.max_length, min(1, cpus_per_worker)
    examples, dropped = encode_rows(rows, *shape, places=places)
    held_out = None
    if validation:
        held_out, _ = encode_rows(validation, *shape, "validate", places)
    plan = StepPlan(examples.lengths(), settings.batch_size, settings.epochs, settings.seed)
    warmup_steps(plan.num_steps, settings)  # may be refused, so before workers start
    scaling = _scaling(settings, cpus_per_worker, gpus_per_worker, steering)
    settings = settings.on(gpu=scaling.use_gpu)
    if not scaling.use_gpu and not cpu_has_bf16():
        settings = settings.model_copy(update={"dtype": "fp32"})
    own_config = read_deepspeed(settings.deepspeed) if settings.deepspeed else {}
    run = _run_digest(output, examples, held_out, base_path, adapter_path, settings, own_config)
    place = settings.checkpoints or checkpoints_of(output) or str(output / "checkpoints")
    if "://" not in place:
        place = str(Path(place).expanduser().resolve())
    sittings = Sittings(output / "sittings.json", run, began)
    stored = Checkpoints(place, run, settings.save_total_limit)
    try:
        stored.steps()
    except OSError as error:
        raise ResourceError(f"train.checkpoints={place}: {error}") from None
    final = output / "trained"
    made = Path(mkdtemp(prefix=f".{final.name}-", dir=output))
    job = TrainJob(
        run=run,
        examples=ray.put(examples),
        validation=ray.put(held_out) if held_out else None,
        base_path=base_path.absolute(),
        adapter_path=adapter_path.absolute() if adapter_path else None,
        places=places,
        settings=settings,
        deepspeed=own_config,
        threads=threads_per_worker,
        progress=start_progress(made.resolve()),
        checkpoints=place,
    )
    try:
        with (
            TemporaryDirectory(prefix="haloforge-ray-train-") as storage,
            closing(MetricsLog(output)) as log,
        ):
            _fit(job, scaling, storage, log, sittings, on_step, on_restart)
        _finish(made, base_path, final)
    finally:
        sittings.keep()
        ray.kill(job.progress)
        shutil.rmtree(made, ignore_errors=True)
    judged = [step for step in log.steps if step.eval_loss is not None]
    best = min(judged, key=lambda step: step.eval_loss or 0.0, default=None)
    return TrainResult(
        path=final,
        checkpoints=stored,
        steps=len(log.steps),
        loss_first=log.steps[0].loss,
        loss_last=log.steps[-1].loss,
        trained_tokens=sum(step.trained_tokens for step in log.steps),
        dropped_rows=dropped,
        seconds=sittings.seconds,
        best_step=best.step if best else None,
        eval_loss=best.eval_loss if best else None,
        restarts=sittings.restarts,
    )


def _run_digest(
    output: Path,
    examples: Examples,
    held_out: Examples | None,
    base_path: Path,
    adapter_path: Path | None,
    settings: TrainSettings,
    own_config: Mapping[str, Any],
) -> str:
    """Of all that decides the weights: a checkpoint of anything else is not gone on from. One of
    another `output` neither, which may share the place of checkpoints."""
    own = output / "run.id"
    if not own.is_file():
        write_atomic(own, uuid4().hex)
    return digest(
        own.read_text(),
        examples.digest,
        held_out and held_out.digest,
        files_digest(base_path),
        adapter_path and files_digest(adapter_path),
        identity_of(settings, NOT_LEARNED),
        adamw_options(own_config),
    )


def _scaling(
    settings: TrainSettings,
    cpus_per_worker: float,
    gpus_per_worker: float,
    steering: Mapping[str, float] | None = None,
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
    resources: dict[str, float] = {"CPU": cpus_per_worker, **(steering or {})}
    if num_gpus:
        resources["GPU"] = gpus_per_worker
    return ScalingConfig(
        num_workers=num_workers, use_gpu=num_gpus > 0, resources_per_worker=resources
    )


def _fit(
    job: TrainJob,
    scaling: ScalingConfig,
    storage: str,
    log: MetricsLog,
    sittings: Sittings,
    on_step: Callable[[StepMetrics], None] | None,
    on_restart: Callable[[], None] | None = None,
) -> None:
    """Run the workers until the last step."""
    # Workers that a preemption ends are started again as after any other end: no watcher is needed.
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
                max_failures=job.settings.max_restarts,
                controller_failure_limit=START_ATTEMPTS,
                max_preemption_failures=job.settings.max_restarts,
            ),
            logging_config=LoggingConfig(log_level="CRITICAL"),
        ),
    )
    outcome: list[Exception] = []

    def fit() -> None:
        try:
            trainer.fit()
        except Exception as error:
            outcome.append(error)

    # In a thread of its own: `fit` would block this one, and in the main thread it would
    # replace the process's handler of SIGINT for good.
    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    thread.start()
    begun, furthest = False, 0

    def collect() -> None:
        nonlocal begun, furthest
        for event in _told(job.progress.take.remote()):
            if isinstance(event, StepMetrics):
                log.add(event)
            else:
                if begun:
                    sittings.restarted()
                    if on_restart is not None:
                        on_restart()
                begun = True
                log.begin(event)
            for metrics in log.steps[furthest:]:
                furthest += 1
                if on_step is not None:
                    on_step(metrics)

    try:
        while thread.is_alive():
            thread.join(POLL_S)
            collect()
            sittings.go_on()
        collect()
    except BaseException:
        job.progress.end.remote()
        thread.join(30)
        raise
    if (error := _told(job.progress.error.remote())) is not None:
        raise error
    if outcome:
        raise _unwrapped(outcome[0]) from outcome[0]


def _told(reply: Any) -> Any:
    """What `Progress` replies. Raises InfraError where it died, and with it what it was told."""
    try:
        return ray.get(reply)
    except RayError as error:
        raise InfraError(
            f"the process that training tells its steps to was lost ({type(error).__name__}); the "
            "same command goes on from the last checkpoint"
        ) from error


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


def _finish(made: Path, base_path: Path, final: Path) -> None:
    """Give what was trained its tokenizer, and rename it to `final`, in place of an older one."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base_path)
    ensure_template(tokenizer)
    tokenizer.save_pretrained(made)
    made.chmod(0o755)  # mkdtemp's 0o700 would lock others out
    if final.exists():
        older = Path(mkdtemp(prefix=f".{final.name}-old-", dir=final.parent))
        final.rename(older / final.name)
        made.rename(final)
        shutil.rmtree(older)
    else:
        made.rename(final)
