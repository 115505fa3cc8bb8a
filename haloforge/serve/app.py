"""The application: one deployment of Ray Serve's LLM server for each base, and the ingress."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ray import serve
from ray.llm._internal.serve.core.configs.openai_api_models import to_model_metadata
from ray.serve.llm import LLMConfig, build_llm_deployment

from haloforge.config import Settings, load_settings
from haloforge.data.chat import end_of_turn_ids, ensure_template
from haloforge.errors import InputError
from haloforge.model.bases import Base
from haloforge.nodes import Nodes
from haloforge.placement import Placement
from haloforge.report.progress import Report
from haloforge.rollout.engine import EngineSpec
from haloforge.rollout.vllm_engine import engine_arguments
from haloforge.serve.catalogue import Catalogue
from haloforge.serve.ingress import Ingress, ServedBase, digest_of, with_routes
from haloforge.serve.server import AdapterServer

if TYPE_CHECKING:
    from ray.serve import Application

API_KEY = "HALOFORGE_API_KEY"
# An ingress passes tokens on; Ray would book it a whole CPU of a laptop's two.
_INGRESS_CPUS = 0.1
# An engine that died is noticed at the third look. Beside one that has all cores of a small machine
# answers to Ray can be late.
_HEALTH_PERIOD_S, _HEALTH_TIMEOUT_S = 3, 30
_QUEUED_REPLICAS = 4


def app(arguments: Mapping[str, Any]) -> "Application":
    """The application, for `import_path: haloforge.serve.app:app` of a configuration of Ray Serve,
    whose `args` are settings by their dotted names (`serve.models`, `rollout.max_model_len`, ...).

    Nodes that are not there yet count by `ray.scales_to`. Raises InputError and ResourceError.
    """
    settings = load_settings(None, arguments)
    catalogue = Catalogue(settings.serve.models)
    room = Nodes(settings, Report()).room_for_later_replicas(len(catalogue.bases()))
    return build(settings, catalogue, room)


def build(settings: Settings, catalogue: Catalogue, room: Placement) -> "Application":
    """The application that serves `catalogue`, whose replicas book what `room` says of each.

    Raises InputError where there is no model, or no key where one is required.
    """
    key = os.environ.get(API_KEY) or None
    if key is None and settings.serve.require_key:
        raise InputError(f"serve.require_key is set, and {API_KEY} holds no key")
    bases, deployments = {}, {}
    for name, base in catalogue.bases().items():
        ranks = [s.policy.lora_rank for s in catalogue.models().values() if s.base == name]
        adapters = catalogue.grows or any(ranks)
        largest = settings.serve.max_lora_rank or max(settings.train.lora.rank, *ranks)
        config, stop_ids = _llm_config(name, base, largest if adapters else 0, settings, room)
        bases[name] = ServedBase(to_model_metadata(name, config), stop_ids)
        deployments[name] = build_llm_deployment(
            config,
            bind_kwargs={
                "base": base,
                "sources": catalogue.sources,
                "lora_rank": largest,
                "on_cpu": not room.gpus_per_engine,
            },
            deployment_cls=AdapterServer,
        )
    options = Ingress.get_deployment_options()
    options["ray_actor_options"] = {"num_cpus": _INGRESS_CPUS}
    ingress = serve.deployment(with_routes(digest_of(key) if key else None), **options)
    return ingress.bind(deployments, bases=bases, sources=catalogue.sources)


def _llm_config(
    name: str, base: Base, lora_rank: int, settings: Settings, room: Placement
) -> tuple[LLMConfig, list[int]]:
    from transformers import AutoTokenizer

    chosen, on_cpu = settings.serve, not room.gpus_per_engine
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    stop_ids = end_of_turn_ids(tokenizer)
    spec = EngineSpec(base, settings.rollout, tuple(stop_ids), lora_rank=lora_rank)
    arguments = engine_arguments(spec, on_cpu)
    # Ray Serve says which model it is, and has the engine's numbers for its metrics.
    for ours in ("model", "seed", "disable_log_stats"):
        del arguments[ours]
    if lora_rank:
        arguments |= {"max_loras": chosen.max_loras, "max_cpu_loras": chosen.max_adapters}
    bundle = {"CPU": room.cpus_per_engine, **room.steering}
    if not on_cpu:
        shared = {resource: amount / room.gpus_per_engine for resource, amount in bundle.items()}
        bundle = {"GPU": 1, **shared}
    config = LLMConfig(
        model_loading_config={"model_id": name, "model_source": str(base.path)},
        engine_kwargs={**arguments, "chat_template": ensure_template(tokenizer)},
        placement_group_config={"bundle_per_worker": bundle},
        lora_config={"max_num_adapters_per_replica": chosen.max_adapters} if lora_rank else None,
        deployment_config={
            "ray_actor_options": {"num_cpus": 0},
            "health_check_period_s": _HEALTH_PERIOD_S,
            "health_check_timeout_s": _HEALTH_TIMEOUT_S,
            "max_ongoing_requests": _QUEUED_REPLICAS * settings.rollout.max_num_seqs,
            "autoscaling_config": {
                "min_replicas": chosen.min_replicas,
                "max_replicas": chosen.max_replicas,
                "target_ongoing_requests": chosen.target_ongoing_requests
                or settings.rollout.max_num_seqs,
                "upscale_delay_s": chosen.upscale_delay_s,
                "downscale_delay_s": chosen.downscale_delay_s,
            },
        },
    )
    return config, stop_ids
