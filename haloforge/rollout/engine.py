"""What an engine is: the interface that vLLM and transformers stand behind."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ray.exceptions import ActorUnschedulableError, OutOfMemoryError, RayActorError

from haloforge.model.bases import Base
from haloforge.model.policy import Policy
from haloforge.model.precision import cpu_has_bf16
from haloforge.rollout.settings import RolloutSettings, Sampling

ENGINE_DIED = (RayActorError, OutOfMemoryError, ActorUnschedulableError)
"""What Ray says of a call to an engine that died, or has no room to be started anew."""
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
    """What an engine is started with.

    `cores` are those that it binds its threads to on a CPU, `sleeps` says that it is to give its
    GPU's memory back at times. Adapters of ranks up to `lora_rank` are applied beside the base's
    weights; 0 merges them into those. `EngineActor` gives each start a `seed` of its own.
    """

    base: Base
    settings: RolloutSettings
    stop_token_ids: tuple[int, ...]
    seed: int = 0
    sleeps: bool = False
    lora_rank: int = 0
    cores: tuple[int, ...] = ()


class Engine(Protocol):
    """One model in memory that completes many prompts at once."""

    @property
    def dead(self) -> bool:
        """Whether processes that it needs have died, so that it can do nothing any more."""

    async def generate(
        self, prompt: Prompt, sampling: Sampling, on_first_token: Callable[[], None] | None = None
    ) -> Completion:
        """One completion of the prompt; `on_first_token` is called when its first token is there,
        from any thread."""

    async def take(self, policy: Policy) -> None:
        """Completes by `policy` from now on; no request may be in flight."""

    async def sleep(self) -> None:
        """Gives the GPU's memory back; no request may be in flight, none comes before `wake`."""

    async def wake(self) -> None:
        """Takes the memory again, with the weights that were there."""

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


def computed_dtype(asked: str, on_cpu: bool) -> str:
    """The number format that an engine computes in where this one is `asked` for."""
    return "float32" if asked == "bfloat16" and on_cpu and not cpu_has_bf16() else asked
