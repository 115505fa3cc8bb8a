"""The nodes that Ray has and those that may still come, so that no stage waits for one that cannot.

Where nothing adds nodes, what does not fit is refused at once. An autoscaler is asked for what is
missing; for that is waited, which is told, and not for ever.
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import ray
import ray.autoscaler.sdk
import yaml

from haloforge.config import RaySettings, Settings
from haloforge.errors import ResourceError
from haloforge.placement import Cluster, Fleet, Placement, fleet, place
from haloforge.plan.nodes import Node, fleet_of, seat
from haloforge.report.progress import Report

Resources = Mapping[str, float]
_T = TypeVar("_T")
_LOOK_S = 2.0
_TELL_S = 15.0
# Of the cluster that `ray up` started; on its head, where a job's driver is.
_LAUNCHED = Path("~/ray_bootstrap_config.yaml")


def living() -> list[dict[str, float]]:
    """The resources of each node that is there."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def limits(settings: RaySettings) -> dict[str, float]:
    """What the cluster can have of each resource when its autoscaler has added all that it may;
    empty where nothing adds nodes. As `ray.scales_to` says, or what Ray or `ray up` was given."""
    if settings.scales_to is not None:
        return dict(settings.scales_to)
    known = ray._private.state.state.get_max_resources_from_cluster_config()
    return dict(known) if known else _launched(_LAUNCHED.expanduser())


def _launched(path: Path) -> dict[str, float]:
    try:
        config = yaml.safe_load(path.read_text())
        kinds = config["available_node_types"]
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError):
        return {}
    total: dict[str, float] = {}
    for name, kind in kinds.items():
        count = 1 if name == config.get("head_node_type") else kind.get("max_workers", 0)
        for resource, each in (kind.get("resources") or {}).items():
            total[resource] = total.get(resource, 0.0) + count * each
    return total


@dataclass(frozen=True)
class Wanted:
    """What has to be there: bundles of resources, each on one node."""

    what: str
    bundles: tuple[dict[str, float], ...]

    def beyond(self, most: Resources) -> str:
        """What a cluster of `most` can never have of it, with the numbers; empty where it can."""
        needed: dict[str, float] = {}
        for bundle in self.bundles:
            for name, amount in bundle.items():
                needed[name] = needed.get(name, 0.0) + amount
        lacking = [
            f"{amount:g} {name} of at most {most.get(name, 0):g}"
            for name, amount in needed.items()
            if amount > most.get(name, 0)
        ]
        return ", ".join(lacking)


def when_there(find: Callable[[], _T], wanted: Wanted, settings: RaySettings, report: Report) -> _T:
    """What `find` returns as soon as it raises no ResourceError, which it does while nodes lack.

    Raises that error where nothing adds nodes, and one that says more where not enough can be
    added, or where none came within `ray.wait_s`.
    """
    began = told = time.monotonic()
    while True:
        try:
            return find()
        except ResourceError as error:
            lacking = error
        most = limits(settings)
        if not most:
            raise lacking
        if beyond := wanted.beyond(most):
            raise ResourceError(
                f"{lacking}; the autoscaler cannot help: {wanted.what} take {beyond}"
            )
        now = time.monotonic()
        if now - began > settings.wait_s:
            raise ResourceError(
                f"{lacking}; the autoscaler was asked for {wanted.what}, and they did not come in "
                f"{settings.wait_s:g} s (ray.wait_s)"
            )
        if now - told >= _TELL_S or told == began:
            told = now
            report.say(
                f"waiting for nodes for {wanted.what}: {lacking}; {now - began:.0f} s so far, "
                f"{settings.wait_s:g} at most"
            )
        ray.autoscaler.sdk.request_resources(bundles=[*wanted.bundles])
        time.sleep(_LOOK_S)


def find_placement(settings: Settings, report: Report) -> Placement:
    """Who gets what of the nodes that are there, waited for where they may still come.

    Raises ResourceError, with the numbers, where engines and trainers have no room.
    """
    rollout, trainers = settings.rollout, settings.train.workers or 1
    gpus = bool(limits(settings.ray).get("GPU") or any(node.get("GPU") for node in living()))
    steer = {settings.ray.compute_resource: 0.001} if settings.ray.compute_resource else {}
    each = [("GPU" if gpus else "CPU", rollout.tensor_parallel)] * rollout.engines
    if rollout.placement != "colocated":
        each += [("GPU" if gpus else "CPU", 1)] * trainers
    wanted = Wanted(
        f"{rollout.engines} engines and {trainers} trainers",
        tuple({kind: float(count), **steer} for kind, count in each),
    )
    return when_there(lambda: _placement(settings, gpus), wanted, settings.ray, report)


def _placement(settings: Settings, gpus: bool) -> Placement:
    rollout, resource = settings.rollout, settings.ray.compute_resource
    nodes = living()
    computing = [
        node
        for node in nodes
        if node.get("CPU") and (node.get("GPU") or not gpus) and node.get(resource or "CPU")
    ]
    if not computing:
        named = f" and the Ray resource '{resource}' of ray.compute_resource" if resource else ""
        raise ResourceError(f"no node has {'a GPU' if gpus else 'a CPU'}{named}")
    cluster = Cluster(
        cpus=sum(node["CPU"] for node in computing),
        gpus=sum(node.get("GPU", 0.0) for node in computing),
        local_cores=os.cpu_count() or 1,
        nodes=tuple(node["CPU"] for node in computing),
        node_gpus=tuple(node.get("GPU", 0.0) for node in computing),
    )
    placed = place(
        cluster, rollout.engines, rollout.tensor_parallel, settings.train.workers, rollout.placement
    )
    if gpus:  # which lie in pieces on nodes; of CPUs `place` sees to that
        seats = [
            Node(node.get("CPU", 0.0), int(node.get("GPU", 0)), 0.0, 0.0, node not in computing)
            for node in nodes
        ]
        seat(seats, placed, fleet_of(seats, settings.verify), settings.verify)
    return replace(placed, resource=resource)


def find_fleet(settings: Settings, report: Report) -> Fleet:
    """The verifiers that may be started now, waited for where their nodes may still come.

    Raises ResourceError where no node may verify.
    """
    resource = settings.verify.resource or "CPU"
    wanted = Wanted("verifiers", ({resource: 0.001},))

    def found() -> Fleet:
        cpus = [node.get("CPU", 0.0) for node in living() if node.get(resource)]
        if not sum(cpus):
            raise ResourceError(
                f"no node with a CPU has the Ray resource '{resource}' of verify.resource: start "
                f"one with ray start --resources='{{\"{resource}\": 1}}'"
                if settings.verify.resource
                else "no node has a CPU for verifiers"
            )
        return fleet(sum(cpus), settings.verify)

    return when_there(found, wanted, settings.ray, report)
