"""The pool of engine actors that lives for a whole run."""

import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from haloforge.errors import HaloforgeError, InfraError
from haloforge.model.bases import Base
from haloforge.model.policy import Policy
from haloforge.rollout.actor import EngineActor
from haloforge.rollout.engine import EngineSpec
from haloforge.rollout.settings import RolloutSettings

# A Ray async actor runs at most this many calls at once; far above any max_num_seqs.
_ACTOR_CONCURRENCY = 10_000


class EnginePool:
    """Engines started once; `set_policy` gives all of them the weights to sample from next."""

    def __init__(
        self,
        engines: Sequence[ActorHandle],
        facts: Sequence[dict[str, Any]],
        max_num_seqs: int,
        seconds: float,
    ) -> None:
        self.engines = list(engines)
        self.max_num_seqs = max_num_seqs
        self.kind: str = facts[0]["kind"]
        self.pids: list[int] = [fact["pid"] for fact in facts]
        self.start_seconds = seconds

    @classmethod
    def start(
        cls,
        base: Base,
        settings: RolloutSettings,
        stop_token_ids: Sequence[int],
        seed: int,
        cpus_per_engine: float,
        gpus_per_engine: float,
        cores_per_engine: Sequence[tuple[int, ...]],
    ) -> "EnginePool":
        """Starts `settings.engines` engines on `base` and waits until all can generate.

        `cores_per_engine` are the cores each CPU engine binds its threads to. Raises
        ResourceError where the model does not fit, InfraError where an engine dies or does not
        start within `rollout.start_timeout_s`.
        """
        began = time.monotonic()
        engines = []
        for rank, cores in enumerate(cores_per_engine):
            spec = EngineSpec(base.path, settings, cores, tuple(stop_token_ids), seed + rank)
            actor = ray.remote(EngineActor).options(
                name=f"engine-{rank}",
                num_cpus=cpus_per_engine,
                num_gpus=gpus_per_engine,
                max_concurrency=_ACTOR_CONCURRENCY,
            )
            engines.append(actor.remote(spec))
        started = [engine.start.remote(base.digest) for engine in engines]
        facts = call(started, "an engine could not start", settings.start_timeout_s)
        return cls(engines, facts, settings.max_num_seqs, time.monotonic() - began)

    def set_policy(self, policy: Policy) -> float:
        """All engines drain and take `policy`; returns the seconds the slowest swap took."""
        swaps = [engine.set_policy.remote(policy) for engine in self.engines]
        return max(call(swaps, f"the engines could not take the policy {policy.name}"))

    def stop(self) -> None:
        """Ends the engines and their processes."""
        try:
            call([engine.stop.remote() for engine in self.engines], "engines did not stop", 20)
        finally:
            for engine in self.engines:
                ray.kill(engine)


def call(references: list[Any], failure: str, timeout_s: float | None = None) -> list[Any]:
    """Results of actor calls; errors of ours keep their class, others become an InfraError."""
    try:
        return ray.get(references, timeout=timeout_s)
    except RayTaskError as error:
        if isinstance(error.cause, HaloforgeError):
            raise error.cause from None
        raise InfraError(f"{failure}: {type(error.cause).__name__}: {error.cause}") from error
    except RayActorError as error:
        raise InfraError(f"{failure}: its process died ({error.error_msg or error})") from error
    except GetTimeoutError as error:
        raise InfraError(f"{failure} within {timeout_s:g} s") from error
