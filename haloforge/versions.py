"""What each node has installed, against what the driver has."""

import platform
from collections.abc import Collection, Mapping
from pathlib import Path

import ray
from ray.exceptions import NodeDiedError, RayError, TaskUnschedulableError, WorkerCrashedError

import haloforge
from haloforge.each_node import name_of, on_each
from haloforge.errors import ResourceError
from haloforge.model.adapter import installed_versions
from haloforge.report.progress import Report
from haloforge.schema import digest

_OWN_CODE = "haloforge's code"
# Errors of a node that was lost meanwhile, which says nothing of what it had.
_LOST = (NodeDiedError, TaskUnschedulableError, WorkerCrashedError)


def here() -> dict[str, str]:
    """Python, the packages that shape a result, and a digest of this package's code."""
    folder = Path(haloforge.__file__).parent
    files = sorted(folder.rglob("*.py"))
    code = digest(*(f"{path.relative_to(folder)} {path.read_text()}" for path in files))
    return {"python": platform.python_version(), **installed_versions(), _OWN_CODE: code}


def differences(driver: Mapping[str, str], node: Mapping[str, str], computes: bool) -> list[str]:
    """One entry for each package that the node has in another version. That a package is not there
    counts where the node `computes`: the verifiers' have neither torch nor vLLM."""
    found = []
    for name, version in driver.items():
        theirs = node.get(name)
        if theirs is None and not computes:
            continue
        if theirs != version:
            found.append(f"{name} {theirs or 'is not there'} (here {version})")
    return found


def check_versions(known: Collection[str], computing: str | None, report: Report) -> set[str]:
    """Asks every other node that is not among the ids in `known` what it has; one where the
    resource `computing` is has to have all. Returns the ids of those that answered.

    Tells of a node that does not answer. Raises ResourceError naming nodes and differences.
    """
    skipped = {*known, ray.get_runtime_context().get_node_id()}
    nodes = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in skipped]
    if not nodes:
        return set()
    own, answered, faults = here(), set(), []
    for node, told in on_each(nodes, here):
        if told is None or isinstance(told, _LOST):
            report.say(f"node {name_of(node)} does not answer what versions it has")
            continue
        answered.add(str(node["NodeID"]))
        resources = node["Resources"]
        computes = bool(resources.get(computing) if computing else resources.get("GPU"))
        if isinstance(told, RayError):
            found = [str(told).strip().splitlines()[-1]]
        else:
            found = differences(own, told, computes)
        if found:
            faults.append(f"node {name_of(node)}: {', '.join(found)}")
    if faults:
        raise ResourceError(
            f"{'; '.join(faults)}: install the same on all nodes (cluster/README.md), or set "
            "ray.same_versions=false"
        )
    return answered
