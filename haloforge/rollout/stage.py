"""The rollout stage of Ray Data: proxies that stream requests through the engines."""

import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray
from ray.actor import ActorHandle
from ray.util.annotations import RayDeprecationWarning

from haloforge.groups import HAND_ON_S, group
from haloforge.model.policy import Policy
from haloforge.rollout.dispatch import Dispatch
from haloforge.rollout.pool import EnginePool
from haloforge.rollout.requests import Requests
from haloforge.rollout.settings import Sampling
from haloforge.schema import SAMPLE_SCHEMA

# Requests sent, over those that an engine computes at once: one is always waiting there when
# another ends, so that no step of the engine runs below its full batch.
_WAITING = 1.5
# Requests in one proxy. Many, so that its window of requests seldom runs empty.
_BLOCK_ROWS = 65_536
_GROUPS_TO_FETCH = 16
# Samples in a group at most: it is judged as a whole, and anew where its verifier dies.
_GROUP_SAMPLES = 64


def rollout(
    numbers: pa.Table,
    engines: Sequence[ActorHandle],
    asked: "ray.ObjectRef[Any]",
    sampling: Sampling,
    policy: Policy,
    window: int,
    restart_timeout_s: float,
) -> Iterator[pa.Table]:
    """Groups of finished samples for the requests with these `numbers`.

    A proxy: it holds no model, for the engines outlive the data set. It begins with the engine that
    `numbers` name as `first`. A sample is handed on when it is finished, whatever the others do;
    `window` requests are under way. What an engine had under way when it died goes to another, or
    to itself if it is back in `restart_timeout_s`.
    """
    requests: Requests = ray.get(asked)
    shape = sampling.model_dump_json()
    first = numbers["first"][0].as_py()
    dispatch = Dispatch[int](engines, policy, sampling, restart_timeout_s, requests.prompt, first)
    handed_on = 0.0
    for answered in dispatch.answers(numbers["number"].to_pylist(), window):
        samples = [
            {**requests.sample(number), **answer, "sampling": shape} for number, answer in answered
        ]
        for start in range(0, len(samples), _GROUP_SAMPLES):
            yield group(samples[start : start + _GROUP_SAMPLES], SAMPLE_SCHEMA)
        time.sleep(max(0.0, handed_on + HAND_ON_S - time.monotonic()))
        handed_on = time.monotonic()


def rollout_stage(
    numbers: "npt.NDArray[np.int64]",
    pool: EnginePool,
    asked: "ray.ObjectRef[Any]",
    sampling: Sampling,
) -> ray.data.Dataset:
    """Groups of samples (see `groups.py`), one sample for each of `numbers`, in the order in which
    they finish.

    `asked` refers to the `Requests` that the numbers count. Where a proxy dies the stage ends with
    Ray's error: run again by Ray it would ask for all of its samples again. Proxies are tasks, not
    actors: a worker of Ray that is there already runs them, where a new one costs three seconds of
    a laptop's two cores.
    """
    proxies = len(pool.engines)
    blocks = min(len(numbers), max(proxies, -(-len(numbers) // _BLOCK_ROWS)))
    # Each proxy begins with an engine of its own, or all would send to the same few.
    parts = [
        pa.table({"number": part, "first": np.full(len(part), place % proxies)})
        for place, part in enumerate(np.array_split(numbers, blocks))
    ]
    asking = ray.data.from_arrow(parts)
    # Of this stream alone, as in `read_rows`.
    asking.context.target_max_block_size = 1  # bytes: a block ends after each group
    # By default a task rests while two of its blocks wait to be fetched, which is done ten times a
    # second at best.
    asking.context._max_num_blocks_in_streaming_gen_buffer = _GROUPS_TO_FETCH
    with warnings.catch_warnings():
        # Ray deprecates the keyword, but has no other yet that says so of one operator.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        return asking.map_batches(
            rollout,
            fn_kwargs={
                "engines": pool.engines,
                "asked": asked,
                "sampling": sampling,
                "policy": pool.policy,
                "window": int(pool.max_num_seqs * _WAITING),
                "restart_timeout_s": pool.start_timeout_s,
            },
            compute=ray.data.TaskPoolStrategy(size=proxies),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=0,
            max_retries=0,
        )
