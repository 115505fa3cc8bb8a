"""What each node has installed, against what the driver has."""

import platform
from collections.abc import Mapping
from pathlib import Path

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import haloforge
from haloforge.errors import ResourceError
from haloforge.model.adapter import installed_versions
from haloforge.report.progress import Report
from haloforge.schema import digest

_PATIENCE_S = 60.0
_OWN_CODE = "haloforge's code"


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


def check_versions(computing: str | None, report: Report) -> None:
    """Asks every other node what it has; one where the resource `computing` is has to have all.

    Tells of a node that does not answer. Raises ResourceError naming nodes and differences.
    """
    own = ray.get_runtime_context().get_node_id()
    nodes = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != own]
    ask = ray.remote(num_cpus=0, max_retries=0)(here)
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
        report.say(f"node {_name(asked[reference])} does not answer what versions it has")
    own_versions = here()
    faults = []
    for reference in answered:
        node = asked[reference]
        resources = node["Resources"]
        computes = bool(resources.get(computing) if computing else resources.get("GPU"))
        try:
            found = differences(own_versions, ray.get(reference), computes)
        except RayError as error:
            found = [str(error).strip().splitlines()[-1]]
        if found:
            faults.append(f"node {_name(node)}: {', '.join(found)}")
    if faults:
        raise ResourceError(
            f"{'; '.join(faults)}: install the same on all nodes (cluster/README.md), or set "
            "ray.same_versions=false"
        )


def _name(node: Mapping[str, str]) -> str:
    return node.get("NodeName") or node["NodeManagerAddress"]
