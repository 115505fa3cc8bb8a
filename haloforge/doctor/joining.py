"""Asks a Ray cluster, in a process of its own: Ray ends a process for what it does not like.

    python -m haloforge.doctor.joining ADDRESS [COMPUTING]

Prints one JSON document: `nodes` is how many live; `refused` that the token is not the cluster's,
`unreached` why there was no answer, `differences` what nodes have in other versions, `silent` how
many did not answer what they have. COMPUTING is the setting `ray.compute_resource`; without
comparing versions, where it is `-`.
"""

import json
import logging
import sys
from typing import Any

COMPARE_NOT = "-"


def main(address: str, computing: str) -> None:
    """Prints what is found."""
    from ray.exceptions import AuthenticationError

    found: dict[str, Any] = {}
    try:
        if not address.startswith("ray://") and ":" in address:
            # Says at once that a token is wrong, which `ray.init` tries again for half a minute.
            import ray._raylet as core

            client: Any = core
            nodes = client.GcsClient(address=address).get_all_node_info(timeout=10).values()
            found["nodes"] = sum(node.state == 0 for node in nodes)  # ALIVE
        if computing != COMPARE_NOT or "nodes" not in found:
            found |= _joined(address, computing)
    except AuthenticationError as error:
        found["refused"] = str(error).strip().splitlines()[0]
    except Exception as error:  # Ray's have no common base
        lines = str(error).strip().splitlines()
        found["unreached"] = lines[0] if lines else type(error).__name__
    print(json.dumps(found))


def _joined(address: str, computing: str) -> dict[str, Any]:
    import ray

    from haloforge.errors import ResourceError
    from haloforge.report.progress import Report
    from haloforge.versions import check_versions

    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    alive = [node for node in ray.nodes() if node["Alive"]]
    found: dict[str, Any] = {"nodes": len(alive)}
    if computing == COMPARE_NOT:
        return found
    own = ray.get_runtime_context().get_node_id()
    others = sum(node["NodeID"] != own for node in alive)
    try:
        answered = check_versions((), computing or None, Report())
        found["silent"] = others - len(answered)
    except ResourceError as error:
        found["differences"] = str(error).partition(": install the same")[0]
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
