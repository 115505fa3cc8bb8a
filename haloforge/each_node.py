"""A question that every node is asked at once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_PATIENCE_S = 60.0
_T = TypeVar("_T")
NodeInfo = Mapping[str, Any]


def on_each(
    nodes: Sequence[NodeInfo], question: Callable[[], _T]
) -> Iterator[tuple[NodeInfo, _T | RayError | None]]:
    """Each of `nodes`, as `ray.nodes()` tells of it, with what `question` returned there: the error
    where it could not be asked, None where it did not answer within a minute."""
    named = f"{question.__module__}.{question.__qualname__}"  # as the Ray dashboard has it
    ask = ray.remote(num_cpus=0, max_retries=0, name=named)(question)
    asked = {
        ask.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(): node
        for node in nodes
    }
    if not asked:
        return
    answered, late = ray.wait([*asked], num_returns=len(asked), timeout=_PATIENCE_S)
    for reference in late:
        yield asked[reference], None
    for reference in answered:
        try:
            yield asked[reference], ray.get(reference)
        except RayError as error:
            yield asked[reference], error


def name_of(node: NodeInfo) -> str:
    """What people call the node."""
    return str(node.get("NodeName") or node["NodeManagerAddress"])
