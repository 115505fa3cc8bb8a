"""Whether a model fits the memory of the nodes is looked at before anything is started there."""

from pathlib import Path

import pytest

from haloforge.config import load_settings
from haloforge.errors import InputError, ResourceError
from haloforge.model.policy import resolve_policy
from haloforge.nodes import node_of
from haloforge.placement import Cluster, Part, place
from haloforge.plan.living import check_memory, gpu_memory_gb
from haloforge.plan.nodes import Node

GB = 2.0**30
LAPTOP = node_of({"CPU": 4.0, "memory": 12 * GB})


def check(model: Path, nodes: list[Node], part: Part, *assignments: str) -> None:
    settings = load_settings(None, {}, assignments)
    gpus = sum(node.gpus for node in nodes)
    cluster = Cluster(sum(node.cpus for node in nodes), gpus, 4)
    placed = place(cluster, settings.rollout.engines, 1, settings.train.workers)
    check_memory(nodes, placed, resolve_policy(str(model)), settings, (part,))


def test_what_fits_passes(tiny_model: Path) -> None:
    for part in ("engines", "trainers"):
        check(tiny_model, [LAPTOP], part)
        check(tiny_model, [Node(8, 1, 64, 24)], part)


def test_a_cache_that_no_node_holds_is_refused_with_the_numbers(tiny_model: Path) -> None:
    told = r"takes 40 GB of memory \(KV cache 40.0\); it has 12: .*ray.check_memory=false tries it"
    with pytest.raises(ResourceError, match=told):
        check(tiny_model, [LAPTOP], "engines", "rollout.kv_cache_gb=40")
    check(tiny_model, [LAPTOP], "trainers", "rollout.engine=auto")


def test_the_memory_of_gpus_counts_where_it_is_known(tiny_model: Path) -> None:
    longest = ["rollout.max_model_len=2048", "rollout.kv_cache_gb=30"]
    with pytest.raises(ResourceError, match=r"an engine takes .* each has 24: lower rollout.kv"):
        check(tiny_model, [Node(8, 2, 64, 24)], "engines", *longest)
    check(tiny_model, [node_of({"CPU": 8.0, "GPU": 2.0, "memory": 64 * GB})], "engines", *longest)


def test_an_engine_longer_than_the_model_s_positions_is_refused(tiny_model: Path) -> None:
    with pytest.raises(InputError, match=r"max_model_len=4096 is more than the 2048 positions"):
        check(tiny_model, [LAPTOP], "engines", "rollout.max_model_len=4096")


def test_the_driver_of_the_gpus_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    tool.write_text("#!/bin/sh\nprintf '81920\\n40960\\n'\n")
    tool.chmod(0o755)
    assert gpu_memory_gb() == 40
    tool.write_text("#!/bin/sh\necho 'no devices were found'\n")
    assert gpu_memory_gb() is None
    tool.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_memory_gb() is None
