"""Settings of generation: the engines, and how they sample."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class RolloutSettings(BaseModel):
    """How completions are generated.

    `engine` 'auto' takes vLLM where it is installed and transformers where not. `placement` says
    whether engines and trainers have GPUs of their own ('disaggregated') or take turns on the same
    ones ('colocated', where engines sleep while trainers train); 'auto' is colocated on a single
    GPU, else disaggregated; neither was tried, for want of a GPU. `policy_swap` says how vLLM takes
    a new policy: 'merge' reads its weights merged into the base, 'lora' applies the adapter beside
    the base, at some cost for each token; 'auto' is 'merge'. `max_model_len` bounds prompt and
    completion together, in tokens. `kv_cache_gb` is the memory for the KV cache on each GPU of an
    engine (None: vLLM's own choice), or of an engine on a CPU (None: 1 GB). `top_k` draws only from
    so many of the likeliest tokens (0: from all). `stop_at_fence` ends a completion when its first
    code block closes, which spares the prose that small models add. `logprobs` fills
    `logprob_sum` of each sample, at some cost. An engine that dies is started anew up to
    `max_restarts` times; starting may take `start_timeout_s` seconds each time.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal["auto", "vllm", "transformers"] = "auto"
    engines: int = Field(1, ge=1)
    tensor_parallel: int = Field(1, ge=1)
    placement: Literal["auto", "disaggregated", "colocated"] = "auto"
    policy_swap: Literal["auto", "merge", "lora"] = "auto"
    max_num_seqs: int = Field(64, ge=1)
    max_model_len: int = Field(2048, ge=16)
    kv_cache_gb: float | None = Field(None, gt=0)
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    temperature: float = Field(0.7, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    max_tokens: int = Field(1024, ge=1)
    stop_at_fence: bool = True
    logprobs: bool = False
    start_timeout_s: float = Field(600, gt=0)
    max_restarts: int = Field(3, ge=0)


class Sampling(BaseModel):
    """What shapes one completion; part of a run's identity."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float
    top_p: float
    max_tokens: int
    stop_at_fence: bool
    logprobs: bool = False
    top_k: int = 0


def sampling_of(settings: RolloutSettings, greedy: bool = False) -> Sampling:
    """The sampling that `settings` ask for; `greedy` overrides its temperature."""
    return Sampling(
        temperature=0.0 if greedy else settings.temperature,
        top_p=1.0 if greedy else settings.top_p,
        max_tokens=settings.max_tokens,
        top_k=0 if greedy else settings.top_k,
        stop_at_fence=settings.stop_at_fence,
        logprobs=settings.logprobs,
    )
