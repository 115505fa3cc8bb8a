"""Which cores an engine on a CPU binds its threads to: its share of those of its node."""

import os
from collections.abc import Sequence

import ray


def own_cores() -> tuple[int, ...]:
    """The share of this node's cores of the engine actor that this process is.

    The run's engines on this node, in the order of their ids, share what the process may use. An
    engine keeps its share for as long as it lives, also when others come to the node or leave it.
    """
    context = ray.get_runtime_context()
    me, node = context.get_actor_id(), context.get_node_id()
    table = ray._private.state.actors()
    mine = table[me]
    here = sorted(
        actor
        for actor, row in table.items()
        if row["ActorClassName"] == mine["ActorClassName"]
        and row["JobID"] == mine["JobID"]
        and row["Address"]["NodeID"] == node
        and row["State"] == "ALIVE"
    )
    rank = sorted({*here, me}).index(me)
    return share_of(sorted(os.sched_getaffinity(0)), rank, len({*here, me}))


def share_of(cores: Sequence[int], rank: int, engines: int) -> tuple[int, ...]:
    """The cores of the engine number `rank` of `engines`: at least one, and all are given out."""
    first, end = rank * len(cores) // engines, (rank + 1) * len(cores) // engines
    return tuple(cores[first : max(end, first + 1)])
