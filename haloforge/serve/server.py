"""A replica: Ray Serve's LLM server, with adapters from where training wrote them.

Ray's `LoraConfig` takes adapters from object storage alone, and fetches one when a request first
names it. That is kept, with its limit and its routing to replicas that have the adapter; only
where an adapter comes from is ours.
"""

import asyncio
import logging
import os
import secrets
from collections import defaultdict
from functools import partial

from ray import serve
from ray.llm._internal.serve.core.configs.llm_config import DiskMultiplexConfig
from ray.serve.llm import LLMConfig
from ray.serve.llm.deployment import LLMServer

from haloforge.errors import HaloforgeError, InputError
from haloforge.model.places import base_on_this_node, on_this_node
from haloforge.model.policy import Policy
from haloforge.rollout.vllm_engine import prepare_process
from haloforge.serve.catalogue import Catalogue

_logger = logging.getLogger("ray.serve.haloforge")
_NOT_NOW = 503


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
        base: Policy,
        sources: list[str],
        lora_rank: int,
        on_cpu: bool,
    ) -> None:
        """`base` is what the driver found, adapters of `sources` have ranks up to `lora_rank`."""
        # Replicas on one CPU share its cores; on GPUs those are the workers', not its own.
        prepare_process(sorted(os.sched_getaffinity(0)) if on_cpu else None)
        here = await asyncio.to_thread(base_on_this_node, base.base)
        read_from(llm_config, str(here.path))
        # Of replicas with one seed, each would answer as the others did.
        llm_config.update_engine_kwargs(seed=secrets.randbelow(2**31))
        catalogue = Catalogue(sources, {llm_config.model_id: base})
        self._loading: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        await super().__init__(
            llm_config, model_downloader=partial(AdapterLoader, catalogue, lora_rank)
        )

    async def _maybe_resolve_lora_from_multiplex(self) -> None:
        """Ray's own, one after the other for each adapter: of two requests that come for one that
        is not loaded yet, vLLM refuses the second. What else it has against one is in the log."""
        async with self._loading[serve.get_multiplexed_model_id()]:
            try:
                await super()._maybe_resolve_lora_from_multiplex()
            except ValueError as error:
                _logger.warning("%s", error)
                told = "the adapter cannot be loaded; the server's log says why"
                raise RefusedError(told, _NOT_NOW) from None


class AdapterLoader:
    """Finds adapters by the ids that requests give, in place of Ray's loader from a bucket."""

    def __init__(self, catalogue: Catalogue, lora_rank: int, **_timing: float | int | None) -> None:
        self._catalogue, self._lora_rank = catalogue, lora_rank

    async def load_model_from_config(
        self, lora_model_id: str, llm_config: LLMConfig
    ) -> DiskMultiplexConfig:
        """The folder of an adapter on this node. Raises RefusedError where there is none, or the
        engine cannot take it."""
        try:
            policy = await asyncio.to_thread(self._catalogue.adapter, lora_model_id)
            policy = await asyncio.to_thread(on_this_node, policy)
            rank = policy.lora_rank
        except InputError as error:
            _logger.warning("%s", error)
            raise RefusedError(f"the adapter of '{lora_model_id}' is not there") from None
        except (HaloforgeError, OSError) as error:
            _logger.warning("%s", error)
            raise RefusedError(f"'{lora_model_id}' cannot be read now", _NOT_NOW) from None
        if rank > self._lora_rank:
            raise RefusedError(
                f"'{lora_model_id}' has rank {rank}, the engine was started for "
                f"{self._lora_rank}: start it with serve.max_lora_rank={rank}"
            )
        return DiskMultiplexConfig(
            model_id=lora_model_id,
            max_total_tokens=None,
            local_path=str(policy.adapter),
            lora_assigned_int_id=0,  # vLLM gives its own
        )


def read_from(llm_config: LLMConfig, path: str) -> None:
    """Has the engine read its base from this folder: what Ray worked out where the app was built
    came along with the configuration."""
    llm_config.model_loading_config.model_source = path
    llm_config.get_engine_config().hf_model_id = path
