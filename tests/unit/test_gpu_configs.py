"""The configurations in jobs/configs: each fits, and what it comes to is on file.

`python -m tests.unit.test_gpu_configs` writes the files and the table in jobs/README.md anew, for a
reader to judge by the difference.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from haloforge.config import Settings, load_settings
from haloforge.plan.fit import Plan, plan
from haloforge.plan.memory import GB
from haloforge.plan.nodes import cluster_of, nodes_of
from haloforge.preflight import check_pipeline
from haloforge.train.deepspeed_config import deepspeed_config
from tests.unit.test_engine_options import told

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).with_name("golden") / "configs"
README = ROOT / "jobs" / "README.md"
SIZES, GPUS = ("0.5b", "7b", "32b"), (1, 8, 64)
NAMES = [f"qwen-{size}-{gpus}gpu" for size in SIZES for gpus in GPUS]


def settings_of(name: str) -> Settings:
    return load_settings(ROOT / "jobs" / "configs" / f"{name}.yaml")


@cache
def planned(name: str) -> Plan:
    return plan(settings_of(name))


def resolved(name: str) -> dict[str, Any]:
    """All that vLLM, DeepSpeed and Ray are told, and who is where."""
    settings = settings_of(name)
    return {
        **told(cluster_of(nodes_of(settings.plan)), settings.rollout, settings.train),
        "deepspeed": deepspeed_config(settings.train),
        "nodes": [
            {"engines": node.engines, "trainers": node.trainers, "verifiers": node.verifiers}
            for node in planned(name).seats
        ],
    }


def row(name: str) -> str:
    """The configuration's line in the table of jobs/README.md."""
    found, settings = planned(name), settings_of(name)
    assert found.memory.engine_gpu is not None and found.memory.trainer_gpu is not None
    place, parallel = found.placement, settings.rollout.tensor_parallel
    cells = [
        f"`{name}`",
        f"{place.engines} x {parallel}" + (", in turn" if place.engines_sleep else ""),
        f"{place.trainers}" + (f", ZeRO {z}" if (z := settings.train.zero_stage) else ""),
        f"{sum(found.memory.engine_gpu.values()) / GB:.0f}",
        f"{found.memory.kv_sequences:,.0f} of {settings.rollout.max_model_len:,}",
        f"{sum(found.memory.trainer_gpu.values()) / GB:.0f}",
        f"{max(host.most[1] for host in found.memory.hosts) / GB:.0f}",
        f"{max(sum(items.values()) for items in found.disks) / GB:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def rows_in(text: str) -> list[str]:
    return re.findall(r"^\| `qwen-.*$", text, re.MULTILINE)


def test_there_is_one_for_each_size() -> None:
    found = {path.stem for path in (ROOT / "jobs" / "configs").glob("*.yaml")}
    assert found == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_fits(name: str) -> None:
    found = planned(name)
    found.require_fit()
    assert found.memory.kv_sequences is not None and found.memory.kv_sequences >= 8, (
        "too few to be worth it"
    )
    gpus = [left for seats in found.seats for left in seats.gpus]
    assert len(gpus) == int(name.rpartition("-")[2].removesuffix("gpu"))
    assert not any(left > 0.9 for left in gpus), "a GPU has nothing to do"


@pytest.mark.parametrize("name", NAMES)
def test_what_it_comes_to_is_on_file(name: str) -> None:
    assert resolved(name) == yaml.safe_load((GOLDEN / f"{name}.yaml").read_text())


def test_the_table_tells_what_plan_does() -> None:
    assert rows_in(README.read_text()) == [row(name) for name in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_the_pipeline_takes_it(name: str) -> None:
    check_pipeline(settings_of(name))


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("qwen-32b-1gpu", "plan.gpu_memory_gb=47", "an engine needs .* on each of its 1 GPUs"),
        ("qwen-32b-1gpu", "train.max_length=4096", "a trainer takes .* of its GPU"),
        ("qwen-32b-1gpu", "rollout.kv_cache_gb=20", "lower rollout.kv_cache_gb"),
        ("qwen-32b-1gpu", "plan.node_memory_gb=128", "to swap the policy, a node"),
        ("qwen-7b-8gpu", "plan.disk_gb=100", "GB of disk"),
    ],
)
def test_less_room_or_more_to_hold_does_not_fit(name: str, change: str, told: str) -> None:
    settings = load_settings(ROOT / "jobs" / "configs" / f"{name}.yaml", {}, [change])
    misfits = plan(settings).misfits
    assert any(re.search(told, line) for line in misfits), misfits


def _write() -> None:
    GOLDEN.mkdir(exist_ok=True)
    for name in NAMES:
        (GOLDEN / f"{name}.yaml").write_text(yaml.safe_dump(resolved(name), sort_keys=False))
    text = README.read_text()
    for old, new in zip(rows_in(text), map(row, NAMES), strict=True):
        text = text.replace(old, new)
    README.write_text(text)


if __name__ == "__main__":
    _write()
