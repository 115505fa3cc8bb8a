"""The engine as a Ray actor: many completions at once, and policy swaps that drain first."""

import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from haloforge.errors import InfraError
from haloforge.model.policy import Policy
from haloforge.rollout.engine import Engine, EngineSpec, Prompt, engine_kind
from haloforge.rollout.settings import Sampling


class EngineActor:
    """Owns one engine for a whole run and takes each new policy in place.

    Swaps and completions exclude each other: a swap waits until every request in flight has ended,
    and requests that arrive meanwhile wait for it, so that a completion comes from one policy.
    """

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._engine: Engine | None = None
        self._policy = ""
        self._in_flight = 0
        self._idle = asyncio.Condition()

    async def start(self, base_digest: str) -> dict[str, Any]:
        """Loads the base and returns the engine's kind, process id and start-up seconds."""
        began = time.monotonic()
        kind = engine_kind(self._spec.settings)
        # In this thread, which lives as long as the actor: the engine's processes are tied to the
        # life of the thread that starts them (lifetime.py).
        self._engine = _build(kind, self._spec)
        self._policy = base_digest
        return {"kind": kind, "pid": os.getpid(), "seconds": time.monotonic() - began}

    async def generate(self, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
        """A completion as a dict, with the digest of the policy that wrote it."""
        async with self._idle:
            self._in_flight += 1
            policy = self._policy
        try:
            completion = await self._running().generate(prompt, sampling)
            if policy != self._policy:
                raise InfraError("the policy changed while a completion was being written")
        finally:
            async with self._idle:
                self._in_flight -= 1
                self._idle.notify_all()
        return {
            "completion": completion.text,
            "num_tokens": completion.num_tokens,
            "finish_reason": completion.finish_reason,
            "logprob_sum": completion.logprob_sum,
            "policy": policy,
        }

    async def set_policy(self, policy: Policy) -> float:
        """Drains, then loads `policy`; returns the seconds the swap took after draining."""
        async with self._idle:  # held to the end: nothing new starts before the swap is done
            await self._idle.wait_for(lambda: self._in_flight == 0)
            if policy.digest == self._policy:
                return 0.0
            began = time.monotonic()
            if policy.adapter is None:
                await self._running().load_weights(policy.base.path)
            else:
                with tempfile.TemporaryDirectory(prefix="haloforge-merged-") as folder:
                    await asyncio.to_thread(policy.merge_into, Path(folder))
                    await self._running().load_weights(Path(folder))
            self._policy = policy.digest
            return time.monotonic() - began

    async def stop(self) -> None:
        """Ends the engine's own processes."""
        if self._engine is not None:
            await self._engine.stop()
            self._engine = None

    def _running(self) -> Engine:
        if self._engine is None:
            raise InfraError("the engine was used before it was started")
        return self._engine


def _build(kind: str, spec: EngineSpec) -> Engine:
    if kind == "vllm":
        from haloforge.rollout.vllm_engine import VllmEngine

        return VllmEngine(spec)
    from haloforge.rollout.transformers_engine import TransformersEngine

    return TransformersEngine(spec)
