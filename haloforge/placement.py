"""Shares of the machine or cluster for engines, verifiers and trainers, none of which can starve.

Ray books CPUs, it does not measure them: an engine and two trainers of one CPU each wait for each
other for ever on two cores. Here every part is booked so that all that live at the same time fit
into what Ray has when the run begins: engines stay for the whole run, beside them run either
verifiers or trainers.

After a node is lost they may not fit. Then verifiers are booked anew for what is left (`watch.py`),
the run goes on without an engine that has no room, or ends if it was the last, and trainers keep
the bookings that they had: they wait for a node with room, or are refused where Ray has too little
in all. The same command, run again, books for the nodes that there are.

On GPUs there are two ways (`rollout.placement`), neither of them tried: no GPU was at hand.
'disaggregated': engines and trainers have GPUs of their own. 'colocated': one engine and one
trainer on each GPU, in turn; engines sleep while trainers train.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

from haloforge.errors import ResourceError
from haloforge.verify.settings import VerifySettings

# Shares of all CPUs booked by each part. The rest is left to Ray Data's and Ray Train's own tasks.
_ENGINE_SHARE = 0.25
_BESIDE_SHARE = 0.5
# Shares of a GPU that an engine and a trainer book where they take turns on it. Ray packs fractions
# of GPUs as it likes; of these only one engine and one trainer fit on one, never two engines (1.2),
# nor an engine and two trainers (1.4).
_COLOCATED_ENGINE, _COLOCATED_TRAINER = 0.6, 0.4

Layout = Literal["auto", "disaggregated", "colocated"]
Part = Literal["engines", "trainers"]


@dataclass(frozen=True)
class Cluster:
    """What Ray offers in all: logical CPUs, GPUs, and the cores of this machine.

    `nodes` are the CPUs of each node that computes (has a GPU, where any has); without it there is
    one. `node_gpus` are the GPUs of each; without it all have equally many.
    """

    cpus: float
    gpus: float
    local_cores: int
    nodes: tuple[float, ...] = ()
    node_gpus: tuple[float, ...] = ()


@dataclass(frozen=True)
class Placement:
    """Bookings of each actor, in CPUs and GPUs, and how many there are of each kind.

    `threads_per_trainer` is what a trainer really uses, which on a CPU is more than it books, since
    engines idle while it trains. `engines_sleep` says that engines give their GPU's memory back
    while trainers train. `resource` is the custom Ray resource of the only nodes for both.
    """

    engines: int
    cpus_per_engine: float
    gpus_per_engine: float
    trainers: int
    cpus_per_trainer: float
    gpus_per_trainer: float
    threads_per_trainer: int
    engines_sleep: bool = False
    resource: str | None = None

    @property
    def steering(self) -> dict[str, float]:
        """What engines and trainers book of the resource that steers them."""
        return _steering(self.resource)


@dataclass(frozen=True)
class Fleet:
    """How many verifier actors there may be, the CPUs that each books, and the custom Ray resource
    of the only nodes that they may use."""

    min_actors: int
    max_actors: int
    cpus_per_actor: float
    resource: str | None = None

    @property
    def steering(self) -> dict[str, Any]:
        """The options of Ray that book the resource."""
        return {"resources": _steering(self.resource)} if self.resource else {}


def _steering(resource: str | None) -> dict[str, float]:
    """So little of it that it steers, not counts."""
    return {resource: 0.001} if resource else {}


def fleet(cpus: float, settings: VerifySettings) -> Fleet:
    """Verifiers for the `cpus` of the nodes that they may use, beside engines.

    By default up to one a CPU, also where a CPU engine computes: its cores idle whenever it waits
    for verdicts.
    """
    least = settings.actors or settings.min_actors or 1
    most = settings.actors or settings.max_actors or max(int(cpus), least)
    return Fleet(least, most, cpus * _BESIDE_SHARE / most, settings.resource)


def place(
    cluster: Cluster,
    engines: int,
    tensor_parallel: int = 1,
    trainers: int | None = None,
    layout: Layout = "auto",
) -> Placement:
    """Bookings that fit `cluster`: engines with trainers, and room for a fleet of verifiers.

    None for `trainers` is one a GPU that engines leave over, or one a GPU where they are colocated;
    one in all on CPUs. 'auto' for `layout` is colocated on a single GPU with one engine and one
    trainer, else disaggregated. Raises ResourceError naming the setting to change.
    """
    if cluster.cpus < 1:
        raise ResourceError(f"Ray has {cluster.cpus:g} CPUs; at least 1 is needed")
    if layout == "auto":
        alone = cluster.gpus == 1 and engines * tensor_parallel == 1 and trainers in (None, 1)
        layout = "colocated" if alone else "disaggregated"
    if cluster.gpus < 1:
        _check_cpus(cluster, engines, tensor_parallel)
        engine_gpus, trainer_gpus, trainers = 0.0, 0.0, trainers or 1
    elif layout == "colocated":
        _check_colocated(cluster, engines, tensor_parallel, trainers)
        engine_gpus, trainer_gpus = _COLOCATED_ENGINE, _COLOCATED_TRAINER
        trainers = trainers or engines
    else:
        engine_gpus, trainer_gpus = float(tensor_parallel), 1.0
        trainers = trainers or max(1, int(cluster.gpus - engines * engine_gpus))
        _check_disaggregated(cluster, engines, tensor_parallel, trainers)
    cpus_per_engine = _cpus_each(cluster, _ENGINE_SHARE, engines, engine_gpus)
    cpus_per_trainer = _cpus_each(cluster, _BESIDE_SHARE, trainers, trainer_gpus)
    return Placement(
        engines=engines,
        cpus_per_engine=cpus_per_engine,
        gpus_per_engine=engine_gpus,
        trainers=trainers,
        cpus_per_trainer=cpus_per_trainer,
        gpus_per_trainer=trainer_gpus,
        threads_per_trainer=max(1, min(cluster.local_cores, int(cpus_per_trainer / _BESIDE_SHARE))),
        engines_sleep=0 < engine_gpus < 1,
    )


def place_replicas(cluster: Cluster, least: int, most: int, tensor_parallel: int = 1) -> Placement:
    """Bookings of `least` engines that serve, such that `most` fit if there is room for them; with
    neither trainers nor verifiers beside them.

    Raises ResourceError naming the setting to change.
    """
    least = max(1, least)  # where there may be none, one comes with the first request
    needed, there, what = least * tensor_parallel, cluster.gpus, "GPUs"
    gpus = float(tensor_parallel)
    if cluster.gpus < 1:
        needed, there, what, gpus = least, cluster.cpus, "CPUs", 0.0
        if tensor_parallel > 1:
            _check_cpus(cluster, 1, tensor_parallel)
    if needed > there:
        raise ResourceError(
            f"{least} replicas need {needed} {what}, Ray has {there:g}: lower "
            "serve.min_replicas or rollout.tensor_parallel, or serve models of fewer bases"
        )
    cpus = _cpus_each(cluster, _BESIDE_SHARE, most, gpus)
    return Placement(least, cpus, gpus, 1, 0.0, 0.0, 1)  # a trainer that books nothing


def _check_cpus(cluster: Cluster, engines: int, tensor_parallel: int) -> None:
    if tensor_parallel > 1:
        raise ResourceError("rollout.tensor_parallel needs GPUs; on CPUs leave it at 1")
    if engines > cluster.cpus:
        raise ResourceError(
            f"{engines} CPU engines for {cluster.cpus:g} CPUs: lower rollout.engines"
        )


def _check_colocated(
    cluster: Cluster, engines: int, tensor_parallel: int, trainers: int | None
) -> None:
    if tensor_parallel > 1:
        raise ResourceError(
            f"rollout.tensor_parallel={tensor_parallel} with rollout.placement=colocated: there an "
            "engine has one GPU; set tensor_parallel to 1 or placement to disaggregated"
        )
    # With fewer engines, two trainers would fit on a GPU that has none.
    if engines != cluster.gpus or (trainers or engines) > engines:
        raise ResourceError(
            f"rollout.placement=colocated puts one engine and at most one trainer on each of Ray's "
            f"{cluster.gpus:g} GPUs: set rollout.engines={cluster.gpus:g} and train.workers to no "
            "more, or placement to disaggregated"
        )


def _check_disaggregated(
    cluster: Cluster, engines: int, tensor_parallel: int, trainers: int
) -> None:
    needed = engines * tensor_parallel + trainers
    if needed > cluster.gpus:
        raise ResourceError(
            f"{engines} engines of {tensor_parallel} GPUs and {trainers} trainers of 1 need "
            f"{needed} GPUs, Ray has {cluster.gpus:g}: lower rollout.engines, "
            "rollout.tensor_parallel or train.workers, or set rollout.placement=colocated"
        )


def _cpus_each(cluster: Cluster, share: float, count: int, gpus_each: float) -> float:
    """The most CPUs that each of `count` actors of `gpus_each` GPUs can book of the nodes' shares.

    Actors with GPUs go where those are free, and may crowd on one node: a node's share is enough
    for as many as its GPUs allow.
    """
    nodes = cluster.nodes or (cluster.cpus,)
    if not gpus_each:
        return _most_each([cpus * share for cpus in nodes], count)
    gpus = cluster.node_gpus or [ceil(cluster.gpus / len(nodes))] * len(nodes)
    crowds = [min(count, int(most // max(1, gpus_each))) for most in gpus]
    return min(cpus * share / max(1, crowd) for cpus, crowd in zip(nodes, crowds, strict=True))


def _most_each(shares: Sequence[float], count: int) -> float:
    """The most CPUs that each of `count` actors can book of the nodes' `shares`: none is cut."""
    ways = {share / actors for share in shares if share for actors in range(1, count + 1)}
    fitting = (way for way in ways if sum(int(share / way + 1e-9) for share in shares) >= count)
    return max(fitting)
