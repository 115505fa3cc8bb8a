"""The nodes that a plan is for, and where on them Ray can put each engine and trainer."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from haloforge.errors import ResourceError
from haloforge.placement import Cluster, Fleet, Placement, fleet
from haloforge.plan.settings import PlanSettings
from haloforge.verify.settings import VerifySettings

_ENOUGH = 1e-9  # bookings are fractions


@dataclass(frozen=True)
class Node:
    """What Ray has on a node: CPUs, GPUs; its memory and that of each GPU, in 2^30 bytes.

    `only_verifies` says that it has no GPU where others have.
    """

    cpus: float
    gpus: int
    memory_gb: float
    gpu_memory_gb: float
    only_verifies: bool = False


@dataclass
class Seats:
    """How many engines, trainers and, at most, verifiers are on a node."""

    node: Node
    engines: int = 0
    trainers: int = 0
    verifiers: int = 0
    cpus: float = field(init=False)
    gpus: list[float] = field(init=False)

    def __post_init__(self) -> None:
        self.cpus = self.node.cpus
        self.gpus = [1.0] * self.node.gpus

    def take(self, cpus: float, gpus: float) -> bool:
        """Books so much, where it is free: whole GPUs, or a part of a single one."""
        free = [n for n, left in enumerate(self.gpus) if left + _ENOUGH >= min(gpus, 1)]
        count = max(1, round(gpus)) if gpus else 0
        if self.cpus + _ENOUGH < cpus or len(free) < count:
            return False
        self.cpus -= cpus
        for n in free[:count]:
            self.gpus[n] -= min(gpus, 1)
        return True


def nodes_of(settings: PlanSettings) -> list[Node]:
    """The nodes that `settings` describe. The head, on which nothing runs, is none of them."""
    memory = settings.node_memory_gb or _memory_here()
    compute = Node(
        cpus=settings.cpus_per_node or os.cpu_count() or 1,
        gpus=settings.gpus_per_node,
        memory_gb=memory,
        gpu_memory_gb=settings.gpu_memory_gb,
    )
    verifier = Node(
        cpus=settings.verifier_cpus,
        gpus=0,
        memory_gb=settings.verifier_memory_gb or memory,
        gpu_memory_gb=0,
        only_verifies=True,
    )
    return [compute] * settings.nodes + [verifier] * settings.verifier_nodes


def cluster_of(nodes: Sequence[Node]) -> Cluster:
    """What `place` is told of the nodes: as of a living cluster."""
    gpus = sum(node.gpus for node in nodes)
    computing = [node for node in nodes if node.gpus or not gpus]
    return Cluster(
        cpus=sum(node.cpus for node in nodes),
        gpus=gpus,
        local_cores=int(computing[0].cpus),
        nodes=tuple(node.cpus for node in computing),
        node_gpus=tuple(float(node.gpus) for node in computing),
    )


def fleet_of(nodes: Sequence[Node], settings: VerifySettings) -> Fleet:
    """The verifiers: with `verify.resource` on the nodes that only verify, if there are any."""
    return fleet(sum(node.cpus for node in _judging(nodes, settings)), settings)


def _judging(nodes: Sequence[Node], settings: VerifySettings) -> list[Node]:
    apart = [node for node in nodes if node.only_verifies]
    return apart if settings.resource and apart else list(nodes)


def seat(nodes: Sequence[Node], placement: Placement) -> list[Seats]:
    """One way in which the bookings of `placement` fit the nodes: engines first, each node filled
    before the next. Ray decides by itself, and may spread them more.

    Raises ResourceError where an actor fits no node, however free: Ray would wait for ever.
    """
    seats = [Seats(node) for node in nodes]
    wanted = [
        ("engine", placement.engines, placement.cpus_per_engine, placement.gpus_per_engine),
        ("trainer", placement.trainers, placement.cpus_per_trainer, placement.gpus_per_trainer),
    ]
    for kind, count, cpus, gpus in wanted:
        for number in range(count):
            free = (place for place in seats if gpus or not place.node.only_verifies)
            found = next((place for place in free if place.take(cpus, gpus)), None)
            if found is None:
                raise ResourceError(_no_seat(kind, number, count, cpus, gpus, nodes))
            if kind == "engine":
                found.engines += 1
            else:
                found.trainers += 1
    return seats


def seat_verifiers(seats: Sequence[Seats], judges: Fleet, settings: VerifySettings) -> None:
    """Spreads the verifiers over the nodes that may have them, by their CPUs."""
    judging = _judging([place.node for place in seats], settings)
    cpus = sum(node.cpus for node in judging)
    for place in seats:
        if place.node in judging and cpus:
            place.verifiers = round(judges.max_actors * place.node.cpus / cpus)


def _no_seat(
    kind: str, number: int, count: int, cpus: float, gpus: float, nodes: Sequence[Node]
) -> str:
    most = max((node.gpus for node in nodes), default=0)
    advice = "lower train.workers or rollout.engines"
    if kind == "engine":
        advice = "lower rollout.engines or rollout.tensor_parallel"
    if gpus > most:
        advice = f"an engine's GPUs are on one node, so rollout.tensor_parallel is {most} at most"
    shapes = ", ".join(
        f"{len(list(alike))} of {node.cpus:g} CPUs and {node.gpus} GPUs"
        for node, alike in groupby(nodes)
    )
    return (
        f"{kind} {number + 1} of {count} books {gpus:g} GPUs and {cpus:g} CPUs, which no node has "
        f"left (nodes: {shapes or 'none'}): {advice}"
    )


def _memory_here() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
