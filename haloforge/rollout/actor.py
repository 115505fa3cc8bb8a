"""The engine as a Ray actor: many completions at once, and policy swaps that drain first."""

import asyncio
import dataclasses
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import ray

from haloforge.errors import InfraError, ResourceError
from haloforge.model.places import base_on_this_node, on_this_node
from haloforge.model.policy import Policy
from haloforge.rollout.cores import own_cores
from haloforge.rollout.engine import Engine, EngineSpec, Prompt, engine_kind
from haloforge.rollout.merged import prepare
from haloforge.rollout.settings import Sampling

# Ray asks again, as often as it takes, where the actor was restarted meanwhile.
_THROUGH_RESTARTS = -1


class EngineActor:
    """Owns one engine for a whole run and takes each new policy in place.

    Each request names its policy. Where the engine has another one it drains first: requests in
    flight end, those that come later wait, and the new weights are loaded. So a completion comes
    from the policy it claims, also from an engine that was restarted meanwhile and has the base.
    """

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._engine: Engine | None = None
        self._policy = ""
        self._in_flight = self._finished = 0
        self._request_s, self._counted_at = 0.0, time.monotonic()
        self._turn = asyncio.Lock()  # held through a swap: requests begin in the order they came
        self._drained = asyncio.Event()
        self._drained.set()
        self._asleep = False
        self._started: dict[str, Any] = {}
        self._swap_seconds = 0.0
        self._first_token_at: float | None = None
        self._first_token_watched = False

    @ray.method(max_task_retries=_THROUGH_RESTARTS)
    async def ready(self) -> dict[str, Any]:
        """Loads the base where it is not loaded; returns the engine's kind, process id and the
        seconds it took to start."""
        self._running()
        return self._started

    async def generate(self, prompt: Prompt, sampling: Sampling, policy: Policy) -> dict[str, Any]:
        """A completion by `policy` as a dict, with the digest of that policy."""
        engine = self._running()
        async with self._turn:
            await self._take(policy)
            self._under_way(1)
            self._drained.clear()
        try:
            with _ends_with(engine):
                completion = await engine.generate(prompt, sampling, self._watch())
            if self._policy != policy.digest:
                raise InfraError("the policy changed while a completion was being written")
            self._finished += 1
        finally:
            self._under_way(-1)
            if not self._in_flight:
                self._drained.set()
        return {
            "completion": completion.text,
            "num_tokens": completion.num_tokens,
            "finish_reason": completion.finish_reason,
            "logprob_sum": completion.logprob_sum,
            "policy": policy.digest,
        }

    def _under_way(self, change: int) -> None:
        """So many requests more, or less."""
        now = time.monotonic()
        self._request_s += self._in_flight * (now - self._counted_at)
        self._counted_at = now
        self._in_flight += change

    @ray.method(max_task_retries=_THROUGH_RESTARTS)
    async def set_policy(self, policy: Policy) -> float:
        """Drains, then loads `policy`; returns the seconds the swap took after draining."""
        self._running()
        async with self._turn:
            return await self._take(policy)

    async def _take(self, policy: Policy) -> float:
        await self._wake()
        if policy.digest == self._policy:
            return 0.0
        await self._drained.wait()
        engine = self._running()
        began = time.monotonic()
        self._policy = ""  # a swap that fails half way leaves weights of no policy
        with _ends_with(engine):
            await engine.take(await asyncio.to_thread(on_this_node, policy))
        self._policy = policy.digest
        self._swap_seconds = time.monotonic() - began
        self._first_token_at, self._first_token_watched = None, False
        return self._swap_seconds

    def _watch(self) -> Callable[[], None] | None:
        """What notes the first token by this policy, for the first request that comes to it."""
        if self._first_token_watched:
            return None
        self._first_token_watched = True

        def note() -> None:
            self._first_token_at = time.time()

        return note

    @ray.method(max_task_retries=_THROUGH_RESTARTS)
    async def facts(self) -> dict[str, Any]:
        """The digest of the policy that is loaded ('' for none), the seconds its swap took, when
        the first token by it came (seconds since the epoch, None before), requests in flight, their
        integral over this process's life in request-seconds, how many it finished, and how many it
        computes at once."""
        self._under_way(0)
        return {
            "policy": self._policy,
            "swap_seconds": self._swap_seconds,
            "first_token_at": self._first_token_at,
            "in_flight": self._in_flight,
            "request_s": self._request_s,
            "finished": self._finished,
            "capacity": self._spec.settings.max_num_seqs,
            "pid": os.getpid(),
        }

    @ray.method(max_task_retries=_THROUGH_RESTARTS)
    async def sleep(self) -> None:
        """Drains, then gives the GPU's memory back until a request or a policy comes.

        An engine that is not started, since it was killed while it slept, stays so until then.
        """
        async with self._turn:
            await self._drained.wait()
            if self._engine is not None and not self._asleep:
                with _ends_with(self._engine):
                    await self._engine.sleep()
                self._asleep = True

    async def _wake(self) -> None:
        if self._asleep:
            engine = self._running()
            with _ends_with(engine):
                await engine.wake()
            self._asleep = False

    async def stop(self) -> None:
        """Ends the engine's own processes."""
        if self._engine is not None:
            await self._engine.stop()
            self._engine = None

    def _running(self) -> Engine:
        """The engine, started by the first call.

        Called in the thread of the event loop, which lives as long as the actor: the engine's
        processes are tied to the life of the thread that starts them (lifetime.py).
        """
        if self._engine is not None:
            return self._engine
        began = time.monotonic()
        kind = engine_kind(self._spec.settings)
        # A seed that was used would draw again what the engine that died had drawn, or what the run
        # that goes on had when it was stopped.
        base = base_on_this_node(self._spec.base)
        spec = dataclasses.replace(
            self._spec, base=base, cores=own_cores(), seed=secrets.randbits(31)
        )
        try:
            self._engine = _build(kind, spec)
        except ResourceError as error:
            if _was_restarted():  # what it lacks may be free the next time; Ray counts the tries
                _die(str(error))
            raise
        prepare()
        self._policy = spec.base.digest
        seconds = time.monotonic() - began
        self._started = {"kind": kind, "pid": os.getpid(), "seconds": seconds}
        return self._engine


def _build(kind: str, spec: EngineSpec) -> Engine:
    if kind == "vllm":
        from haloforge.rollout.vllm_engine import VllmEngine

        return VllmEngine(spec)
    from haloforge.rollout.transformers_engine import TransformersEngine

    return TransformersEngine(spec)


def _was_restarted() -> bool:
    return bool(ray.get_runtime_context().was_current_actor_reconstructed)


@contextmanager
def _ends_with(engine: Engine) -> Iterator[None]:
    """Ends this process where a call fails because the engine's own processes died."""
    try:
        yield
    except Exception as error:
        if engine.dead:
            _die(str(error))
        raise


def _die(reason: str) -> NoReturn:
    """Ends this process so that Ray starts the actor anew; it would not after a clean exit."""
    print(f"engine: this process ends, to be started anew: {reason}", file=sys.stderr, flush=True)
    os._exit(1)
