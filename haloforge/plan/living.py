"""Whether a model fits the memory of the nodes that Ray has, before anything is started on them."""

import subprocess
from collections.abc import Sequence
from dataclasses import replace

from haloforge.config import Settings
from haloforge.each_node import NodeInfo, on_each
from haloforge.errors import ResourceError
from haloforge.model.policy import Policy
from haloforge.placement import Part, Placement
from haloforge.plan.nodes import Node, seat
from haloforge.plan.room import memory_of
from haloforge.plan.shape import shape_at

# What of `Memory.misfits` they are.
_PHASES = {"engines": ("engine", "swap the policy"), "trainers": ("trainer", "train")}
_ASK = ("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits")


def gpu_memory_gb() -> float | None:
    """Of this machine's smallest GPU, in 2^30 bytes; None where its driver cannot be asked."""
    try:
        told = subprocess.run(_ASK, capture_output=True, text=True, check=True, timeout=30).stdout
        return min(float(line) for line in told.splitlines()) / 1024
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def with_gpu_memory(computing: Sequence[tuple[NodeInfo, Node]]) -> list[Node]:
    """The nodes, those with GPUs asked for their memory."""
    nodes = {info["NodeID"]: node for info, node in computing}
    having = [info for info, node in computing if node.gpus]
    for info, told in on_each(having, gpu_memory_gb):
        if isinstance(told, float):
            nodes[info["NodeID"]] = replace(nodes[info["NodeID"]], gpu_memory_gb=told)
    return list(nodes.values())


def check_memory(
    nodes: Sequence[Node],
    placement: Placement,
    policy: Policy,
    settings: Settings,
    parts: Sequence[Part],
) -> None:
    """Raises ResourceError, with the numbers, where one of the `parts` that `policy` has does not
    fit the memory of the nodes that compute.

    What is guessed is left out: what processes take beside the model, and sandboxes, which seldom
    reach their limit.
    """
    workers = settings.train.model_copy(update={"workers": placement.trainers})
    settings = settings.model_copy(update={"train": workers})
    shape, seats = shape_at(policy, settings), seat(nodes, placement)
    misfits = memory_of(shape, seats, placement, settings, process_gb=0).misfits
    for phase in (phase for part in parts for phase in _PHASES[part]):
        if phase in misfits:
            raise ResourceError(f"{misfits[phase]} (ray.check_memory=false tries it all the same)")
