"""The pool of engine actors that lives for a whole run."""

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from haloforge.errors import HaloforgeError, InfraError
from haloforge.model.bases import Base
from haloforge.model.policy import Policy
from haloforge.placement import Placement
from haloforge.rollout.actor import EngineActor
from haloforge.rollout.engine import ENGINE_DIED, EngineSpec
from haloforge.rollout.settings import RolloutSettings

# A Ray async actor runs at most this many calls at once; far above any max_num_seqs.
_ACTOR_CONCURRENCY = 10_000
_NOTE_S = 2.0


class EnginePool:
    """Engines started once; `policy` is what all of them sample from.

    Ray starts an engine that dies anew, up to `rollout.max_restarts` times. It has the base then,
    and takes the policy of the first request that it gets.
    """

    def __init__(
        self,
        engines: Sequence[ActorHandle],
        facts: Sequence[dict[str, Any]],
        policy: Policy,
        settings: RolloutSettings,
        seconds: float,
    ) -> None:
        self.engines = list(engines)
        self.policy = policy
        self.max_num_seqs = settings.max_num_seqs
        self.start_timeout_s = settings.start_timeout_s
        self.kind: str = facts[0]["kind"]
        self.pids: list[int] = [fact["pid"] for fact in facts]
        self.start_seconds = seconds
        self._started = list(engines)
        self._restarts_told = 0
        self._first_tokens: dict[str, float] = {}

    @classmethod
    def start(
        cls,
        base: Base,
        settings: RolloutSettings,
        stop_token_ids: Sequence[int],
        placement: Placement,
        lora_rank: int = 0,
    ) -> "EnginePool":
        """Starts the engines of `placement` on `base` and waits until all can generate.

        Where `rollout.policy_swap` is 'lora' they take adapters of ranks up to `lora_rank`.
        Raises ResourceError where the model does not fit, InfraError where an engine dies or does
        not start within `rollout.start_timeout_s`.
        """
        began = time.monotonic()
        engines = []
        for rank in range(placement.engines):
            spec = EngineSpec(
                base,
                settings,
                tuple(stop_token_ids),
                sleeps=placement.engines_sleep,
                lora_rank=lora_rank if settings.policy_swap == "lora" else 0,
            )
            options = actor_options(rank, settings, placement)
            engines.append(ray.remote(EngineActor).options(**options).remote(spec))
        failure = "an engine could not start"
        # All have their place before one starts, so that each sees who shares its node's cores.
        call([engine.facts.remote() for engine in engines], failure, settings.start_timeout_s)
        started = [engine.ready.remote() for engine in engines]
        facts = call(started, failure, settings.start_timeout_s)
        policy = Policy(base.name, base, None, base.digest)
        return cls(engines, facts, policy, settings, time.monotonic() - began)

    def set_policy(self, policy: Policy) -> float:
        """All engines drain and take `policy`; returns the seconds the slowest swap took.

        Waits for an engine that is being restarted, and leaves out one that will not come back.
        Raises InfraError where none is left.
        """
        self.policy = policy
        failure = f"the engines could not take the policy {policy.name}"
        swaps = [(engine, engine.set_policy.remote(policy)) for engine in self.engines]
        return max(self._of_those_left(swaps, failure))

    def sleep(self) -> None:
        """All engines drain and give their GPUs' memory back; each wakes when it is next used.

        Waits and leaves out as `set_policy` does, and raises as it.
        """
        naps = [(engine, engine.sleep.remote()) for engine in self.engines]
        self._of_those_left(naps, "the engines did not fall asleep")

    def _of_those_left(self, calls: Sequence[tuple[ActorHandle, Any]], failure: str) -> list[Any]:
        deadline = time.monotonic() + self.start_timeout_s
        results: list[Any] = []
        for engine, reference in calls:
            try:
                results += call([reference], failure, max(0.0, deadline - time.monotonic()))
            except EngineLostError:
                self.engines.remove(engine)
                if not self.engines:
                    raise
        return results

    def facts(self, timeout_s: float = 10) -> list[dict[str, Any]]:
        """What each engine says of itself (`EngineActor.facts`), of those that answer in time."""
        return list(self.loads(timeout_s).values())

    def loads(self, timeout_s: float = _NOTE_S) -> dict[str, dict[str, Any]]:
        """The same, by the engines' names."""
        names = {engine: name_of(rank) for rank, engine in enumerate(self._started)}
        asked = {engine.facts.remote(): names[engine] for engine in list(self.engines)}
        if not asked:
            return {}
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=timeout_s)
        facts = {}
        for answer in answered:
            with suppress(EngineLostError):
                facts[asked[answer]] = call([answer], "an engine does not answer")[0]
        return facts

    def note_first_token(self) -> None:
        """Keeps when the first token by the policy came, unless that is known: an engine that is
        restarted later knows only of its own."""
        if self.policy.digest in self._first_tokens:
            return
        told = [fact for fact in self.facts(_NOTE_S) if fact["policy"] == self.policy.digest]
        came = [fact["first_token_at"] for fact in told if fact["first_token_at"] is not None]
        if came:
            self._first_tokens[self.policy.digest] = min(came)

    def first_token_at(self, policy: Policy) -> float | None:
        """When the first token by `policy` came, in Unix seconds, if that was noted."""
        return self._first_tokens.get(policy.digest)

    def restarts(self) -> int:
        """How often engines were started anew since the pool started: failures of ours."""
        states = (ray._private.state.actors(engine._actor_id.hex()) for engine in self._started)
        return sum(state["NumRestarts"] for state in states)

    def new_restarts(self) -> int:
        """How often since this was last asked, or since the pool started."""
        restarts = self.restarts()
        new, self._restarts_told = restarts - self._restarts_told, restarts
        return new

    def stop(self) -> None:
        """Ends the engines and their processes."""
        stops = [engine.stop.remote() for engine in self.engines]
        try:
            for stop in stops:
                with suppress(EngineLostError):  # it has ended already
                    call([stop], "engines did not stop", 20)
        finally:
            for engine in self._started:
                ray.kill(engine)


def actor_options(rank: int, settings: RolloutSettings, placement: Placement) -> dict[str, Any]:
    """The options of Ray for the engine number `rank`."""
    return {
        "name": name_of(rank),
        "num_cpus": placement.cpus_per_engine,
        "num_gpus": placement.gpus_per_engine,
        "resources": placement.steering,
        "max_concurrency": _ACTOR_CONCURRENCY,
        "max_restarts": settings.max_restarts,
        "max_task_retries": 0,  # a request goes to another engine, if there is one
    }


def name_of(rank: int) -> str:
    """Of the engine number `rank`, as the Ray dashboard and the metrics have it."""
    return f"engine-{rank}"


class EngineLostError(InfraError):
    """An engine died and is not started anew, or does not answer in time."""


def call(references: list[Any], failure: str, timeout_s: float | None = None) -> list[Any]:
    """Results of actor calls; errors of ours keep their class, others become an InfraError."""
    try:
        return ray.get(references, timeout=timeout_s)
    except RayTaskError as error:
        if isinstance(error.cause, HaloforgeError):
            raise error.cause from None
        raise InfraError(f"{failure}: {type(error.cause).__name__}: {error.cause}") from error
    except ENGINE_DIED as error:
        reason = str(error).strip().splitlines()[0]
        raise EngineLostError(f"{failure}: its process died ({reason})") from error
    except GetTimeoutError as error:
        raise EngineLostError(f"{failure} within {timeout_s:.0f} s") from error
    except RayError as error:
        raise InfraError(f"{failure}: {type(error).__name__}") from error
