"""What clients meet: Ray Serve's OpenAI-compatible app, which knows our models by their names."""

import asyncio
import hashlib
import hmac
import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from ray.llm._internal.serve.core.configs.openai_api_models import ModelCard, ModelList
from ray.llm._internal.serve.core.ingress.ingress import init
from ray.serve.handle import DeploymentHandle
from ray.serve.llm.ingress import OpenAiIngress, make_fastapi_ingress
from ray.serve.llm.openai_api_models import ChatCompletionRequest, CompletionRequest
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from haloforge.errors import HaloforgeError, InputError
from haloforge.model.policy import Policy
from haloforge.serve.catalogue import Catalogue, Served
from haloforge.serve.server import RefusedError

_Asked = TypeVar("_Asked", ChatCompletionRequest, CompletionRequest)
_ROUTES = {
    "models": lambda app: app.get("/v1/models", response_model=ModelList),
    "model_data": lambda app: app.get("/v1/models/{model:path}", response_model=ModelCard),
    "completions": lambda app: app.post("/v1/completions"),
    "chat": lambda app: app.post("/v1/chat/completions"),
}
_logger = logging.getLogger("ray.serve.haloforge")


class ServedBase(NamedTuple):
    """What is told of a base, the tokens at which an answer of its models ends, and whether its
    engines take a client's seed: one on a CPU may die of it."""

    policy: Policy
    card: ModelCard
    stop_token_ids: list[int]
    takes_seed: bool


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
        self._catalogue = Catalogue(sources, {name: base.policy for name, base in bases.items()})

    async def models(self) -> ModelList:
        """GET /v1/models"""
        found = await asyncio.to_thread(self._catalogue.models)
        return ModelList(data=[self._card(served) for served in found.values()])

    async def model_data(self, model: str) -> ModelCard:
        """GET /v1/models/NAME"""
        return self._card(await self._named(model))

    async def chat(self, body: ChatCompletionRequest, request: Request) -> Response:
        """POST /v1/chat/completions"""
        served = await self._named(body.model)
        system = served.policy.system
        own = any(turn["role"] in ("system", "developer") for turn in body.messages)
        if system is not None and not own:
            body.messages.insert(0, {"role": "system", "content": system})
        return await super().chat(self._of(served, body), request)

    async def completions(self, body: CompletionRequest, request: Request) -> Response:
        """POST /v1/completions"""
        return await super().completions(self._of(await self._named(body.model), body), request)

    async def _named(self, name: str | None) -> Served:
        try:
            return await asyncio.to_thread(self._catalogue.find, name or None)
        except InputError as error:
            if why := self._catalogue.faults.get(name or ""):
                _logger.warning("%s: %s", name, why)
            raise RefusedError(str(error)) from None
        except (HaloforgeError, OSError) as error:
            _logger.warning("%s", error)
            raise RefusedError("models cannot be looked up now", 503) from None

    def _of(self, served: Served, body: _Asked) -> _Asked:
        base: ServedBase = self._bases[served.base]
        body.model = served.id
        body.stop_token_ids = sorted({*(body.stop_token_ids or ()), *base.stop_token_ids})
        if not base.takes_seed:
            body.seed = None
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


class KeyCheck:
    """Lets requests through that have the key, whatever they ask for, before they are read."""

    def __init__(self, app: ASGIApp, key_digest: str) -> None:
        self._app, self._key_digest = app, key_digest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and not self._has_key(HTTPConnection(scope)):
            error = RefusedError("the API key (Authorization: Bearer ...) is missing or wrong", 401)
            await _told(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _has_key(self, request: HTTPConnection) -> bool:
        kind, _, key = request.headers.get("authorization", "").partition(" ")
        given = digest_of(key) if kind.lower() == "bearer" else ""
        return hmac.compare_digest(given, self._key_digest)


def with_routes(app: FastAPI) -> type[OpenAiIngress]:
    """The ingress, whose addresses `app` has from now on."""
    return make_fastapi_ingress(Ingress, endpoint_map=_ROUTES, app=app)


def http_app(key_digest: str | None, allow_origins: Sequence[str]) -> FastAPI:
    """Ray's own application, without what it adds for everyone: pages of its addresses, and leave
    for any page of the web to ask. Where there is a key, all of it wants that."""
    app = init()
    app.router.routes.clear()
    app.user_middleware = [each for each in app.user_middleware if each.cls is not CORSMiddleware]
    app.add_exception_handler(RefusedError, _refuse)
    if key_digest is not None:
        app.add_middleware(KeyCheck, key_digest=key_digest)
    if allow_origins:  # before the key: browsers ask without it whether they may ask
        app.add_middleware(
            CORSMiddleware, allow_origins=allow_origins, allow_methods=["*"], allow_headers=["*"]
        )
    return app


def digest_of(key: str) -> str:
    """By which a key is known without being told: it is in what Ray keeps of the app."""
    return hashlib.sha256(key.strip().encode()).hexdigest()


def _refuse(request: Request, error: Exception) -> Response:
    """What a replica refused comes as an error of Ray of that kind too."""
    found = getattr(error, "cause", error)
    assert isinstance(found, RefusedError)
    return _told(found)


def _told(error: RefusedError) -> Response:
    """In OpenAI's form."""
    told = {"message": error.reason, "type": "invalid_request_error", "param": None}
    return JSONResponse({"error": {**told, "code": error.status}}, error.status)
