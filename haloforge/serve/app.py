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
from haloforge.rollout.vllm_engine import engine_arguments, lora_capacity
from haloforge.serve.catalogue import Catalogue
from haloforge.serve.ingress import Ingress, ServedBase, digest_of, http_app, with_routes
from haloforge.serve.server import AdapterServer

if TYPE_CHECKING:
    from ray.serve import Application

API_KEY = "HALOFORGE_API_KEY"
# An ingress passes tokens on; Ray would book it a whole CPU of a laptop's two.
_INGRESS_CPUS = 0.1
# An engine that died is noticed at the third look. Beside one that has all cores of a small machine
# answers to Ray can be late.
_HEALTH_PERIOD_S, _HEALTH_TIMEOUT_S = 3, 30
# Requests that a replica takes, of those that it can compute at once.
_TAKEN = 4


def app(arguments: Mapping[str, Any]) -> "Application":
    """The application, for `import_path: haloforge.serve.app:app` of a configuration of Ray Serve,
    whose `args` are settings by their dotted names (`serve.models`, `rollout.max_model_len`, ...).

    Nodes that are not there yet count by `ray.scales_to`. Raises InputError and ResourceError.
    """
    settings = load_settings(None, arguments)
    catalogue = Catalogue(settings.serve.models)
    room = Nodes(settings, Report()).room_for_later_replicas(len(catalogue.bases()))
    return build(settings, catalogue, room)


def api_key() -> str | None:
    """What the environment holds, if it does."""
    return os.environ.get(API_KEY, "").strip() or None


def build(settings: Settings, catalogue: Catalogue, room: Placement) -> "Application":
    """The application that serves `catalogue`, whose replicas book what `room` says of each.

    Raises InputError where there is no model, or no key where one is required.
    """
    key = api_key()
    if key is None and settings.serve.require_key:
        raise InputError(f"serve.require_key is set, and {API_KEY} holds no key")
    on_cpu = not room.gpus_per_engine
    bases, deployments = {}, {}
    for name, policy in catalogue.bases().items():
        ranks = [s.policy.lora_rank for s in catalogue.models().values() if s.base == name]
        largest = settings.serve.max_lora_rank or max(settings.train.lora.rank, *ranks)
        capacity = lora_capacity(largest) if catalogue.grows or any(ranks) else 0
        config, stop_ids = llm_config(name, policy.base, capacity, settings, room)
        card = to_model_metadata(name, config)
        bases[name] = ServedBase(policy, card, stop_ids, takes_seed=not on_cpu)
        deployments[name] = build_llm_deployment(
            config,
            bind_kwargs={
                "base": policy,
                "sources": catalogue.sources,
                "lora_rank": capacity,
                "on_cpu": on_cpu,
            },
            deployment_cls=AdapterServer,
        )
    options = Ingress.get_deployment_options()
    options["ray_actor_options"] = {"num_cpus": _INGRESS_CPUS}
    http = http_app(digest_of(key) if key else None, settings.serve.allow_origins)
    ingress = serve.deployment(with_routes(http), **options)
    return ingress.bind(deployments, bases=bases, sources=catalogue.sources)


def llm_config(
    name: str, base: Base, lora_rank: int, settings: Settings, room: Placement
) -> tuple[LLMConfig, list[int]]:
    """How Ray Serve starts an engine of `base`, with room for adapters up to `lora_rank` (0: for
    none), and the tokens at which its answers end."""
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
    gpus = {} if on_cpu else {"GPU": 1}
    cpus = room.cpus_per_engine / (room.gpus_per_engine or 1)
    config = LLMConfig(
        model_loading_config={"model_id": name, "model_source": str(base.path)},
        engine_kwargs={**arguments, "chat_template": ensure_template(tokenizer)},
        placement_group_config={
            "bundle_per_worker": {**gpus, "CPU": cpus, **room.steering},
            "strategy": "STRICT_PACK",  # an engine's GPUs are on one node
        },
        lora_config={"max_num_adapters_per_replica": chosen.max_adapters} if lora_rank else None,
        deployment_config={
            "ray_actor_options": {"num_cpus": 0},
            "health_check_period_s": _HEALTH_PERIOD_S,
            "health_check_timeout_s": _HEALTH_TIMEOUT_S,
            "max_ongoing_requests": _TAKEN * settings.rollout.max_num_seqs,
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
