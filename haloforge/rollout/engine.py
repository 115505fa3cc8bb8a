"""What an engine is: the interface that vLLM and transformers stand behind."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from haloforge.rollout.settings import RolloutSettings, Sampling

FENCE = "```"
# The closing fence on a line of its own. A fence that opens a block without a tag looks the same:
# `block_is_open` tells them apart.
FENCE_LINE = f"\n{FENCE}\n"


class Prompt(NamedTuple):
    """What an engine continues: `token_ids`, which end with those of `answer_start`.

    It ends at the first of the strings `stop`, which is left out; None leaves it to the sampling
    whether it ends where a code block closes.
    """

    token_ids: list[int]
    answer_start: str = ""
    stop: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Completion:
    """The answer: the prompt's `answer_start` and what the model wrote after it.

    `num_tokens` and `logprob_sum` (in nats, None when it was not asked for) are of the latter.
    """

    text: str
    num_tokens: int
    finish_reason: str
    logprob_sum: float | None


@dataclass(frozen=True)
class EngineSpec:
    """What an engine is started with: the base on this node, its settings, its share of cores."""

    base_path: Path
    settings: RolloutSettings
    cores: tuple[int, ...]
    stop_token_ids: tuple[int, ...]
    seed: int


class Engine(Protocol):
    """One model in memory that completes many prompts at once."""

    async def generate(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """One completion of the prompt."""

    async def load_weights(self, folder: Path) -> None:
        """Replaces all weights by those in `folder`; no request may be in flight."""

    async def stop(self) -> None:
        """Ends the engine's processes and frees its memory."""


def engine_kind(settings: RolloutSettings) -> str:
    """'vllm' or 'transformers': what `settings.engine` means on this machine."""
    if settings.engine != "auto":
        return settings.engine
    return "vllm" if importlib.util.find_spec("vllm") else "transformers"


def block_is_open(text: str) -> bool:
    """Whether `text` ends inside a code block, that is after an opening fence."""
    fences = sum(line.lstrip().startswith(FENCE) for line in text.splitlines())
    return fences % 2 == 1
