"""A node that has other versions than the driver is named and refused, also a later one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from haloforge.config import load_settings
from haloforge.errors import ResourceError
from haloforge.session import Session

# What a node's Python says of itself.
OLDER = """
import importlib.metadata

known = importlib.metadata.version
importlib.metadata.version = lambda name: "0.0.1" if name == "torch" else known(name)
"""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield made
    ray.shutdown()
    made.shutdown()


def test_an_older_package_on_a_node_is_refused(tmp_path: Path, cluster: Cluster) -> None:
    settings = load_settings(None, {"ray.address": cluster.address, "verify.resource": "boxes"})
    same = cluster.add_node(num_cpus=1, resources={"boxes": 1})
    with Session(settings) as session:
        assert session.fleet.max_actors == 1
    cluster.remove_node(same)

    (tmp_path / "sitecustomize.py").write_text(OLDER)
    told = r"node \S+: torch 0\.0\.1 \(here \S+\): install the same on all nodes"
    with Session(settings) as session:
        cluster.add_node(num_cpus=1, resources={"boxes": 1}, env_vars={"PYTHONPATH": str(tmp_path)})
        with pytest.raises(ResourceError, match=told):
            _ = session.fleet
    with pytest.raises(ResourceError, match=told), Session(settings):
        pass
    free = settings.model_copy(
        update={"ray": settings.ray.model_copy(update={"same_versions": False})}
    )
    with Session(free) as session:
        assert session.fleet.max_actors == 1
