"""Stands for an engine where only the way of its answers is tested; workers can import it."""

import asyncio
from typing import Any

from haloforge.rollout.settings import Sampling


class SleepingEngine:
    """Answers after as many milliseconds as the prompt's first token says."""

    async def generate(self, prompt_ids: list[int], sampling: Sampling) -> dict[str, Any]:
        await asyncio.sleep(prompt_ids[0] / 1000)
        return {
            "completion": f"slept {prompt_ids[0]}",
            "num_tokens": 1,
            "finish_reason": "stop",
            "logprob_sum": None,
            "policy": "none",
        }
