"""Stands for an engine where only the way of its answers is tested; workers can import it."""

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle

from haloforge.model.bases import Base
from haloforge.model.policy import Policy
from haloforge.rollout.cores import own_cores
from haloforge.rollout.engine import Prompt
from haloforge.rollout.pool import EnginePool
from haloforge.rollout.settings import RolloutSettings, Sampling

HELD_BACK = -1
DEADLY = -2
CAPACITY = 8


class SleepingEngine:
    """Answers after as many milliseconds as the prompt's first token says.

    `HELD_BACK` waits until `release` is called.
    """

    capacity = CAPACITY

    def __init__(self) -> None:
        self._released = asyncio.Event()
        self._in_flight = self._finished = 0
        self._request_s = 0.0

    async def release(self) -> None:
        self._released.set()

    async def facts(self) -> dict[str, Any]:
        """Those of an engine that has no policy; a request counts once it has ended."""
        return {
            "policy": "",
            "first_token_at": None,
            "in_flight": self._in_flight,
            "request_s": self._request_s,
            "finished": self._finished,
            "capacity": self.capacity,
            "pid": os.getpid(),
        }

    async def generate(self, prompt: Prompt, sampling: Sampling, policy: Policy) -> dict[str, Any]:
        began = time.monotonic()
        self._in_flight += 1
        if prompt.token_ids[0] == HELD_BACK:
            await self._released.wait()
        else:
            await asyncio.sleep(prompt.token_ids[0] / 1000)
        self._in_flight -= 1
        self._finished += 1
        self._request_s += time.monotonic() - began
        return {
            "completion": f"slept {prompt.token_ids[0]}",
            "num_tokens": 1,
            "finish_reason": "stop",
            "logprob_sum": None,
            "policy": "none",
        }


class FencingEngine(SleepingEngine):
    """Gives its answer in a block, as code."""

    async def generate(self, prompt: Prompt, sampling: Sampling, policy: Policy) -> dict[str, Any]:
        answer = await super().generate(prompt, sampling, policy)
        return {**answer, "completion": f"```\n{answer['completion']}\n```"}


class MortalEngine(SleepingEngine):
    """Dies of a `DEADLY` prompt, once in its first life and each time where `frail`; where
    `hidden` it is never ready after that."""

    def __init__(self, frail: bool = False, hidden: bool = False) -> None:
        super().__init__()
        self._reborn = bool(ray.get_runtime_context().was_current_actor_reconstructed)
        self._frail, self._hidden = frail, hidden
        self._asked: list[int] = []

    @ray.method(max_task_retries=-1)
    async def ready(self) -> None:
        if self._reborn and self._hidden:
            await super().generate(Prompt([HELD_BACK]), None, None)  # type: ignore[arg-type]

    async def generate(self, prompt: Prompt, sampling: Sampling, policy: Policy) -> dict[str, Any]:
        self._asked.append(prompt.token_ids[-1])
        if prompt.token_ids[0] == DEADLY and (self._frail or not self._reborn):
            os._exit(1)
        sleep = Prompt([max(prompt.token_ids[0], 10)])
        return await super().generate(sleep, sampling, policy)

    async def asked(self) -> list[int]:
        """The requests of this life."""
        return self._asked


def pool_of(engines: Sequence[ActorHandle], max_num_seqs: int = CAPACITY) -> EnginePool:
    """A pool of actors of these classes, on a policy that is nowhere."""
    base = Base("none", "none", Path("none"), "none")
    settings = RolloutSettings(max_num_seqs=max_num_seqs, start_timeout_s=60)
    facts = [{"kind": "sleeping", "pid": 0}] * len(engines)
    return EnginePool(engines, facts, Policy("none", base, None, "none"), settings, 0)


class BoundEngine:
    """Says which cores it would bind its threads to."""

    async def cores(self) -> tuple[int, ...]:
        return own_cores()
