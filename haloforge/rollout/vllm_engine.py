"""The vLLM engine: continuous batching, a prefix cache, and weights replaced in place."""

import os
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

from haloforge.errors import InfraError, ResourceError
from haloforge.model.policy import Policy
from haloforge.rollout.cpu_norms import CPU_NORMS
from haloforge.rollout.cpu_sampler import CPU_ENGINE_VARIABLE
from haloforge.rollout.engine import (
    FENCE_LINE,
    Completion,
    EngineSpec,
    Prompt,
    block_is_open,
    computed_dtype,
)
from haloforge.rollout.lifetime import BIND_VARIABLE
from haloforge.rollout.merged import weights_of
from haloforge.rollout.settings import Sampling

CPU_KV_CACHE_GB = 1.0
_LORA_RANKS = (16, 32, 64, 128, 256, 320, 512)  # from vLLM's default to the most it knows


class VllmEngine:
    """An `AsyncLLM` of vLLM, on one CPU or `tensor_parallel` GPUs."""

    def __init__(self, spec: EngineSpec) -> None:
        on_cpu = not _has_gpu()
        prepare_process(spec.cores if on_cpu else None)
        from vllm import AsyncEngineArgs
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.async_llm import AsyncLLM

        arguments = AsyncEngineArgs(**engine_arguments(spec, on_cpu))
        try:
            # As vLLM's own offline class: steps of more tokens than where latency counts.
            self._llm = AsyncLLM.from_engine_args(arguments, usage_context=UsageContext.LLM_CLASS)
        except (RuntimeError, ValueError, MemoryError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ResourceError(
                f"vLLM could not load {spec.base.path.name}: {reason}; if memory is short, lower "
                "rollout.kv_cache_gb, rollout.max_model_len or rollout.max_num_seqs "
                "(its log is in the run's Ray logs)"
            ) from error
        self._stop_token_ids = list(spec.stop_token_ids)
        self._base_digest = spec.base.digest
        self._lora_rank = spec.lora_rank
        self._adapter: Any = None
        self._adapters = 0

    @property
    def dead(self) -> bool:
        return bool(self._llm.errored)

    async def generate(
        self, prompt: Prompt, sampling: Sampling, on_first_token: Callable[[], None] | None = None
    ) -> Completion:
        """One completion; a block that opens on a bare fence is not taken for one that closes."""
        tokens: list[int] = []
        text = prompt.answer_start
        logprob_sum = 0.0
        while True:
            params = self._params(sampling, sampling.max_tokens - len(tokens), prompt.stop)
            output = await self._complete(prompt.token_ids + tokens, params, on_first_token)
            on_first_token = None
            text += output.text
            tokens += output.token_ids
            logprob_sum += output.cumulative_logprob or 0.0
            stopped_at_fence = prompt.stop is None and output.stop_reason == FENCE_LINE
            if not (stopped_at_fence and block_is_open(text) and len(tokens) < sampling.max_tokens):
                return Completion(
                    text,
                    len(tokens),
                    output.finish_reason,
                    logprob_sum if sampling.logprobs else None,
                )

    def _params(self, sampling: Sampling, max_tokens: int, own_stop: tuple[str, ...] | None) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        at_fence = own_stop is None and sampling.stop_at_fence
        return SamplingParams(  # no seed: one of its own kills the CPU engine
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            max_tokens=max_tokens,
            stop_token_ids=self._stop_token_ids,
            stop=[FENCE_LINE] if at_fence else list(own_stop or ()) or None,
            include_stop_str_in_output=at_fence,
            logprobs=0 if sampling.logprobs else None,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    async def _complete(
        self, prompt_ids: list[int], params: Any, on_first_token: Callable[[], None] | None
    ) -> Any:
        from vllm.sampling_params import RequestOutputKind

        if on_first_token is not None:  # outputs come token by token, at some cost
            params.output_kind = RequestOutputKind.CUMULATIVE
        last = None
        prompt = {"prompt_token_ids": prompt_ids}
        asked = self._llm.generate(prompt, params, uuid4().hex, lora_request=self._adapter)
        async for output in asked:
            if on_first_token is not None and output.outputs[0].token_ids:
                on_first_token()
                on_first_token = None
            last = output
        if last is None:
            raise InfraError("vLLM ended a request without an answer")
        return last.outputs[0]

    async def take(self, policy: Policy) -> None:
        """Reads merged weights into the running engine, or applies the adapter beside the base."""
        if self._lora_rank:
            await self._take_adapter(policy)
            return
        async with weights_of(policy) as folder:
            await self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
        if not await self._llm.reset_prefix_cache():
            raise InfraError("vLLM kept its prefix cache: requests were in flight during a swap")

    async def _take_adapter(self, policy: Policy) -> None:
        from vllm.lora.request import LoRARequest

        if policy.base.digest != self._base_digest:
            raise InfraError(f"{policy.name} is no policy on the base that the engine holds")
        if policy.lora_rank > self._lora_rank:
            raise ResourceError(
                f"{policy.name} is an adapter of rank {policy.lora_rank}, and the engines were "
                f"started for {self._lora_rank}: set rollout.policy_swap=merge"
            )
        if self._adapter is not None:
            await self._llm.remove_lora(self._adapter.lora_int_id)
            self._adapter = None
        if policy.adapter is not None:
            # vLLM loads a known id no more, and tells cached prefixes apart by the name.
            self._adapters += 1
            adapter = LoRARequest(policy.digest, self._adapters, str(policy.adapter))
            await self._llm.add_lora(adapter)
            self._adapter = adapter

    async def sleep(self) -> None:
        """Keeps the weights in the CPU's memory and forgets the KV cache (vLLM's level 1)."""
        await self._llm.sleep(level=1)

    async def wake(self) -> None:
        """Takes weights and an empty KV cache onto the GPU again."""
        await self._llm.wake_up()

    async def stop(self) -> None:
        self._llm.shutdown()


def prepare_process(cores: Sequence[int] | None) -> None:
    """Sets what vLLM reads of the environment, before it is imported; `cores` are those to compute
    on, None where it computes on GPUs."""
    os.environ[BIND_VARIABLE] = "1"
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    if cores is not None:
        # vLLM's own binding leaves a core out, which costs a third on two cores.
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, cores))
        os.environ[CPU_ENGINE_VARIABLE] = "1"


def engine_arguments(spec: EngineSpec, on_cpu: bool) -> dict[str, Any]:
    """The arguments of vLLM's `AsyncEngineArgs` for an engine of `spec`."""
    settings = spec.settings
    kv_cache_gb = settings.kv_cache_gb or (CPU_KV_CACHE_GB if on_cpu else None)
    return {
        "model": str(spec.base.path),
        "dtype": computed_dtype(settings.dtype, on_cpu),
        "max_model_len": settings.max_model_len,
        "max_num_seqs": settings.max_num_seqs,
        "tensor_parallel_size": settings.tensor_parallel,
        "kv_cache_memory_bytes": int(kv_cache_gb * 2**30) if kv_cache_gb else None,
        "enforce_eager": on_cpu,  # compiling takes minutes there and brings nothing
        # Whole blocks of a prompt are shared by its samples, and vLLM's 128 tokens on a CPU are
        # more than many prompts have.
        "block_size": 32 if on_cpu else None,
        "enable_prefix_caching": True,
        "enable_sleep_mode": spec.sleeps and not on_cpu,
        "ir_op_priority": CPU_NORMS if on_cpu else {},
        "disable_log_stats": True,
        "seed": spec.seed,
        "generation_config": "vllm",  # a model's own top_p or penalties are not applied unasked
        "enable_lora": spec.lora_rank > 0,
        "max_lora_rank": lora_capacity(spec.lora_rank),
    }


def lora_capacity(rank: int) -> int:
    """The rank that vLLM makes room for, of an adapter of `rank`."""
    return min((known for known in _LORA_RANKS if known >= rank), default=_LORA_RANKS[-1])


def _has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())
