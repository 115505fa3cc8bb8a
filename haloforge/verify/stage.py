"""The verifier as a stage of Ray Data: a fleet of actors that judge samples as they arrive."""

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy

from haloforge.groups import judged_group, samples_of
from haloforge.placement import Fleet
from haloforge.schema import digest
from haloforge.verify.own_sources import OwnSource
from haloforge.verify.settings import VerifySettings
from haloforge.verify.stored import session_folder
from haloforge.verify.verifier import ATTEMPTS, Verifier

# Groups in one actor: one is judged while others wait at hand, for Ray Data deals out new ones ten
# times a second at most. With fewer, some that finish together would already start another actor.
IN_FLIGHT = 8
PATIENCE_S = 2.0
# The share of places taken above which the fleet grows by an actor, and below which one is let go:
# never, for one that is at rest costs nothing, and a new one three seconds of a core.
GROW, SHRINK = 0.75, -1.0


def verify_stage(
    samples: "ray.data.Dataset",
    problems_ref: "ray.ObjectRef[Any]",
    settings: VerifySettings,
    fleet: Fleet,
) -> "ray.data.Dataset":
    """Groups of samples (see `groups.py`) with their verdicts, in the order they are judged.

    `problems_ref` holds a dict of problems by id, fetched once by each actor. A slow sample holds
    up its own group alone, which is what finished within a tenth of a second of it.
    """
    scaling = samples.context.autoscaling_config  # of the data set, which had its copy when made
    scaling.actor_pool_util_upscaling_threshold = GROW
    scaling.actor_pool_util_downscaling_threshold = SHRINK
    stage = uuid.uuid4().hex
    return samples.map_batches(
        VerifierActor,
        batch_size=None,
        batch_format="pyarrow",
        fn_constructor_args=(settings, problems_ref, settings.own(), stage),
        compute=ActorPoolStrategy(
            min_size=fleet.min_actors,
            max_size=fleet.max_actors,
            max_tasks_in_flight_per_actor=IN_FLIGHT,
            max_concurrent_calls_per_actor=IN_FLIGHT,
            enable_true_multi_threading=True,
        ),
        num_cpus=fleet.cpus_per_actor,
        **fleet.steering,
    )


class VerifierActor:
    """A verifier as the callable of an actor pool. One sample has its turn at a time; beside one
    that takes longer than `PATIENCE_S` the next begins.

    Ray starts an actor that died anew and tries again what it had under way, without end. So a
    sample is noted on disk while it is judged, and one that saw `ATTEMPTS` actors die is given up.
    """

    def __init__(
        self,
        settings: VerifySettings,
        problems: "ray.ObjectRef[Any]",
        own: OwnSource | None,
        stage: str,
    ) -> None:
        self._verifier = Verifier(settings, problems, own)
        self._turn = threading.Semaphore()
        self._work = _Work()
        self._stage = stage
        self._notes = session_folder()

    def __call__(self, block: pa.Table) -> pa.Table:
        """The samples of a group with their verdicts.

        All of a group are handed on at once: where this actor dies none of them was, and another
        judges them all.
        """
        samples = samples_of(block)
        with ThreadPoolExecutor(IN_FLIGHT) as threads:
            verdicts = list(threads.map(self._judge, samples.to_pylist()))
        cache = self._verifier.cache
        hits = cache.hits if cache is not None else 0
        return judged_group(samples, verdicts, {**self._work.told(), "cache_hits": hits})

    def _judge(self, row: dict[str, Any]) -> dict[str, Any]:
        note = self._notes / digest(self._stage, row["sample_id"])
        died = note.stat().st_size if note.exists() else 0
        if died >= ATTEMPTS:
            return self._verifier.give_up(row, f"{died} verifiers died while they judged it")
        with self._turn_of(suspect=died > 0):
            with note.open("a") as file:
                file.write("x")
            with self._work:
                verdict = self._verifier.verify(row)
            note.unlink()  # before another has its turn, and may kill this actor
        return verdict

    @contextlib.contextmanager
    def _turn_of(self, suspect: bool) -> Iterator[None]:
        """A sample's turn, which ends with the block or after `PATIENCE_S`. One that may kill this
        actor has its turn to the end: no other that began meanwhile is to die with it."""
        self._turn.acquire()
        turn = [self._turn]

        def end() -> None:
            with contextlib.suppress(IndexError):  # it has ended
                turn.pop().release()

        timer = threading.Timer(PATIENCE_S, end)
        timer.daemon = True
        if not suspect:
            timer.start()
        try:
            yield
        finally:
            timer.cancel()
            end()


class _Work:
    """The seconds in which this actor judged one sample or more, since it began; several threads
    may be in the block at once."""

    def __init__(self) -> None:
        self._actor = ray.get_runtime_context().get_actor_id() or ""
        self._lock = threading.Lock()
        self._judging, self._busy_s, self._since = 0, 0.0, 0.0

    def __enter__(self) -> None:
        with self._lock:
            if not self._judging:
                self._since = time.monotonic()
            self._judging += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._judging -= 1
            if not self._judging:
                self._busy_s += time.monotonic() - self._since

    def told(self) -> dict[str, Any]:
        """The actor, its process, and those seconds."""
        return {"actor": self._actor, "process": os.getpid(), "busy_s": self._busy_s}
