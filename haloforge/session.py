"""One run's hold on Ray: connection, placement, and engines that start once, when first needed."""

import logging
import os
import signal
import socket
import subprocess
import threading
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

import ray
from ray.data import DataContext
from ray.data._internal.execution.streaming_executor import StreamingExecutor

from haloforge.config import Settings
from haloforge.data.chat import end_of_turn_ids
from haloforge.errors import InputError, ResourceError
from haloforge.model.bases import Base, default_base, same_form
from haloforge.model.policy import Policy, resolve_policy
from haloforge.nodes import Nodes
from haloforge.observe.observer import Observer
from haloforge.placement import Fleet, Part, Placement
from haloforge.reaper import start_reaper
from haloforge.report.progress import Report
from haloforge.report.quiet import cluster_errors_to_stderr, loggers_to_files, native_stderr_to
from haloforge.rollout.engine import computed_dtype
from haloforge.rollout.pool import EnginePool

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CONNECT_S = 10.0
_logs: list[Path] = []


class Session:
    """Ray for the length of a `with` block; what it started is gone when the block ends.

    Stages share it, so that a whole pipeline pays one engine start. `seconds_starting` is what
    those starts took, `engine_starts` how many there were; `private` says that no other has this
    Ray.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.report = Report()
        self.observer = Observer(settings.observe, self.report)
        self.private = False
        self.engine_starts = 0
        self.seconds_starting = 0.0
        self._nodes = Nodes(settings, self.report)
        self._pool: EnginePool | None = None
        self._pool_base: Base | None = None
        self._closing = ExitStack()
        self._tokenizers: dict[str, PreTrainedTokenizerBase] = {}
        self._with_template: dict[str, bool] = {}
        self._placement: Placement | None = None
        self._fitting: set[tuple[str, Part]] = set()

    def __enter__(self) -> Self:
        self.private = _connect(self.settings, self.report)
        if self.private:
            self._closing.callback(_dismiss, start_reaper(_ray_processes()))
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _stop)  # Ray has put its own handler there
        self._closing.enter_context(native_stderr_to(_log_folder() / "haloforge.err"))
        self._closing.enter_context(self.report.open())
        self._closing.callback(ray.shutdown)
        self._closing.callback(self._nodes.release)
        if self.settings.ray.same_versions and not self.private:
            try:
                self._nodes.compare_versions()
            except BaseException:
                self._closing.close()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if trace is not None:
            # Streams that the error left half read end now: later they would ask Ray once more,
            # which would then join whatever other cluster it finds.
            traceback.clear_frames(trace)
        self.observer.engines(None)
        try:
            if self._pool is not None:
                self._pool.stop()
        except BaseException as fault:
            error = error or fault
            raise
        finally:
            try:
                self.observer.close(error)  # while Ray is there, which takes the last metrics
            finally:
                self._closing.close()

    @property
    def placement(self) -> Placement:
        """How this run's parts share what Ray has. Raises ResourceError where it has too little."""
        if self._placement is None:
            self._placement = self._nodes.placement()
        return self._placement

    @property
    def fleet(self) -> Fleet:
        """The verifiers that this run may start.

        Raises ResourceError where no node may verify.
        """
        return self._nodes.fleet()

    def room_for_replicas(self, policies: Sequence[Policy]) -> Placement:
        """Who gets what where these `policies`, of as many bases, are served and nothing trains.
        Raises ResourceError, with the numbers, where it does not fit."""
        placement = self._nodes.room_for_replicas(len(policies))
        if self.settings.ray.check_memory:
            own = replace(placement, engines=max(1, placement.engines // len(policies)))
            for policy in policies:
                self._nodes.check_memory(own, policy, ["engines"])
        return placement

    def check_memory(self, policy: Policy, *parts: Part) -> None:
        """Raises ResourceError, with the numbers, where one of the `parts` that `policy` has does
        not fit the memory of the nodes."""
        known = policy.base.digest
        left = [part for part in parts if (known, part) not in self._fitting]
        if left and self.settings.ray.check_memory:
            self._nodes.check_memory(self.placement, policy, left)
            self._fitting.update((known, part) for part in left)

    def room_for_trainers(self) -> Placement:
        """The placement, once the nodes that are there have room for its trainers."""
        self._nodes.room_for_trainers(self.placement)
        return self.placement

    def policy(self, name: str | None) -> Policy:
        """The policy called `name`; None is the base of the settings or the default one."""
        name = name or self.settings.model
        if name is None:
            name, why = default_base(self._nodes.gpus())
            self.report.say(why)
        return resolve_policy(name)

    def tokenizer(self, base: Base) -> "PreTrainedTokenizerBase":
        """The tokenizer of `base`, loaded once."""
        if base.digest not in self._tokenizers:
            from transformers import AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(base.path)
            self._tokenizers[base.digest] = tokenizer
            self._with_template[base.digest] = bool(tokenizer.chat_template)
        return self._tokenizers[base.digest]

    def chats_with(self, policy: Policy) -> bool:
        """Whether `policy` is meant to be asked in turns of a conversation: an adapter is, and so
        is a base whose tokenizer came with a chat template of its own."""
        self.tokenizer(policy.base)
        return policy.adapter is not None or self._with_template[policy.base.digest]

    def engines(self, policy: Policy) -> EnginePool:
        """The engines, started on `policy`'s base where they are not, ready to sample from it."""
        if self._pool is not None and not self._fits(policy.base):
            self.report.say(f"engines: {policy.name} has another base, so they are started anew")
            self.observer.engines(None)
            self._pool.stop()
            self._pool = None
        if self._pool is None:
            self._pool = self._start_engines(policy)
        engines = len(self._pool.engines)
        seconds = self._pool.set_policy(policy)
        if lost := engines - len(self._pool.engines):
            self.report.say(
                f"engines: {lost} of {engines} died and are restarted no more; the others go on"
            )
        self.observer.engines(self._pool)
        if seconds:
            self.report.say(f"engines: took {policy.name} in {seconds:.1f} s, without a restart")
        return self._pool

    def _fits(self, base: Base) -> bool:
        """Whether the engines that run take `base` in place: it is theirs, or one of the same form,
        as a model that was trained whole is, and they read whole weights."""
        started_on = self._pool_base
        if started_on is None or started_on.digest == base.digest:
            return started_on is not None
        return (
            self.settings.rollout.policy_swap != "lora"
            and same_form(started_on, base)
            and end_of_turn_ids(self.tokenizer(started_on)) == end_of_turn_ids(self.tokenizer(base))
        )

    def first_token_at(self, policy: Policy) -> float | None:
        """When the first token by `policy` was written, in Unix seconds, if these engines did."""
        return self._pool.first_token_at(policy) if self._pool is not None else None

    def rest_engines(self) -> None:
        """Where engines share GPUs with trainers, they sleep until they are next used."""
        if self._pool is not None and self.placement.engines_sleep:
            self._pool.sleep()

    def _start_engines(self, policy: Policy) -> EnginePool:
        place, base = self.placement, policy.base
        self.check_memory(policy, "engines")
        self.report.say(f"engines: starting {place.engines} on {base.name} (up to two minutes) ...")
        pool = EnginePool.start(
            base,
            self.settings.rollout,
            end_of_turn_ids(self.tokenizer(base)),
            place,
            max(self.settings.train.lora.rank, policy.lora_rank),
        )
        asked = self.settings.rollout.dtype
        if computed_dtype(asked, on_cpu=not place.gpus_per_engine) != asked:
            self.report.say(
                f"engines: this CPU has no instructions for {asked}, so they compute in float32"
            )
        if pool.kind == "transformers" and self.settings.rollout.engine == "auto":
            self.report.say(
                "engines: vLLM is not installed, so transformers generates, more slowly; "
                "install it with `make venv` or `pip install 'haloforge[cpu]'`"
            )
        self.engine_starts += 1
        self.seconds_starting += pool.start_seconds
        self.report.say(f"engines: {pool.kind} ready after {pool.start_seconds:.0f} s")
        self._pool_base = base
        return pool


def _connect(settings: Settings, report: Report) -> bool:
    """Joins the cluster that is named, or starts a private Ray; True for a private one."""
    loggers_to_files()
    cluster_errors_to_stderr()
    address = settings.ray.address or os.environ.get("RAY_ADDRESS")
    if address is not None and address.startswith(("http://", "https://")):
        address = os.environ.get("RAY_ADDRESS", "")  # of the cluster that a job runs on
        if not address or "://" in address:
            raise InputError(
                f"{settings.ray.address or address} is a job server: send the stage there with "
                "`halo-forge submit`, or give the address of the cluster itself (host:6379)"
            )
    options: dict[str, Any] = {"address": address}
    if address is None:
        options = {
            "address": "local",
            "num_cpus": settings.ray.num_cpus,
            "object_store_memory": settings.ray.object_store_mb * 2**20,
            "include_dashboard": True,
        }
    else:
        _check_reachable(address)
    try:
        context = ray.init(
            **options, log_to_driver=False, logging_level=logging.ERROR, configure_logging=True
        )
    except Exception as error:  # of a machine that is too busy Ray raises no kind of its own
        reason = str(error).strip().splitlines()[0]
        raise ResourceError(f"no Ray at {address or 'this machine'}: {reason}") from error
    DataContext.get_current().enable_progress_bars = False
    DataContext.get_current().print_on_execution_start = False
    # Each report of a stage's metrics costs a third of a second of CPU; every 5 s is too often.
    StreamingExecutor.UPDATE_METRICS_INTERVAL_S = 30.0
    where = f"http://{context.dashboard_url}" if context.dashboard_url else "not available"
    report.say(f"Ray dashboard: {where} (its token: ray get-auth-token)")
    _logs.append(_log_folder())
    report.say(f"Ray and engine logs: {_logs[-1]}")
    return address is None


def _check_reachable(address: str) -> None:
    """Raises ResourceError where nothing listens at `address`: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        return  # such as 'auto'
    try:
        socket.create_connection((host, int(port)), _CONNECT_S).close()
    except OSError as error:
        raise ResourceError(f"no Ray at {address}: {error.strerror or error}") from None


def _dismiss(reaper: "subprocess.Popen[bytes]") -> None:
    assert reaper.stdin is not None
    reaper.stdin.close()


def _ray_processes() -> list[int]:
    """PIDs of what this process started for a private Ray; all else of it descends from those."""
    started = ray._private.worker._global_node.all_processes
    return [info.process.pid for infos in started.values() for info in infos]


def ray_logs() -> Path | None:
    """Where the logs are of the Ray that this process had last; None where it had none."""
    return _logs[-1] if _logs else None


def _log_folder() -> Path:
    return Path(ray._private.worker._global_node.get_logs_dir_path())


def _stop(signum: int, frame: FrameType | None) -> None:
    """SIGTERM (as `ray job stop` sends) ends a run as Ctrl-C does."""
    raise KeyboardInterrupt
