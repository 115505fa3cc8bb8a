"""The rollout stage of Ray Data: an async proxy that streams requests through the engines."""

from collections.abc import Iterator, Sequence
from typing import Any

import ray
from ray.actor import ActorHandle

from haloforge.rollout.pool import EngineClient, EnginePool
from haloforge.rollout.settings import Sampling

# Requests sent, over those that the engines compute at once: one is always waiting there when
# another ends, so that no step of the engine runs below its full batch.
_WAITING = 1.5


class Rollout:
    """Adds a completion to each request row. Holds no model: the engines live outside Ray Data,
    whose actor pools last one execution."""

    def __init__(
        self, engines: Sequence[ActorHandle], prompts: ray.ObjectRef, sampling: Sampling
    ) -> None:
        self._client = EngineClient(engines)
        self._prompts: dict[str, list[int]] = ray.get(prompts)
        self._sampling = sampling
        self._sampling_text = sampling.model_dump_json()

    async def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """A request row (sample_id, problem_id, cycle, index) as a row of SAMPLE_SCHEMA."""
        prompt_ids = self._prompts[row["problem_id"]]
        answer = await self._client.call(
            lambda engine: engine.generate.remote(prompt_ids, self._sampling)
        )
        return {**row, **answer, "sampling": self._sampling_text}


def rows_of(dataset: ray.data.Dataset) -> Iterator[dict[str, Any]]:
    """The rows of `dataset` as they come, in any order, block by block."""
    for bundle in dataset.iter_internal_ref_bundles():
        for block in bundle.blocks:
            yield from ray.get(block.ref).to_pylist()


def rollout_stage(
    requests: ray.data.Dataset,
    pool: EnginePool,
    prompts: ray.ObjectRef,
    sampling: Sampling,
) -> ray.data.Dataset:
    """One sample a request, in the order they finish.

    `prompts` refers to a dict from problem_id to token ids. `requests` holds one row a block: a
    block is passed on only when all its rows are done, so that one slow answer would hold the rest.
    """
    in_flight = len(pool.engines) * int(pool.max_num_seqs * _WAITING)
    return requests.map(
        Rollout,
        fn_constructor_args=(pool.engines, prompts, sampling),
        compute=ray.data.ActorPoolStrategy(
            size=1,
            max_tasks_in_flight_per_actor=in_flight,
            max_concurrent_calls_per_actor=in_flight,
        ),
        num_cpus=0,
    )
