"""The nodes that Ray has and those that may still come, so that no stage waits for one that cannot.

What does not fit is refused at once where nothing adds nodes, and where it would not fit all that
an autoscaler may add either. Else it is asked for what is missing; for that is waited, which is
told, and not for ever. So is for nodes that were there before: who replaces a lost one is not ours.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import ray
import ray.autoscaler.sdk
import yaml

from haloforge.config import NodeKind, RaySettings, Settings
from haloforge.errors import ResourceError
from haloforge.model.policy import Policy
from haloforge.placement import Cluster, Fleet, Part, Placement, fleet, place, place_replicas
from haloforge.plan.nodes import Node, seat
from haloforge.report.progress import Report
from haloforge.versions import check_versions

Resources = Mapping[str, float]
_T = TypeVar("_T")
_LOOK_S = 2.0
_TELL_S = 15.0
# Of the cluster that `ray up` started; on its head, where a job's driver is.
_LAUNCHED = Path("~/ray_bootstrap_config.yaml")


def living() -> list[dict[str, float]]:
    """The resources of each node that is there."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def all_that_may_be(settings: RaySettings) -> list[Resources]:
    """The resources of each node when the autoscaler has added all that it may, as `ray.scales_to`
    says or `ray up` was told; empty where nothing adds nodes. KubeRay tells its cluster nothing."""
    kinds = settings.scales_to
    if kinds is None:
        kinds = _launched(_LAUNCHED.expanduser())
    return [kind.resources for kind in kinds for _ in range(kind.count)]


def _launched(path: Path) -> list[NodeKind]:
    try:
        config = yaml.safe_load(path.read_text())
        head = config.get("head_node_type")
        return [
            NodeKind(count=count, resources=kind["resources"])
            for name, kind in config["available_node_types"].items()
            if kind["resources"] and (count := 1 if name == head else kind.get("max_workers", 0))
        ]
    except (OSError, AttributeError, KeyError, TypeError, ValueError, yaml.YAMLError):
        return []


class Nodes:
    """What of the nodes a run may book; an autoscaler keeps what was asked for until `release`."""

    def __init__(self, settings: Settings, report: Report) -> None:
        self._settings, self._report = settings, report
        self._compares = False
        self._asked: dict[str, list[dict[str, float]]] = {}
        self._known: set[str] = set()
        self._had: set[str] = set()

    def compare_versions(self) -> None:
        """Raises ResourceError naming the nodes that have other versions than this process. From
        now on those that come later are asked too, before engines, trainers or verifiers start."""
        self._compares = True
        self._compare()

    def gpus(self) -> bool:
        """Whether there are GPUs, or may be."""
        nodes = [*living(), *all_that_may_be(self._settings.ray)]
        return any(node.get("GPU") for node in nodes)

    def placement(self) -> Placement:
        """Who gets what of the nodes that are there, waited for where they may still come.

        Raises ResourceError, with the numbers, where engines and trainers have no room.
        """
        gpus = self.gpus()
        return self._when_there(
            "engines and trainers",
            lambda nodes: placement_on(nodes, self._settings, gpus),
            lambda found: [*_engine_bundles(found), *_trainer_bundles(found)],
        )

    def room_for_replicas(self, bases: int) -> Placement:
        """Who gets what where each of so many bases is served, and nothing trains; waited for where
        nodes may still come. Raises ResourceError, with the numbers, where they have no room."""
        gpus = self.gpus()
        return self._when_there(
            "replicas",
            lambda nodes: replicas_on(nodes, self._settings, gpus, bases),
            _engine_bundles,
        )

    def room_for_later_replicas(self, bases: int) -> Placement:
        """The same of all nodes that may be, where Ray Serve itself waits for them."""
        nodes = all_that_may_be(self._settings.ray) or living()
        return replicas_on(nodes, self._settings, self.gpus(), bases)

    def room_for_trainers(self, placement: Placement) -> None:
        """Returns when the nodes have room for the trainers of `placement`: nodes may have gone.

        Raises ResourceError where they do not come back.
        """
        alone = replace(placement, engines=0)
        self._had.add("trainers")  # or there were no placement

        def seated(nodes: Sequence[Resources]) -> None:
            seat(_computing(nodes, placement.gpus_per_trainer > 0, placement.resource), alone)

        self._when_there("trainers", seated, lambda _: _trainer_bundles(placement))

    def check_memory(self, placement: Placement, policy: Policy, parts: Sequence[Part]) -> None:
        """Raises ResourceError, with the numbers, where one of the `parts` that `policy` has does
        not fit the memory of the nodes."""
        from haloforge.plan.living import check_memory, with_gpu_memory  # torch: not for verifiers

        gpus, resource = placement.gpus_per_engine > 0, placement.resource
        infos = [node for node in ray.nodes() if node["Alive"]]
        infos = [info for info in infos if _computes(info["Resources"], gpus, resource)]
        nodes = with_gpu_memory([(info, node_of(info["Resources"])) for info in infos])
        check_memory(nodes, placement, policy, self._settings, parts)

    def fleet(self) -> Fleet:
        """The verifiers that may be started now, waited for where their nodes may still come.

        Raises ResourceError where no node may verify.
        """

        def bundles(found: Fleet) -> list[dict[str, float]]:
            steering = {found.resource: 0.001} if found.resource else {}
            return [{"CPU": found.cpus_per_actor, **steering}] * found.min_actors

        return self._when_there("verifiers", lambda nodes: fleet_on(nodes, self._settings), bundles)

    def release(self) -> None:
        """Takes back what the autoscaler was asked for, so that idle nodes may go."""
        if self._asked:
            self._asked.clear()
            with suppress(Exception):  # of a Ray that is gone, and with it what it was asked
                ray.autoscaler.sdk.request_resources(bundles=[])

    def _compare(self) -> None:
        if self._compares:
            computing = self._settings.ray.compute_resource
            self._known |= check_versions(self._known, computing, self._report)

    def _when_there(
        self,
        what: str,
        find: Callable[[Sequence[Resources]], _T],
        bundles: Callable[[_T], list[dict[str, float]]],
    ) -> _T:
        """What `find` returns of the living nodes, as soon as it raises no ResourceError.

        Raises that error where nothing adds nodes and they were never there, one that says more
        where it would be raised for all nodes that may be, or where none came in `ray.wait_s`.
        """
        most = all_that_may_be(self._settings.ray)
        patience = self._settings.ray.wait_s
        began = time.monotonic()
        told: float | None = None
        while True:
            try:
                found = find(living())
            except ResourceError as error:
                lacking = error
            else:
                self._had.add(what)
                if most:
                    self._ask(what, bundles(found))
                self._compare()
                return found
            if most:
                self._ask(what, bundles(_of_all(find, most)))
            elif what not in self._had:
                raise lacking
            now = time.monotonic()
            if now - began > patience:
                raise ResourceError(
                    f"{lacking}; nodes for {what} did not come in {patience:g} s (ray.wait_s)"
                )
            if told is None or now - told >= _TELL_S:
                told = now
                self._report.say(
                    f"waiting for nodes for {what}: {lacking}; {now - began:.0f} s so far, "
                    f"{patience:g} at most"
                )
            time.sleep(_LOOK_S)

    def _ask(self, what: str, bundles: list[dict[str, float]]) -> None:
        self._asked[what] = bundles
        ray.autoscaler.sdk.request_resources(
            bundles=[bundle for each in self._asked.values() for bundle in each]
        )


def _of_all(find: Callable[[Sequence[Resources]], _T], most: Sequence[Resources]) -> _T:
    try:
        return find(most)
    except ResourceError as error:
        raise ResourceError(
            f"{error}; that counts all {len(most)} nodes that the autoscaler may bring it to"
        ) from None


def _engine_bundles(found: Placement) -> list[dict[str, float]]:
    return [_bundle(found.cpus_per_engine, found.gpus_per_engine, found)] * found.engines


def _trainer_bundles(found: Placement) -> list[dict[str, float]]:
    return [_bundle(found.cpus_per_trainer, found.gpus_per_trainer, found)] * found.trainers


def _bundle(cpus: float, gpus: float, found: Placement) -> dict[str, float]:
    return {"CPU": cpus, **({"GPU": gpus} if gpus else {}), **found.steering}


def _computing(nodes: Sequence[Resources], gpus: bool, resource: str | None) -> list[Node]:
    return [node_of(node) for node in nodes if _computes(node, gpus, resource)]


def _computes(node: Resources, gpus: bool, resource: str | None) -> bool:
    """Whether engines and trainers may use it: one with GPUs, where there are any."""
    return bool(node.get("CPU") and (node.get("GPU") or not gpus) and node.get(resource or "CPU"))


def node_of(resources: Resources) -> Node:
    """What Ray tells of a node. Of its GPUs' memory that is nothing."""
    memory = resources.get("memory", float("inf"))
    cpus, gpus = resources.get("CPU", 0.0), int(resources.get("GPU", 0))
    return Node(cpus, gpus, memory / 2**30, float("inf"))


def placement_on(nodes: Sequence[Resources], settings: Settings, gpus: bool) -> Placement:
    """Who gets what of `nodes`. Raises ResourceError, with the numbers, where they are too few."""
    rollout = settings.rollout

    def placed(cluster: Cluster) -> Placement:
        engines, workers = rollout.engines, settings.train.workers
        return place(cluster, engines, rollout.tensor_parallel, workers, rollout.placement)

    return _seated(nodes, settings, gpus, placed)


def replicas_on(
    nodes: Sequence[Resources], settings: Settings, gpus: bool, bases: int
) -> Placement:
    """What each engine that serves gets of `nodes`, which have the least number for each of so many
    bases. Raises ResourceError, with the numbers, where they are too few."""
    least, most = (bases * n for n in (settings.serve.min_replicas, settings.serve.max_replicas))
    apart = settings.rollout.tensor_parallel
    return _seated(
        nodes, settings, gpus, lambda cluster: place_replicas(cluster, least, most, apart)
    )


def _seated(
    nodes: Sequence[Resources],
    settings: Settings,
    gpus: bool,
    find: Callable[[Cluster], Placement],
) -> Placement:
    resource = settings.ray.compute_resource
    computing = _computing(nodes, gpus, resource)
    if not computing:
        named = f" and the Ray resource '{resource}' of ray.compute_resource" if resource else ""
        raise ResourceError(f"no node has {'a GPU' if gpus else 'a CPU'}{named}")
    placed = find(
        Cluster(
            cpus=sum(node.cpus for node in computing),
            gpus=sum(node.gpus for node in computing),
            local_cores=os.cpu_count() or 1,
            nodes=tuple(node.cpus for node in computing),
            node_gpus=tuple(float(node.gpus) for node in computing),
        )
    )
    if gpus:  # which lie in pieces on nodes; of CPUs `place` sees to that
        seat(computing, placed)
    return replace(placed, resource=resource)


def fleet_on(nodes: Sequence[Resources], settings: Settings) -> Fleet:
    """The verifiers that `nodes` may have. Raises ResourceError where none may."""
    resource = settings.verify.resource
    cpus = sum(node.get("CPU", 0.0) for node in nodes if node.get(resource or "CPU"))
    if not cpus:
        raise ResourceError(
            f"no node with a CPU has the Ray resource '{resource}' of verify.resource: start one "
            f"with ray start --resources='{{\"{resource}\": 1}}'"
            if resource
            else "no node has a CPU for verifiers"
        )
    return fleet(cpus, settings.verify)
