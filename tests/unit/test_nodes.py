"""What fits the nodes that are there, and waiting for those that may come."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.autoscaler.sdk
import yaml

from haloforge import nodes
from haloforge.config import Settings, load_settings
from haloforge.errors import ResourceError
from haloforge.nodes import find_fleet, find_placement, limits
from haloforge.report.progress import Report
from haloforge.versions import differences

HEAD = {"CPU": 0.0, "memory": 1.0}
GPUS = {"CPU": 64.0, "GPU": 4.0}
CPUS = {"CPU": 8.0, "gpu": 1.0}
JUDGES = {"CPU": 32.0, "verifier": 1.0}


class Cloud:
    """Nodes that are there, and those that come a moment after they are asked for."""

    def __init__(self, *there: dict[str, float]) -> None:
        self.there = [*there]
        self.coming: list[dict[str, float]] = []
        self.asked: list[Any] = []
        self.now = 0.0

    def request(self, bundles: Any) -> None:
        self.asked.append(bundles)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.coming:
            self.there.append(self.coming.pop(0))


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Cloud:
    made = Cloud(HEAD)
    monkeypatch.setattr(nodes, "living", lambda: made.there)
    monkeypatch.setattr(ray.autoscaler.sdk, "request_resources", made.request)
    monkeypatch.setattr(time, "sleep", made.sleep)
    monkeypatch.setattr(time, "monotonic", lambda: made.now)
    state = ray._private.state.state
    monkeypatch.setattr(state, "get_max_resources_from_cluster_config", lambda: None)
    return made


def given(*assignments: str) -> Settings:
    return load_settings(assignments=assignments)


def test_a_driver_s_head_has_no_part_and_the_named_nodes_alone_compute(cloud: Cloud) -> None:
    cloud.there += [CPUS, JUDGES]
    placed = find_placement(given("ray.compute_resource=gpu"), Report())
    assert placed.cpus_per_engine + placed.cpus_per_trainer <= CPUS["CPU"]
    assert placed.steering == {"gpu": 0.001}
    assert find_placement(given(), Report()).steering == {}
    judges = find_fleet(given("verify.resource=verifier"), Report())
    assert judges.max_actors == JUDGES["CPU"]
    assert not cloud.asked


@pytest.mark.parametrize(
    ("there", "assignments", "told"),
    [
        ([CPUS], ["ray.compute_resource=gpus"], "no node has a CPU and the Ray resource 'gpus'"),
        ([], [], "no node has a CPU"),
        ([GPUS], ["rollout.engines=8"], r"8 engines of 1 GPUs and 1 trainers of 1 need 9 .*has 4"),
        ([GPUS, GPUS], ["rollout.tensor_parallel=5"], r"books 5 GPUs .*no node has"),
        ([GPUS], ["rollout.placement=colocated"], r"each of Ray's 4 GPUs"),
        ([CPUS], ["rollout.tensor_parallel=2"], "needs GPUs"),
        ([CPUS], ["rollout.engines=9"], "9 CPU engines for 8 CPUs"),
    ],
)
def test_what_nothing_adds_nodes_for_is_refused_at_once(
    cloud: Cloud, there: list[Any], assignments: list[str], told: str
) -> None:
    cloud.there += there
    with pytest.raises(ResourceError, match=told):
        find_placement(given(*assignments), Report())
    assert cloud.now == 0 and not cloud.asked


def test_verifiers_without_a_node_are_refused(cloud: Cloud) -> None:
    cloud.there += [CPUS]
    with pytest.raises(ResourceError, match=r"the Ray resource 'verifier' of verify.resource"):
        find_fleet(given("verify.resource=verifier"), Report())
    cloud.there[:] = [HEAD]
    with pytest.raises(ResourceError, match="no node has a CPU for verifiers"):
        find_fleet(given(), Report())


def test_nodes_that_may_come_are_asked_for_and_waited_for(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    scales = "ray.scales_to={GPU: 8, CPU: 160, verifier: 1}"
    cloud.coming = [JUDGES, GPUS, GPUS]
    wanted = given(scales, "rollout.engines=6", "train.workers=2")
    placed = find_placement(wanted, Report())
    assert (placed.engines, placed.trainers, placed.gpus_per_engine) == (6, 2, 1)
    assert cloud.asked[0] == [{"GPU": 1.0}] * 8
    told = capsys.readouterr().err
    assert "waiting for nodes for 6 engines and 2 trainers" in told
    assert "0 s so far, 900 at most" in told


def test_what_the_autoscaler_can_never_add_is_refused_at_once(cloud: Cloud) -> None:
    with pytest.raises(ResourceError, match=r"cannot help: .* take 9 GPU of at most 8$"):
        find_placement(given("ray.scales_to={GPU: 8, CPU: 99}", "rollout.engines=8"), Report())
    with pytest.raises(ResourceError, match=r"take 0\.001 verifier of at most 0$"):
        find_fleet(given("ray.scales_to={CPU: 99}", "verify.resource=verifier"), Report())
    assert cloud.now == 0


def test_waiting_ends(cloud: Cloud) -> None:
    with pytest.raises(ResourceError, match=r"did not come in 60 s \(ray\.wait_s\)$"):
        find_placement(given("ray.scales_to={GPU: 8, CPU: 99}", "ray.wait_s=60"), Report())
    assert 60 < cloud.now < 70


def test_what_ray_up_was_told_limits_its_autoscaler(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = {
        "head_node_type": "head",
        "available_node_types": {
            "head": {"resources": {"CPU": 0}, "max_workers": 0},
            "gpu": {"resources": {"CPU": 96, "GPU": 8}, "max_workers": 4},
            "verifier": {"resources": {"CPU": 64, "verifier": 1}, "max_workers": 2},
        },
    }
    path = tmp_path / "ray_bootstrap_config.yaml"
    monkeypatch.setattr(nodes, "_LAUNCHED", path)
    assert limits(given().ray) == {}
    path.write_text(yaml.safe_dump(launched))
    assert limits(given().ray) == {"CPU": 512.0, "GPU": 32.0, "verifier": 2.0}
    assert limits(given("ray.scales_to={GPU: 1}").ray) == {"GPU": 1.0}
    path.write_text(json.dumps([1]))
    assert limits(given().ray) == {}


def test_versions_are_named_where_they_differ() -> None:
    driver = {"python": "3.11.4", "torch": "2.13.0", "vllm": "0.29.0"}
    assert differences(driver, dict(driver), computes=True) == []
    older = {**driver, "vllm": "0.28.0"}
    assert differences(driver, older, True) == ["vllm 0.28.0 (here 0.29.0)"]
    judge = {"python": "3.11.4"}
    assert differences(driver, judge, computes=False) == []
    assert differences(driver, judge, computes=True) == [
        "torch is not there (here 2.13.0)",
        "vllm is not there (here 0.29.0)",
    ]
