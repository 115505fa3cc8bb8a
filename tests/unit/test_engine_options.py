"""What vLLM and Ray are told, whole, on machines that are not at hand.

`python -m tests.unit.test_engine_options` writes the files anew, for a reader to judge by the
difference.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest
import yaml

from haloforge.model.bases import Base
from haloforge.placement import Cluster, place
from haloforge.rollout.engine import EngineSpec
from haloforge.rollout.pool import actor_options
from haloforge.rollout.settings import RolloutSettings
from haloforge.rollout.vllm_engine import engine_arguments
from haloforge.train.settings import TrainSettings
from haloforge.train.trainer import _scaling

GOLDEN = Path(__file__).with_name("golden")


class Machine(NamedTuple):
    """A cluster, and what differs from the defaults there."""

    cluster: Cluster
    rollout: dict[str, Any]


MACHINES = {
    "one_gpu_auto": Machine(Cluster(16, 1, 16), {}),
    "eight_gpus_disaggregated": Machine(
        Cluster(96, 8, 96), {"engines": 2, "tensor_parallel": 2, "placement": "disaggregated"}
    ),
    "eight_gpus_colocated": Machine(Cluster(96, 8, 96), {"engines": 8, "placement": "colocated"}),
    "two_cpu_nodes": Machine(Cluster(32, 0, 16, (16.0, 16.0)), {"engines": 2}),
}


def options(machine: Machine) -> dict[str, Any]:
    """Everything that vLLM, and Ray for engines and trainers, are told on `machine`."""
    rollout = RolloutSettings.model_validate(machine.rollout)
    return told(machine.cluster, rollout, TrainSettings())


def told(cluster: Cluster, settings: RolloutSettings, training: TrainSettings) -> dict[str, Any]:
    """The same for settings, as `EnginePool.start` and `update_policy` resolve them."""
    plan = place(
        cluster, settings.engines, settings.tensor_parallel, training.workers, settings.placement
    )
    base = Base("model", "model", Path("/models/model"), "digest")
    rank = training.lora.rank if settings.policy_swap == "lora" else 0
    spec = EngineSpec(base, settings, (2,), sleeps=plan.engines_sleep, lora_rank=rank)
    with (
        patch("ray.cluster_resources", lambda: {"CPU": cluster.cpus, "GPU": cluster.gpus}),
        patch("haloforge.rollout.engine.cpu_has_bf16", lambda: True),
    ):
        training = training.model_copy(update={"workers": plan.trainers})
        scaling = _scaling(training, plan.cpus_per_trainer, plan.gpus_per_trainer)
        arguments = engine_arguments(spec, on_cpu=not cluster.gpus)
    return {
        "placement": asdict(plan),
        "vllm": arguments,
        "engine_actor": actor_options(0, settings, plan),
        "trainers": {
            "num_workers": scaling.num_workers,
            "use_gpu": scaling.use_gpu,
            "resources_per_worker": scaling.resources_per_worker,
        },
    }


@pytest.mark.parametrize("name", MACHINES)
def test_the_options_are_those_on_file(name: str) -> None:
    assert options(MACHINES[name]) == yaml.safe_load((GOLDEN / f"{name}.yaml").read_text())


def test_vllm_knows_each_argument() -> None:
    from vllm import AsyncEngineArgs

    known = set(AsyncEngineArgs.__dataclass_fields__)
    for name, machine in MACHINES.items():
        assert set(options(machine)["vllm"]) <= known, name


if __name__ == "__main__":
    for name, machine in MACHINES.items():
        (GOLDEN / f"{name}.yaml").write_text(yaml.safe_dump(options(machine), sort_keys=False))
