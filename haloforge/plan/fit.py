"""Does a configuration fit: who goes where, what each takes, and whether there is so much."""

from dataclasses import dataclass
from pathlib import Path

from haloforge.config import Settings
from haloforge.errors import InputError, ResourceError
from haloforge.placement import Fleet, Placement, place
from haloforge.plan.hours import Rates, Stage, cycle_samples, rates_of, stages_of
from haloforge.plan.memory import GB, Items, disk
from haloforge.plan.nodes import Node, Seats, cluster_of, fleet_of, nodes_of, seat, seat_verifiers
from haloforge.plan.room import Memory, listed, memory_of
from haloforge.plan.shape import shape_of


@dataclass(frozen=True)
class Plan:
    """Who goes where, and what it takes. `hours_unknown` says why there are no `stages`, `misfits`
    what does not fit and what to change."""

    memory: Memory
    placement: Placement
    fleet: Fleet
    seats: list[Seats]
    disks: list[Items]
    rates: Rates
    stages: list[Stage]
    hours_unknown: str | None
    misfits: list[str]

    def require_fit(self) -> None:
        """Raises ResourceError for the first thing that does not fit."""
        if self.misfits:
            raise ResourceError(self.misfits[0])


def plan(settings: Settings, measured: Path | None = None) -> Plan:
    """The plan for the machines that `settings.plan` describes, with the rates of the RAFT run in
    `measured`, if that is given. Raises what `plan_on` raises."""
    return plan_on(nodes_of(settings.plan), settings, measured)


def plan_on(nodes: list[Node], settings: Settings, measured: Path | None = None) -> Plan:
    """The plan for `nodes`.

    Raises ResourceError where the actors have no room there, InputError where the model's form is
    not known or no engine can be cut or as long as asked for.
    """
    cluster, rollout = cluster_of(nodes), settings.rollout
    placement = place(
        cluster, rollout.engines, rollout.tensor_parallel, settings.train.workers, rollout.placement
    )
    seats = seat(nodes, placement)
    judges = fleet_of(nodes, settings.verify)
    seat_verifiers(seats, judges, settings.verify)
    memory = memory_of(shape_of(settings), seats, placement, settings)
    rates = rates_of(settings, measured)
    samples, stages, unknown = 0, [], None
    try:
        samples = cycle_samples(settings)
        cpus = sum(place.node.cpus for place in seats if place.verifiers)
        stages = stages_of(settings, placement, cpus, rates)
    except InputError as error:  # the problems may be at hand only where the run will be
        unknown = str(error)
    disks = [disk(seat, memory.shape, settings, samples, rates.answer_tokens) for seat in seats]
    return Plan(
        memory=memory,
        placement=placement,
        fleet=judges,
        seats=seats,
        disks=disks,
        rates=rates,
        stages=stages,
        hours_unknown=unknown,
        misfits=[*memory.misfits.values(), *_disk_misfit(disks, settings)],
    )


def _disk_misfit(disks: list[Items], settings: Settings) -> list[str]:
    limit = settings.plan.disk_gb
    largest = max(disks, key=lambda items: sum(items.values()))
    total = sum(largest.values())
    if limit is None or total <= limit * GB:
        return []
    return [f"a node takes {total / GB:.0f} GB of disk ({listed(largest)}); it has {limit:g}"]
