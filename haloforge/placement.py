"""Shares of the machine or cluster for engines, verifiers and trainers, none of which can starve.

Ray books CPUs, it does not measure them: an engine and two trainers of one CPU each wait for each
other for ever on two cores. Here every part is booked so that all that live at the same time fit
into what Ray has: engines stay for the whole run, beside them run either verifiers or trainers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from haloforge.errors import ResourceError
from haloforge.verify.settings import VerifySettings

# Shares of all CPUs booked by each part. The rest is left to Ray Data's and Ray Train's own tasks.
_ENGINE_SHARE = 0.25
_BESIDE_SHARE = 0.5


@dataclass(frozen=True)
class Cluster:
    """What Ray offers in all: logical CPUs, GPUs, and the cores of this machine.

    `nodes` are the CPUs of each node that computes (has a GPU, where any has); without it there is
    one.
    """

    cpus: float
    gpus: float
    local_cores: int
    nodes: tuple[float, ...] = ()


@dataclass(frozen=True)
class Placement:
    """Bookings of each actor, in CPUs and GPUs, and how many there are of each kind.

    `cores_per_engine` are the cores that each CPU engine binds its threads to; it is empty tuples
    on a GPU. `threads_per_trainer` is what a trainer really uses, which on a CPU is more than it
    books, since engines idle while it trains.
    """

    engines: int
    cpus_per_engine: float
    gpus_per_engine: float
    cores_per_engine: tuple[tuple[int, ...], ...]
    trainers: int
    cpus_per_trainer: float
    gpus_per_trainer: float
    threads_per_trainer: int


@dataclass(frozen=True)
class Fleet:
    """How many verifier actors there may be, the CPUs that each books, and the custom Ray resource
    of the nodes that they are steered to."""

    min_actors: int
    max_actors: int
    cpus_per_actor: float
    resource: str | None = None

    @property
    def steering(self) -> dict[str, Any]:
        """The options of Ray that book the resource: so little of it that it steers, not counts."""
        return {"resources": {self.resource: 0.001}} if self.resource else {}


def fleet(cpus: float, settings: VerifySettings) -> Fleet:
    """Verifiers for the `cpus` of the nodes that they may use, beside engines.

    By default up to one a CPU, also where a CPU engine computes: its cores idle whenever it waits
    for verdicts.
    """
    least = settings.actors or settings.min_actors or 1
    most = settings.actors or settings.max_actors or max(int(cpus), least)
    return Fleet(least, most, cpus * _BESIDE_SHARE / most, settings.resource)


def place(
    cluster: Cluster, engines: int, tensor_parallel: int = 1, trainers: int | None = None
) -> Placement:
    """Bookings that fit `cluster`: engines with trainers, and room for a fleet of verifiers.

    None for `trainers` is one a GPU that engines leave over, one in all on CPUs. A single GPU is
    shared by one engine and one trainer, half and half. Raises ResourceError naming the setting to
    lower.
    """
    if cluster.cpus < 1:
        raise ResourceError(f"Ray has {cluster.cpus:g} CPUs; at least 1 is needed")
    on_gpu = cluster.gpus >= 1
    shared = cluster.gpus == 1 and engines * tensor_parallel == 1 and trainers in (None, 1)
    trainer_gpus = 0.5 if shared else 1.0 if on_gpu else 0.0
    engine_gpus = 0.5 if shared else float(tensor_parallel) if on_gpu else 0.0
    spare_gpus = cluster.gpus - engines * engine_gpus
    if trainers is None:
        trainers = max(1, int(spare_gpus)) if on_gpu else 1
    if on_gpu and spare_gpus < trainers * trainer_gpus:
        raise ResourceError(
            f"{engines} engines of {engine_gpus:g} GPUs and {trainers} trainers of 1 need "
            f"{engines * engine_gpus + trainers:g} GPUs, Ray has {cluster.gpus:g}: lower "
            "rollout.engines, rollout.tensor_parallel or train.workers"
        )
    if not on_gpu and tensor_parallel > 1:
        raise ResourceError("rollout.tensor_parallel needs GPUs; on CPUs leave it at 1")
    if not on_gpu and engines > cluster.local_cores:
        raise ResourceError(
            f"{engines} CPU engines for {cluster.local_cores} cores: lower rollout.engines"
        )
    nodes = cluster.nodes or (cluster.cpus,)
    cpus_per_trainer = _most_each([cpus * _BESIDE_SHARE for cpus in nodes], trainers)
    return Placement(
        engines=engines,
        cpus_per_engine=_most_each([cpus * _ENGINE_SHARE for cpus in nodes], engines),
        gpus_per_engine=engine_gpus,
        cores_per_engine=((),) * engines if on_gpu else _split_cores(cluster.local_cores, engines),
        trainers=trainers,
        cpus_per_trainer=cpus_per_trainer,
        gpus_per_trainer=trainer_gpus,
        threads_per_trainer=max(1, min(cluster.local_cores, int(cpus_per_trainer / _BESIDE_SHARE))),
    )


def _most_each(shares: Sequence[float], count: int) -> float:
    """The most CPUs that each of `count` actors can book of the nodes' `shares`: none is cut."""
    ways = {share / actors for share in shares if share for actors in range(1, count + 1)}
    fitting = (way for way in ways if sum(int(share / way + 1e-9) for share in shares) >= count)
    return max(fitting)


def _split_cores(cores: int, engines: int) -> tuple[tuple[int, ...], ...]:
    bounds = [round(i * cores / engines) for i in range(engines + 1)]
    return tuple(tuple(range(a, b)) for a, b in pairwise(bounds))
