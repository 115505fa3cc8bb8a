"""A node that has other code than the driver is named and refused, also one that comes later."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

import haloforge
from haloforge.config import load_settings
from haloforge.errors import ResourceError
from haloforge.session import Session


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield made
    ray.shutdown()
    made.shutdown()


def test_other_code_on_a_node_is_refused(tmp_path: Path, cluster: Cluster) -> None:
    settings = load_settings(None, {"ray.address": cluster.address, "verify.resource": "boxes"})
    same = cluster.add_node(num_cpus=1, resources={"boxes": 1})
    with Session(settings) as session:
        assert session.fleet.max_actors == 1
    cluster.remove_node(same)

    package = Path(haloforge.__file__).parent
    other = tmp_path / "haloforge"
    shutil.copytree(package, other, ignore=shutil.ignore_patterns("__pycache__"))
    (other / "errors.py").write_text((other / "errors.py").read_text() + "# changed\n")
    told = r"node \S+: haloforge's code [0-9a-f]+ \(here [0-9a-f]+\): install the same on all"
    joined = cluster.add_node
    with Session(settings) as session:
        joined(num_cpus=1, resources={"boxes": 1}, env_vars={"PYTHONPATH": str(tmp_path)})
        with pytest.raises(ResourceError, match=told):
            _ = session.fleet
    with pytest.raises(ResourceError, match=told), Session(settings):
        pass
    free = settings.model_copy(
        update={"ray": settings.ray.model_copy(update={"same_versions": False})}
    )
    with Session(free) as session:
        assert session.fleet.max_actors == 1
