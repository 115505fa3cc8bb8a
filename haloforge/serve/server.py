"""A replica: Ray Serve's LLM server, with adapters from where training wrote them.

Ray's `LoraConfig` takes adapters from object storage alone, and fetches one when a request first
names it. That is kept, with its limit and its routing to replicas that have the adapter; only
where an adapter comes from is ours.
"""

import asyncio
import secrets
from collections.abc import Sequence
from functools import partial

from ray.llm._internal.serve.core.configs.llm_config import DiskMultiplexConfig
from ray.serve.llm import LLMConfig
from ray.serve.llm.deployment import LLMServer

from haloforge.errors import InputError
from haloforge.model.bases import Base
from haloforge.model.places import base_on_this_node, on_this_node
from haloforge.rollout.cores import own_cores
from haloforge.rollout.vllm_engine import prepare_process
from haloforge.serve.catalogue import Catalogue


class RefusedError(Exception):
    """A request that cannot be answered; the client is told the reason, with `status`."""

    def __init__(self, reason: str, status: int = 404) -> None:
        super().__init__(reason, status)
        self.reason, self.status = reason, status


class AdapterServer(LLMServer):
    """One engine with one base, and the adapters on it that requests name."""

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits it
        self,
        llm_config: LLMConfig,
        *,
        base: Base,
        sources: Sequence[str],
        lora_rank: int,
        on_cpu: bool,
    ) -> None:
        prepare_process(own_cores() if on_cpu else None)  # the GPUs are its workers', not its own
        here = await asyncio.to_thread(base_on_this_node, base)
        llm_config.model_loading_config.model_source = str(here.path)
        # Of replicas with one seed, each would answer as the others did.
        llm_config.update_engine_kwargs(seed=secrets.randbelow(2**31))
        loader = partial(AdapterLoader, Catalogue(sources), base, lora_rank)
        await super().__init__(llm_config, model_downloader=loader)


class AdapterLoader:
    """Finds adapters by the ids that requests give, in place of Ray's loader from a bucket."""

    def __init__(
        self, catalogue: Catalogue, base: Base, lora_rank: int, **_timing: float | int | None
    ) -> None:
        self._catalogue, self._base, self._lora_rank = catalogue, base, lora_rank
        self._loaded = 0

    async def load_model_from_config(
        self, lora_model_id: str, llm_config: LLMConfig
    ) -> DiskMultiplexConfig:
        """The folder of an adapter on this node. Raises RefusedError where there is none, or the
        engine cannot take it."""
        try:
            policy = await asyncio.to_thread(self._catalogue.adapter, lora_model_id)
            policy = await asyncio.to_thread(on_this_node, policy)
        except InputError as error:
            raise RefusedError(str(error)) from None
        if policy.base.digest != self._base.digest:
            raise RefusedError(f"{policy.name} is no adapter on the base that is served")
        if policy.lora_rank > self._lora_rank:
            raise RefusedError(
                f"{policy.name} has rank {policy.lora_rank}, the engine was started for "
                f"{self._lora_rank}: start it with serve.max_lora_rank={policy.lora_rank}"
            )
        self._loaded += 1
        return DiskMultiplexConfig(
            model_id=lora_model_id,
            max_total_tokens=None,
            local_path=str(policy.adapter),
            lora_assigned_int_id=self._loaded,
        )
