"""An option that the pinned vLLM, Ray or DeepSpeed does not know fails here, and not on a GPU."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from pydantic import ValidationError

from haloforge.config import load_settings
from haloforge.errors import ResourceError
from haloforge.placement import Fleet
from haloforge.report.progress import Report
from haloforge.session import _connect
from haloforge.train.deepspeed_config import deepspeed_config
from haloforge.train.settings import TrainSettings
from tests.calls import calls_of, unknown_keywords
from tests.unit.test_engine_options import MACHINES, options
from tests.unit.test_gpu_configs import GOLDEN as GPU_GOLDEN
from tests.unit.test_gpu_configs import NAMES

os.environ.setdefault("DS_ACCELERATOR", "cpu")
PACKAGE = Path(__file__).parents[2] / "haloforge"
FOREIGN = {"ray", "vllm", "deepspeed"}
# Sections of a DeepSpeed configuration that it reads by a model which forbids other keys.
MODELLED = {"zero_optimization", "bf16"}


def on_file() -> Iterator[tuple[str, dict[str, Any]]]:
    """What each machine and each configuration of jobs/configs comes to."""
    import yaml

    for name, machine in MACHINES.items():
        yield name, options(machine)
    for name in NAMES:
        yield name, yaml.safe_load((GPU_GOLDEN / f"{name}.yaml").read_text())


def unknown_to_vllm(arguments: dict[str, Any]) -> set[str]:
    from vllm import AsyncEngineArgs

    return set(arguments) - set(AsyncEngineArgs.__dataclass_fields__)


def test_vllm_knows_each_argument() -> None:
    for name, told in on_file():
        assert not unknown_to_vllm(told["vllm"]), name


def test_an_argument_that_vllm_does_not_know_is_found() -> None:
    assert unknown_to_vllm({"model": "m", "kv_cache_bytes": 1}) == {"kv_cache_bytes"}


class Watched(dict[str, Any]):
    """A configuration that notes which of its keys were asked for: outside of the sections that it
    has a model for DeepSpeed does not look at a key that it does not know."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.asked.add(str(key))
        return super().__contains__(key)


def unknown_to_deepspeed(config: dict[str, Any]) -> set[str]:
    """The keys that DeepSpeed does not read. Raises ValidationError for one inside a section."""
    from deepspeed.runtime.config import DeepSpeedConfig

    sections = {key: Watched(part) for key, part in config.items() if isinstance(part, dict)}
    watched = Watched({**config, **sections})
    DeepSpeedConfig(watched)
    unread = set(config) - watched.asked
    for name in sections.keys() - MODELLED:
        unread |= {f"{name}.{key}" for key in set(sections[name]) - sections[name].asked}
    return unread


def test_deepspeed_knows_each_key() -> None:
    for name, told in on_file():
        if "deepspeed" in told:
            assert not unknown_to_deepspeed(told["deepspeed"]), name


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_deepspeed_knows_each_key_of_an_offloading_run(stage: int) -> None:
    settings = TrainSettings.model_validate({"zero_stage": stage, "cpu_offload": True})
    assert not unknown_to_deepspeed(deepspeed_config(settings))


def test_a_key_that_deepspeed_does_not_know_is_found() -> None:
    config = deepspeed_config(TrainSettings(zero_stage=2))
    assert unknown_to_deepspeed({**config, "gradient_cliping": 1.0}) == {"gradient_cliping"}
    grads = {"data_types": {"grad_acum_dtype": "fp32"}}
    assert unknown_to_deepspeed({**config, **grads}) == {"data_types.grad_acum_dtype"}
    for section in ("zero_optimization", "bf16"):
        with pytest.raises(ValidationError, match="Extra inputs"):
            unknown_to_deepspeed({**config, section: {**config[section], "stagee": 1}})


def test_ray_takes_the_options_of_engines_trainers_and_verifiers() -> None:
    from ray._common.ray_option_utils import validate_actor_options
    from ray.train import ScalingConfig

    for _, told in on_file():
        validate_actor_options(told["engine_actor"], in_options=True)
        ScalingConfig(**told["trainers"])
    validate_actor_options(Fleet(1, 2, 0.5, "verifier").steering, in_options=True)


def test_an_option_that_ray_does_not_know_is_refused() -> None:
    from ray._common.ray_option_utils import validate_actor_options
    from ray.train import ScalingConfig

    with pytest.raises(ValueError, match="num_gpu"):
        validate_actor_options({"num_gpu": 1}, in_options=True)
    with pytest.raises(TypeError, match="num_worker"):
        ScalingConfig(num_worker=1)


@pytest.mark.parametrize("address", [None, "ray://head:10001"])
def test_ray_init_has_each_argument(address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    import inspect
    import socket

    import ray

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(socket, "create_connection", lambda *_: socket.socket())
    known = set(inspect.signature(ray.init).parameters)
    given: dict[str, Any] = {}

    def init(**arguments: Any) -> None:
        given.update(arguments)
        raise ConnectionError("this is no Ray")

    settings = load_settings(None, {"ray.address": address})
    with patch("ray.init", init), pytest.raises(ResourceError, match="this is no Ray"):
        _connect(settings, Report())
    assert given["address"] == (address or "local")
    assert set(given) <= known and "adress" not in known


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_calls_have_keywords_that_are_known(path: Path) -> None:
    for call in calls_of(path.read_text(), FOREIGN):
        unknown = unknown_keywords(call)
        assert not unknown, f"{path.name}:{call.line} {call.name}: {unknown}"


def test_a_keyword_that_is_not_known_is_found() -> None:
    source = (
        "import ray\nimport deepspeed\nfrom ray.train import RunConfig as R\n"
        "def run():\n    from vllm import SamplingParams\n"
        "    SamplingParams(temprature=1, n=1)\n    R(name='x', storage='y')\n"
        "    deepspeed.initialize(module=1)\n    ray.wait([], num_return=1)\n"
    )
    found = {call.name: unknown_keywords(call) for call in calls_of(source, FOREIGN)}
    assert found == {
        "SamplingParams": {"temprature"},
        "R": {"storage"},
        "deepspeed.initialize": {"module"},
        "ray.wait": {"num_return"},
    }
