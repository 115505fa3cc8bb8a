"""What fits the nodes that are there, and waiting for those that may come."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import ray.autoscaler.sdk
import yaml

from haloforge import nodes
from haloforge.config import Settings, load_settings
from haloforge.errors import ResourceError
from haloforge.nodes import Nodes, all_that_may_be
from haloforge.placement import Fleet, Placement
from haloforge.report.progress import Report
from haloforge.versions import differences

HEAD = {"CPU": 0.0, "memory": 1.0}
GPUS = {"CPU": 64.0, "GPU": 4.0}
CPUS = {"CPU": 8.0, "gpu": 1.0}
JUDGES = {"CPU": 32.0, "verifier": 1.0}
SCALES = (
    "ray.scales_to=[{count: 2, resources: {CPU: 64, GPU: 4}}, "
    "{count: 1, resources: {CPU: 32, verifier: 1}}]"
)


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
    monkeypatch.setattr(nodes, "_LAUNCHED", Path("/nonexistent"))
    return made


def nodes_for(*assignments: str) -> Nodes:
    return Nodes(given(*assignments), Report())


def find_placement(*assignments: str) -> Placement:
    return nodes_for(*assignments).placement()


def find_fleet(*assignments: str) -> Fleet:
    return nodes_for(*assignments).fleet()


def given(*assignments: str) -> Settings:
    return load_settings(assignments=assignments)


def test_a_driver_s_head_has_no_part_and_the_named_nodes_alone_compute(cloud: Cloud) -> None:
    cloud.there += [CPUS, JUDGES]
    placed = find_placement("ray.compute_resource=gpu")
    assert placed.cpus_per_engine + placed.cpus_per_trainer <= CPUS["CPU"]
    assert placed.steering == {"gpu": 0.001}
    assert find_placement().steering == {}
    judges = find_fleet("verify.resource=verifier")
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
        find_placement(*assignments)
    assert cloud.now == 0 and not cloud.asked


def test_verifiers_without_a_node_are_refused(cloud: Cloud) -> None:
    cloud.there += [CPUS]
    with pytest.raises(ResourceError, match=r"the Ray resource 'verifier' of verify.resource"):
        find_fleet("verify.resource=verifier")
    cloud.there[:] = [HEAD]
    with pytest.raises(ResourceError, match="no node has a CPU for verifiers"):
        find_fleet()


def test_nodes_that_may_come_are_asked_for_and_waited_for(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.coming = [JUDGES, GPUS, GPUS]
    wanted = nodes_for(SCALES, "rollout.engines=6", "train.workers=2", "verify.resource=verifier")
    placed = wanted.placement()
    assert (placed.engines, placed.trainers, placed.gpus_per_engine) == (6, 2, 1)
    assert [bundle["GPU"] for bundle in cloud.asked[0]] == [1] * 8
    told = capsys.readouterr().err
    assert "waiting for nodes for engines and trainers: no node has a GPU; 0 s so far, 900" in told
    wanted.fleet()
    assert [bundle.get("GPU") for bundle in cloud.asked[-1]] == [1] * 8 + [None], "all is kept"
    wanted.release()
    assert cloud.asked[-1] == []


@pytest.mark.parametrize(
    ("assignments", "told"),
    [
        (["rollout.engines=8"], r"need 9 GPUs, Ray has 8: .* counts all 3 nodes"),
        (["rollout.tensor_parallel=8"], r"need 9 GPUs, Ray has 8"),
        (["rollout.tensor_parallel=5"], r"tensor_parallel is 4 at most; that counts all 3 nodes"),
        (["rollout.placement=colocated", "rollout.engines=3"], r"each of Ray's 8 GPUs"),
        (["ray.compute_resource=gpu"], r"the Ray resource 'gpu' of ray.compute_resource; that"),
    ],
)
def test_what_the_autoscaler_can_never_add_is_refused_at_once(
    cloud: Cloud, assignments: list[str], told: str
) -> None:
    with pytest.raises(ResourceError, match=told):
        find_placement(SCALES, *assignments)
    with pytest.raises(ResourceError, match=r"'judge' of verify.resource: .* counts all 3 nodes"):
        find_fleet(SCALES, "verify.resource=judge")
    assert cloud.now == 0 and not cloud.asked


def test_an_engine_and_a_trainer_take_turns_on_the_only_gpu_that_may_come(cloud: Cloud) -> None:
    cloud.coming = [{"CPU": 8.0, "GPU": 1.0}]
    placed = find_placement("ray.scales_to=[{count: 1, resources: {CPU: 8, GPU: 1}}]")
    assert placed.engines_sleep


def test_waiting_ends(cloud: Cloud) -> None:
    with pytest.raises(ResourceError, match=r"trainers did not come in 60 s \(ray\.wait_s\)$"):
        find_placement(SCALES, "ray.wait_s=60")
    assert 60 < cloud.now < 70


def test_nodes_that_are_lost_are_waited_for_without_an_autoscaler(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.there += [CPUS, JUDGES]
    had = nodes_for("verify.resource=verifier", "ray.compute_resource=gpu")
    placed, judges = had.placement(), had.fleet()
    cloud.there[:] = [HEAD]
    cloud.coming = [HEAD, JUDGES]
    assert had.fleet() == judges
    assert "waiting for nodes for verifiers: no node with a CPU has" in capsys.readouterr().err
    cloud.coming = [CPUS]
    had.room_for_trainers(placed)
    assert not cloud.asked
    cloud.there[:] = [HEAD]
    with pytest.raises(ResourceError, match="did not come in 900 s"):
        had.fleet()


def test_a_cluster_whose_gpu_nodes_also_verify_has_room(cloud: Cloud) -> None:
    cloud.there += [{**GPUS, "verifier": 1.0}]
    assert find_placement("verify.resource=verifier").trainers == 3
    assert find_fleet("verify.resource=verifier").max_actors == GPUS["CPU"]


def test_what_ray_up_was_told_limits_its_autoscaler(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched: dict[str, Any] = {
        "head_node_type": "head",
        "available_node_types": {
            "head": {"resources": {"CPU": 0}, "max_workers": 0},
            "gpu": {"resources": {"CPU": 96, "GPU": 8}, "max_workers": 4},
            "verifier": {"resources": {"CPU": 64, "verifier": 1}, "max_workers": 2},
        },
    }
    path = tmp_path / "ray_bootstrap_config.yaml"
    monkeypatch.setattr(nodes, "_LAUNCHED", path)
    assert all_that_may_be(given().ray) == []
    path.write_text(yaml.safe_dump(launched, sort_keys=False))
    kinds = [launched["available_node_types"][name] for name in ("head", *["gpu"] * 4)]
    judges = [{"CPU": 64, "verifier": 1}] * 2
    assert all_that_may_be(given().ray) == [*(kind["resources"] for kind in kinds), *judges]
    assert all_that_may_be(given(SCALES).ray) == [GPUS, GPUS, JUDGES]
    path.write_text(json.dumps([1]))
    assert all_that_may_be(given().ray) == []


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
