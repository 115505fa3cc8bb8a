"""How engines that serve are started, on CPUs and on GPUs; and who may ask them."""

import asyncio
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from ray import cloudpickle
from ray.serve.llm import LLMConfig

from haloforge.config import load_settings
from haloforge.errors import InputError, ResourceError
from haloforge.model.bases import resolve_base
from haloforge.nodes import Nodes, replicas_on
from haloforge.report.progress import Report
from haloforge.serve import app as module
from haloforge.serve.catalogue import Catalogue
from haloforge.serve.ingress import digest_of, http_app, with_routes
from haloforge.serve.server import AdapterServer, read_from
from tests.cluster_files import manifest

LAPTOP = [{"CPU": 2.0}]
BOX = [{"CPU": 32.0, "GPU": 8.0}]


def config_of(
    tiny_model: Path, nodes: list[dict[str, float]], lora_rank: int, **given: Any
) -> LLMConfig:
    settings = load_settings(None, {name.replace("__", "."): v for name, v in given.items()})
    room = replicas_on(nodes, settings, gpus="GPU" in nodes[0], bases=1)
    base = resolve_base(str(tiny_model))
    config, stop_ids = module.llm_config("tiny", base, lora_rank, settings, room)
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
    empty = load_settings(None, {"serve.min_replicas": 0, "rollout.tensor_parallel": 16})
    with pytest.raises(ResourceError, match="1 replicas need 16 GPUs, Ray has 8"):
        replicas_on(BOX, empty, gpus=True, bases=1)
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


def addresses(app: FastAPI) -> list[tuple[str, str]]:
    """Those of ours, and what FastAPI adds by itself."""
    found = [
        (method, route.path.replace("{model:path}", "x"))
        for route in app.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    ]
    assert len(found) == 4
    return [*found, ("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/v1/nothing")]


def test_nothing_answers_without_the_key() -> None:
    app = http_app(digest_of("s3cret\n"), [])
    with_routes(app)
    client = TestClient(app)
    for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret"}):
        for method, path in addresses(app):
            answer = client.request(method, path, headers=header, content="{torn")
            assert answer.status_code == 401, path
            assert "API key" in answer.json()["error"]["message"]
    for path in ("/docs", "/openapi.json"):
        assert client.get(path, headers={"Authorization": "Bearer s3cret"}).status_code == 404


def test_pages_of_the_web_may_not_ask_unless_they_are_named() -> None:
    page = {"Origin": "https://chat.example.org", "Access-Control-Request-Method": "POST"}

    def allowed(origins: list[str]) -> bool:
        app = http_app(digest_of("s3cret"), origins)
        with_routes(app)
        answer = TestClient(app).options("/v1/chat/completions", headers=page)
        return answer.headers.get("access-control-allow-origin") == page["Origin"]

    assert allowed([page["Origin"]])
    assert not allowed([])
    assert not allowed(["https://other.example.org"])


def test_an_engine_reads_the_copy_of_its_own_node(tiny_model: Path) -> None:
    config = config_of(tiny_model, LAPTOP, 0)
    config.get_engine_config()  # as where the app is built
    there = cloudpickle.loads(cloudpickle.dumps(config))
    read_from(there, "/copy/of/this/node")
    arguments = there.get_engine_config().get_initialization_kwargs()
    assert arguments["model"] == "/copy/of/this/node"


def test_nodes_that_are_to_come_count_where_the_service_is_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("haloforge.nodes.living", lambda: [{"CPU": 0.0}])
    config = yaml.safe_load(manifest("RayService")["spec"]["serveConfigV2"])
    settings = load_settings(None, config["applications"][0]["args"])
    room = Nodes(settings, Report()).room_for_later_replicas(1)
    assert (room.gpus_per_engine, room.cpus_per_engine) == (1, 4)


def test_requests_that_come_together_for_an_adapter_load_it_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded: list[str] = []

    class Engine:
        async def resolve_lora(self, model: str) -> None:
            """As Ray's does, and vLLM's, which refuses what is loaded."""
            if model not in loaded:
                await asyncio.sleep(0.01)
                if model in loaded:
                    raise ValueError("has already been loaded")
                loaded.append(model)

        async def shutdown(self) -> None:
            pass

    async def load(model: str) -> str:
        return model

    async def all_at_once() -> None:
        server: Any = AdapterServer.__new__(AdapterServer)
        server._loading = defaultdict(asyncio.Lock)
        server.engine, server._load_model = Engine(), load
        server._llm_config = SimpleNamespace(lora_config=True)
        await asyncio.gather(*(server._maybe_resolve_lora_from_multiplex() for _ in range(4)))

    monkeypatch.setattr("ray.serve.get_multiplexed_model_id", lambda: "tiny:one:1")
    asyncio.run(all_at_once())
    assert loaded == ["tiny:one:1"]
