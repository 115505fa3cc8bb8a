"""The training loop that each Ray Train worker runs."""

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import ray
import ray.train
import torch
import torch.distributed

from haloforge.errors import HaloforgeError, InfraError, InputError, ResourceError
from haloforge.model.places import Places
from haloforge.train.checkpoint import Checkpoint, Checkpoints, Position
from haloforge.train.examples import Examples
from haloforge.train.loss import rows_stay_apart, token_loss_sum
from haloforge.train.metrics import StepMetrics
from haloforge.train.plan import StepPlan, learning_rate
from haloforge.train.settings import TrainSettings

_VALIDATION_ROWS = 64  # packed together, on each worker


@dataclass(frozen=True)
class TrainJob:
    """All that a worker is told; paths are the driver's, and `places` finds them on its own node.

    `run` is the digest of what decides the weights, by which a run knows its own checkpoints in the
    place `checkpoints`. `examples` and `validation` are object refs to Examples, the
    latter None where nothing is held out. `deepspeed` is the user's own configuration, `progress`
    the actor between workers and driver.
    """

    run: str
    examples: Any
    validation: Any
    base_path: Path
    adapter_path: Path | None
    places: Places
    settings: TrainSettings
    deepspeed: dict[str, Any]
    threads: int
    progress: Any
    checkpoints: str


def train_worker(config: dict[str, TrainJob]) -> None:
    """Train as `config["job"]` says, from the newest checkpoint on; rank 0 hands the trained files
    to `progress`.

    An error that another attempt would only repeat is told to the driver, and the attempt that Ray
    Train makes all the same ends at once. Raises InputError where the loss is not finite,
    ResourceError where memory or disk run out.
    """
    job = config["job"]
    if ray.get(job.progress.is_over.remote()):
        return
    context = ray.train.get_context()
    _output_to_log_file(context.get_world_rank())
    torch.set_num_threads(job.threads)
    if not torch.cuda.is_available():
        os.environ["DS_ACCELERATOR"] = "cpu"  # read when deepspeed is first imported
    try:
        with out_of_memory_named(job.settings):
            _Worker(job, context.get_world_rank(), context.get_world_size()).train()
    except HaloforgeError as error:
        ray.get(job.progress.fail.remote(error))
        raise


class _Worker:
    """One rank of a run. What it decides, all ranks decide alike: their collectives pair up."""

    def __init__(self, job: TrainJob, rank: int, num_workers: int) -> None:
        from haloforge.train.engine import start_engine

        settings = self._settings = job.settings
        self._job, self._rank, self._num_workers = job, rank, num_workers
        self._examples: Examples = ray.get(job.examples)
        self._validation: Examples | None = ray.get(job.validation) if job.validation else None
        self._plan = StepPlan(
            self._examples.lengths(), settings.batch_size, settings.epochs, settings.seed
        )
        adapter = job.adapter_path and job.places.here(job.adapter_path)
        base = job.places.here(job.base_path)
        self._engine = start_engine(base, adapter, settings, job.deepspeed)
        apart = rows_stay_apart(self._engine)
        self._packed = self._summed(float(apart))[0] == num_workers
        self._checkpoints = Checkpoints(job.checkpoints, job.run, settings.save_total_limit)
        self._history: list[dict[str, Any]] = []  # the metrics of all steps, on rank 0
        self._told: Any = None  # the answer to the metrics that were told last

    def train(self) -> None:
        """All steps that are left, then the trained files, but where the run was ended."""
        settings, position = self._settings, self._resume()
        while position.step < self._plan.num_steps:
            if settings.patience and position.worse >= settings.patience:
                break
            metrics = self._step(position.step)
            if metrics is None:
                return
            position = Position(**{**asdict(position), "step": metrics.step})
            eval_loss = self._validate(position.step)
            if eval_loss is not None:
                position = position.after(position.step, eval_loss)
            self._tell(metrics, eval_loss)
            if position.step % settings.save_steps == 0 or position.best_step == position.step:
                self._save(position)
        self._wait_until_told()
        if position.best_step not in (None, position.step):
            self._return_to(position.best_step)
        self._hand_over()

    def _hand_over(self) -> None:
        """The driver gets the trained files, one at a time."""
        from haloforge.train.engine import save_trained

        with TemporaryDirectory() as folder:
            save_trained(self._engine, Path(folder))
            for path in sorted(Path(folder).iterdir()):
                if path.suffix in (".json", ".safetensors"):
                    ray.get(self._job.progress.keep.remote(path.name, path.read_bytes()))

    def _step(self, step: int) -> StepMetrics | None:
        """Optimizer step number `step`, counted from 0; None where the driver has ended the run.

        What is drawn (dropout) follows from the seed, the step and the rank: a run that goes on
        draws what it would have drawn.
        """
        from haloforge.train.engine import optimizer_step

        began, settings, engine = time.perf_counter(), self._settings, self._engine
        seeds = np.random.SeedSequence([settings.seed, step, self._rank])
        torch.manual_seed(int(seeds.generate_state(1)[0]))
        rate = learning_rate(step, self._plan.num_steps, settings)
        num_trained = self._examples.trained_tokens(self._plan.rows(step))
        loss_sum = self._accumulate(step, num_trained)
        over = self._wait_until_told()
        loss, ended = self._summed(loss_sum / num_trained, float(over))
        if ended:
            return None
        _check_finite("loss", loss, step, rate)
        for group in engine.optimizer.param_groups:
            group["lr"] = rate
        norm = optimizer_step(engine)
        _check_finite("gradient", norm, step, rate)
        seconds = time.perf_counter() - began
        return StepMetrics(
            step=step + 1,
            num_steps=self._plan.num_steps,
            loss=loss,
            lr=rate,
            grad_norm=norm,
            trained_tokens=num_trained,
            seconds=seconds,
            tokens_per_s=num_trained / seconds,
            memory_mb=_memory_mb(),
        )

    def _accumulate(self, step: int, num_trained: int) -> float:
        """Gradients of the mean loss over the global batch's `num_trained` tokens; this worker's
        sum of token losses.

        Each micro-batch adds its sum over the global count, so that the result does not depend on
        the split. DeepSpeed averages over workers: their number undoes that.
        """
        from haloforge.train.engine import GradientSums

        engine = self._engine
        total = torch.zeros((), dtype=torch.float64, device=engine.device)
        scale = self._num_workers / num_trained
        micro_batches, sums = self._share(self._plan, step), GradientSums(engine)
        for number, sequences in enumerate(micro_batches, 1):
            last = number == len(micro_batches)
            engine.set_gradient_accumulation_boundary(last)
            loss = token_loss_sum(engine, self._examples, sequences)
            if last:
                sums.put_back()
            engine.backward(loss * scale)
            if not last:
                sums.take()
            total += loss.detach().double()
        return float(total)

    def _share(self, plan: StepPlan, step: int) -> list[list[list[int]]]:
        """This worker's micro-batches of `step`."""
        shared = plan.micro_batches(step, self._num_workers, self._settings, self._packed)
        return shared[self._rank]

    def _validate(self, step: int) -> float | None:
        """Mean loss of the held-out rows' trained tokens, where it is due after `step` steps."""
        examples, plan = self._validation, self._plan
        due = self._settings.eval_steps or plan.steps_per_epoch
        if examples is None or (step % due and step < plan.num_steps):
            return None
        rows = StepPlan(examples.lengths(), _VALIDATION_ROWS * self._num_workers, 1, seed=0)
        self._engine.eval()
        with torch.no_grad():
            loss = sum(
                float(token_loss_sum(self._engine, examples, sequences))
                for part in range(rows.num_steps)
                for sequences in self._share(rows, part)
            )
        self._engine.train()
        return self._summed(loss)[0] / examples.trained_tokens(range(len(examples)))

    def _resume(self) -> Position:
        """Go to where the newest whole checkpoint was written; to the beginning without one."""
        found = self._checkpoints.latest() if self._rank == 0 else None
        position = self._restore(found)
        if self._rank == 0:
            self._history = found.history if found else []
            ray.get(self._job.progress.begin.remote(self._history))
        return position or Position()

    def _return_to(self, step: int | None) -> None:
        """Take the weights back that validation found best."""
        found = self._checkpoints.read(step or 0) if self._rank == 0 else None
        if self._restore(found) is None:
            raise InfraError(f"the checkpoint of step {step}, the best one, is torn or gone")

    def _restore(self, found: Checkpoint | None) -> Position | None:
        """Put what rank 0 has `found` into all ranks; its position."""
        from haloforge.train.state import write_state

        shared: list[Position | None] = [found.position if found else None]
        torch.distributed.broadcast_object_list(shared, 0)
        if shared[0] is not None:
            write_state(self._engine, found.tensors if found else {}, shared[0].step)
        return shared[0]

    def _save(self, position: Position) -> None:
        from haloforge.train.state import read_state

        state = read_state(self._engine)
        if self._rank == 0:
            self._checkpoints.save(position, state, self._history)

    def _tell(self, metrics: StepMetrics, eval_loss: float | None) -> None:
        """Rank 0 tells the driver, and does not wait for it."""
        if self._rank == 0:
            metrics = StepMetrics(**{**asdict(metrics), "eval_loss": eval_loss})
            self._history.append(asdict(metrics))
            self._told = self._job.progress.push.remote(metrics)

    def _wait_until_told(self) -> bool:
        """Whether the driver has ended the run, as rank 0 was answered; fails if it is gone."""
        return bool(self._told is not None and ray.get(self._told))

    def _summed(self, *values: float) -> list[float]:
        """Each value summed over all workers."""
        total = torch.tensor(values, dtype=torch.float64, device=self._engine.device)
        torch.distributed.all_reduce(total)
        return [float(value) for value in total]


def _check_finite(what: str, value: float, step: int, rate: float) -> None:
    if not isfinite(value):
        raise InputError(
            f"step {step + 1}: the {what} is {value}; lower train.learning_rate "
            f"(it was {rate:.3g} at this step)"
        )


def _memory_mb() -> float:
    """See `StepMetrics`."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # in KiB on Linux


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
            f"(now {settings.max_length}), or set train.gradient_checkpointing"
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
