"""The rollout stage of Ray Data: proxies that stream requests through the engines."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import ray
from ray.actor import ActorHandle
from ray.data import DataContext

from haloforge.rollout.engine import Prompt
from haloforge.rollout.pool import EnginePool
from haloforge.rollout.settings import Sampling
from haloforge.schema import SAMPLE_SCHEMA

# Requests sent, over those that an engine computes at once: one is always waiting there when
# another ends, so that no step of the engine runs below its full batch.
_WAITING = 1.5
# Requests in one proxy. Many, so that its window of requests seldom runs empty.
_BLOCK_ROWS = 4096


def rollout(
    requests: pa.Table,
    engines: Sequence[ActorHandle],
    prompts: ray.ObjectRef,
    sampling: Sampling,
    window: int,
) -> Iterator[pa.Table]:
    """Rows of `requests` (sample_id, problem_id, cycle, index) as rows of SAMPLE_SCHEMA.

    A proxy: it holds no model, for the engines outlive the data set. Each sample is handed on when
    it is finished, whatever the others do; `window` requests are under way.
    """
    by_problem: dict[str, Prompt] = ray.get(prompts)
    shape = sampling.model_dump_json()
    waiting = deque(requests.to_pylist())
    in_flight = [0] * len(engines)
    sent: dict[ray.ObjectRef, tuple[dict[str, Any], int]] = {}
    while waiting or sent:
        while waiting and len(sent) < window:
            row = waiting.popleft()
            engine = min(range(len(in_flight)), key=in_flight.__getitem__)
            in_flight[engine] += 1
            answer = engines[engine].generate.remote(by_problem[row["problem_id"]], sampling)
            sent[answer] = row, engine
        (answer, *_), _ = ray.wait(list(sent), num_returns=1)
        row, engine = sent.pop(answer)
        in_flight[engine] -= 1
        sample = {**row, **ray.get(answer), "sampling": shape}
        yield pa.Table.from_pylist([sample], schema=SAMPLE_SCHEMA)


def rows_of(dataset: ray.data.Dataset) -> Iterator[dict[str, Any]]:
    """The rows of `dataset` as they come, in any order, block by block."""
    for bundle in dataset.iter_internal_ref_bundles():
        for block in bundle.blocks:
            yield from ray.get(block.ref).to_pylist()


def rollout_stage(
    requests: Sequence[dict[str, Any]],
    pool: EnginePool,
    prompts: ray.ObjectRef,
    sampling: Sampling,
) -> ray.data.Dataset:
    """One sample a request, each in a block of its own, in the order they finish.

    `prompts` refers to a dict from problem_id to `Prompt`. A proxy that dies and is started again
    may hand on a sample twice or not at all, since that order is not the same twice: whoever
    consumes the samples counts them by `sample_id`. Proxies are tasks, not actors: a worker of Ray
    that is there already runs them, where a new one costs three seconds of a laptop's two cores.
    """
    proxies = len(pool.engines)
    blocks = min(len(requests), max(proxies, -(-len(requests) // _BLOCK_ROWS)))
    window = int(pool.max_num_seqs * _WAITING)
    context = DataContext.get_current()
    context.target_max_block_size = 1  # bytes: a block ends after each row
    # By default a task rests while two of its blocks wait to be fetched, which is done ten times a
    # second at best; this bounds what waits for verification to one window a proxy.
    context._max_num_blocks_in_streaming_gen_buffer = window
    return ray.data.from_items(list(requests), override_num_blocks=blocks).map_batches(
        rollout,
        fn_kwargs={
            "engines": pool.engines,
            "prompts": prompts,
            "sampling": sampling,
            "window": window,
        },
        compute=ray.data.TaskPoolStrategy(size=proxies),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=0,
    )
