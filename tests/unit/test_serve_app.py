"""How engines that serve are started, on CPUs and on GPUs; and who may ask them."""

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from ray.serve.llm import LLMConfig

from haloforge.config import load_settings
from haloforge.errors import InputError, ResourceError
from haloforge.model.bases import resolve_base
from haloforge.nodes import replicas_on
from haloforge.serve import app as module
from haloforge.serve.catalogue import Catalogue
from haloforge.serve.ingress import digest_of, with_routes

LAPTOP = [{"CPU": 2.0}]
BOX = [{"CPU": 32.0, "GPU": 8.0}]


def config_of(
    tiny_model: Path, nodes: list[dict[str, float]], lora_rank: int, **given: Any
) -> LLMConfig:
    settings = load_settings(None, {name.replace("__", "."): v for name, v in given.items()})
    room = replicas_on(nodes, settings, gpus="GPU" in nodes[0], bases=1)
    base = resolve_base(str(tiny_model))
    config, stop_ids = module._llm_config("tiny", base, lora_rank, settings, room)
    assert stop_ids[0] == 2, "<|im_end|>"
    return config


def test_a_laptop_s_engine_fits_two_cores(tiny_model: Path) -> None:
    config = config_of(tiny_model, LAPTOP, 0)
    engine = config.get_engine_config()  # refuses what vLLM does not know
    assert engine.placement_bundles == [{"CPU": 1.0}]
    assert config.deployment_config["ray_actor_options"]["num_cpus"] == 0
    assert config.lora_config is None and not config.engine_kwargs["enable_lora"]
    assert "<|im_start|>" in config.engine_kwargs["chat_template"]


def test_settings_reach_engine_and_autoscaler(tiny_model: Path) -> None:
    given: dict[str, Any] = {
        "serve__min_replicas": 0,
        "serve__max_replicas": 3,
        "serve__upscale_delay_s": 5,
    }
    given |= {"rollout__max_model_len": 512, "rollout__tensor_parallel": 2}
    given |= {"serve__max_loras": 2, "ray__compute_resource": "big", "rollout__max_num_seqs": 8}
    nodes = [{**BOX[0], "big": 1.0}]
    config = config_of(tiny_model, nodes, 20, **given)
    autoscaling = config.deployment_config["autoscaling_config"]
    assert (autoscaling["min_replicas"], autoscaling["max_replicas"]) == (0, 3)
    assert (autoscaling["target_ongoing_requests"], autoscaling["upscale_delay_s"]) == (8, 5)
    kwargs = config.engine_kwargs
    assert (kwargs["max_model_len"], kwargs["max_lora_rank"], kwargs["max_loras"]) == (512, 32, 2)
    bundles = config.get_engine_config().placement_bundles
    assert len(bundles) == 2 and all(each["GPU"] == 1 for each in bundles)
    cpus = sum(each["CPU"] for each in bundles)
    assert cpus == pytest.approx(16 / 3), "or the replicas that are added had no room"
    assert all(each["big"] > 0 for each in bundles)


def test_what_does_not_fit_is_refused_with_the_numbers() -> None:
    settings = load_settings(None, {"rollout.tensor_parallel": 4})
    with pytest.raises(ResourceError, match="3 replicas need 12 GPUs, Ray has 8"):
        replicas_on(BOX, settings, gpus=True, bases=3)
    with pytest.raises(ResourceError, match="3 replicas need 3 CPUs, Ray has 2"):
        replicas_on(LAPTOP, load_settings(None, {}), gpus=False, bases=3)
    with pytest.raises(InputError, match="min_replicas=2 is more than max_replicas=1"):
        load_settings(None, {"serve.min_replicas": 2})
    with pytest.raises(InputError, match="max_loras=4 is more than max_adapters=2"):
        load_settings(None, {"serve.max_adapters": 2})


def test_no_key_where_one_is_required(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    monkeypatch.delenv(module.API_KEY, raising=False)
    settings = load_settings(None, {"serve.require_key": True})
    room = replicas_on(LAPTOP, settings, gpus=False, bases=1)
    with pytest.raises(InputError, match="HALOFORGE_API_KEY holds no key"):
        module.build(settings, Catalogue([str(tiny_model)]), room)


def test_each_address_asks_for_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[FastAPI] = []
    monkeypatch.setattr(
        "haloforge.serve.ingress.make_fastapi_ingress",
        lambda cls, endpoint_map: _routes(seen, endpoint_map),
    )
    with_routes(digest_of("s3cret"))
    client = TestClient(seen[0])
    for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret"}):
        for method, path in _addresses(seen[0]):
            answer = client.request(method, path, headers=header, json={})
            assert answer.status_code == 401, path
            assert "API key" in answer.json()["error"]["message"]
    assert client.get("/v1/models", headers={"Authorization": "Bearer s3cret"}).json() == "reached"


def _addresses(app: FastAPI) -> list[tuple[str, str]]:
    found = [
        (method, path.replace("{model}", "x"))
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    ]
    assert len(found) == 4
    return found


def _routes(seen: list[FastAPI], endpoint_map: dict[str, Any]) -> None:
    """What Ray does with the addresses, for methods that only say that they were reached."""
    app = FastAPI()
    for route in endpoint_map.values():
        decorate = route(app)

        def reached() -> Any:
            from fastapi.responses import JSONResponse

            return JSONResponse("reached")

        decorate(reached)
    seen.append(app)
