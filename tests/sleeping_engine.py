"""Stands for an engine where only the way of its answers is tested; workers can import it."""

import asyncio
from typing import Any

from haloforge.rollout.engine import Prompt
from haloforge.rollout.settings import Sampling

HELD_BACK = -1


class SleepingEngine:
    """Answers after as many milliseconds as the prompt's first token says.

    `HELD_BACK` waits until `release` is called.
    """

    def __init__(self) -> None:
        self._released = asyncio.Event()

    async def release(self) -> None:
        self._released.set()

    async def generate(self, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
        if prompt.token_ids[0] == HELD_BACK:
            await self._released.wait()
        else:
            await asyncio.sleep(prompt.token_ids[0] / 1000)
        return {
            "completion": f"slept {prompt.token_ids[0]}",
            "num_tokens": 1,
            "finish_reason": "stop",
            "logprob_sum": None,
            "policy": "none",
        }


class FencingEngine(SleepingEngine):
    """Gives its answer in a block, as code."""

    async def generate(self, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
        answer = await super().generate(prompt, sampling)
        return {**answer, "completion": f"```\n{answer['completion']}\n```"}
