"""What clients meet: Ray Serve's OpenAI-compatible app, which knows our models by their names."""

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from ray.llm._internal.serve.core.configs.openai_api_models import ModelCard, ModelList
from ray.serve.handle import DeploymentHandle
from ray.serve.llm.ingress import OpenAiIngress, make_fastapi_ingress
from ray.serve.llm.openai_api_models import ChatCompletionRequest, CompletionRequest

from haloforge.errors import HaloforgeError, InputError
from haloforge.serve.catalogue import Catalogue, Served
from haloforge.serve.server import RefusedError

_Asked = TypeVar("_Asked", ChatCompletionRequest, CompletionRequest)


class ServedBase(NamedTuple):
    """What is told of a base, and the tokens at which an answer of its models ends."""

    card: ModelCard
    stop_token_ids: list[int]


class Ingress(OpenAiIngress):
    """Names become models at each request, so that one of a new cycle needs no restart. A model is
    asked as it was trained: with its system prompt, until its end of turn."""

    def __init__(
        self,
        llm_deployments: dict[str, DeploymentHandle],
        *,
        bases: Mapping[str, ServedBase],
        sources: Sequence[str],
    ) -> None:
        super().__init__(llm_deployments, {name: base.card for name, base in bases.items()})
        self._bases = bases
        self._catalogue = Catalogue(sources)

    async def models(self) -> ModelList:
        """GET /v1/models"""
        try:
            found = await asyncio.to_thread(self._catalogue.models)
        except HaloforgeError as error:
            raise RefusedError(str(error), 500) from None
        there = [served for served in found.values() if served.base in self._bases]
        return ModelList(data=[self._card(served) for served in there])

    async def model_data(self, model: str) -> ModelCard:
        """GET /v1/models/NAME"""
        return self._card(await self._named(model))

    async def chat(self, body: ChatCompletionRequest, request: Request) -> Response:
        """POST /v1/chat/completions"""
        served = await self._named(body.model)
        system = served.policy.system
        if system is not None and not any(turn["role"] == "system" for turn in body.messages):
            body.messages.insert(0, {"role": "system", "content": system})
        return await super().chat(self._of(served, body), request)

    async def completions(self, body: CompletionRequest, request: Request) -> Response:
        """POST /v1/completions"""
        return await super().completions(self._of(await self._named(body.model), body), request)

    async def _named(self, name: str | None) -> Served:
        try:
            served = await asyncio.to_thread(self._catalogue.find, name or None)
        except InputError as error:
            raise RefusedError(str(error)) from None
        if served.base not in self._bases:
            raise RefusedError(f"model '{served.name}': its base '{served.base}' is not served")
        return served

    def _of(self, served: Served, body: _Asked) -> _Asked:
        body.model = served.id
        ends: list[int] = self._bases[served.base].stop_token_ids
        body.stop_token_ids = sorted({*(body.stop_token_ids or ()), *ends})
        return body

    def _card(self, served: Served) -> ModelCard:
        card = self._bases[served.base].card
        told = {"model": served.id, "base": served.base, "digest": served.policy.digest}
        return card.model_copy(
            update={
                "id": served.name,
                "owned_by": "haloforge",
                "metadata": {**card.metadata, **told},
            }
        )


def with_routes(key_digest: str | None) -> type[OpenAiIngress]:
    """The ingress with its addresses, which ask for the key of this digest, if there is one."""
    asked: dict[str, Any] = {}
    if key_digest is not None:
        asked["dependencies"] = [Depends(_key_check(key_digest))]

    def models(app: FastAPI) -> Any:
        app.add_exception_handler(RefusedError, _refuse)
        return app.get("/v1/models", response_model=ModelList, **asked)

    return make_fastapi_ingress(
        Ingress,
        endpoint_map={
            "models": models,
            "model_data": lambda app: app.get(
                "/v1/models/{model:path}", response_model=ModelCard, **asked
            ),
            "completions": lambda app: app.post("/v1/completions", **asked),
            "chat": lambda app: app.post("/v1/chat/completions", **asked),
        },
    )


def _refuse(request: Request, error: Exception) -> Response:
    """In OpenAI's form. What a replica refused comes as an error of Ray of that kind too."""
    found = getattr(error, "cause", error)
    assert isinstance(found, RefusedError)
    told = {"message": found.reason, "type": "invalid_request_error", "param": None}
    return JSONResponse({"error": {**told, "code": found.status}}, found.status)


def digest_of(key: str) -> str:
    """By which a key is known without being told: it is in what Ray keeps of the app."""
    return hashlib.sha256(key.encode()).hexdigest()


def _key_check(key_digest: str) -> Callable[[Request], None]:
    def check(request: Request) -> None:
        kind, _, key = request.headers.get("authorization", "").partition(" ")
        given = digest_of(key.strip()) if kind.lower() == "bearer" else ""
        if not hmac.compare_digest(given, key_digest):
            raise RefusedError("the API key (Authorization: Bearer ...) is missing or wrong", 401)

    return check
