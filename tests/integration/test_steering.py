"""A custom Ray resource steers verifiers to the nodes that have it: two nodes on one machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from haloforge.config import load_settings
from haloforge.placement import Fleet
from haloforge.session import Session
from tests.fleets import judge, scripted


@pytest.fixture
def chosen_node() -> Iterator[str]:
    """The id of the one node of two that has the resource `boxes`."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4})
    node = cluster.add_node(num_cpus=2, resources={"boxes": 1})
    ray.init(address=cluster.address, log_to_driver=False)
    yield node.node_id
    ray.shutdown()
    cluster.shutdown()


def test_verifiers_go_where_the_resource_is(tmp_path: Path, chosen_node: str) -> None:
    fleet = Session(load_settings(None, {"verify.resource": "boxes"})).fleet
    assert fleet == Fleet(1, 2, 0.5, "boxes")  # the CPUs of that node alone
    settings = scripted(tmp_path, resource="boxes", actors=2)
    nodes = {v.diagnostics.split()[1] for v in judge(["sleep 0.5"] * 12, settings, fleet)}
    assert nodes == {chosen_node}
