"""The sample browser's server: who may ask, and what goes with every answer."""

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import os
import secrets
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlencode

import click
from aiohttp import web

from haloforge.errors import HaloforgeError, InputError, ResourceError
from haloforge.view.pages import NotFoundError, Pages

TOKEN = "HALOFORGE_VIEW_TOKEN"
LEAST_TOKEN = 16
_LOCAL = ("127.0.0.1", "localhost", "::1")
_EVERYWHERE = ("0.0.0.0", "::")
_COOKIE = "haloforge_view"
_PATHS = ("/", "/sample", "/raw", "/id")
_OPEN = ("/style.css", "/icon.svg")  # of the page that refuses too; they are the same for all
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_log = logging.getLogger(__name__)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def token_for(host: str, required: bool = False) -> str | None:
    """The token without which nothing is told: that of the environment, or, where others can reach
    `host` or it is `required`, a new one. Raises InputError for one that can be guessed."""
    given = os.environ.get(TOKEN, "").strip()
    if given and len(given) < LEAST_TOKEN:
        raise InputError(f"{TOKEN}: {LEAST_TOKEN} characters at least, or it can be guessed")
    if given or (host in _LOCAL and not required):
        return given or None
    return secrets.token_urlsafe(24)


def build(pages: Pages, token: str | None) -> web.Application:
    """The application. With a `token` it answers whoever has that; without one, only who asks for
    this machine by its own name, as no page of the web can have a browser do."""
    guard = _Guard(pages, token)
    app = web.Application(middlewares=[guard.check, _Failures(pages).tell])
    app.on_response_prepare.append(_with_headers)

    async def home(request: web.Request) -> web.Response:
        return _html(await asyncio.to_thread(pages.list_page, request.query))

    async def sample(request: web.Request) -> web.Response:
        return _html(await asyncio.to_thread(pages.sample_page, request.query))

    async def raw(request: web.Request) -> web.Response:
        body = await asyncio.to_thread(pages.raw, request.query)
        name = f"{request.query['what']}.txt"
        told = {"Content-Disposition": f'attachment; filename="{name}"'}
        return web.Response(body=body, headers=told, content_type="text/plain", charset="utf-8")

    async def by_id(request: web.Request) -> web.Response:
        wanted = request.query.get("sample", "").strip()
        raise web.HTTPSeeOther(await asyncio.to_thread(pages.address_of, wanted))

    app.add_routes(
        [
            web.get("/", home),
            web.get("/sample", sample),
            web.get("/raw", raw),
            web.get("/id", by_id),
            web.get("/style.css", _file("style.css", "text/css")),
            web.get("/icon.svg", _file("icon.svg", "image/svg+xml")),
        ]
    )
    return app


def serve(run: Path, host: str, port: int, require_token: bool) -> None:
    """Serves until Ctrl-C or SIGTERM. Raises InputError where `run` is no run, ResourceError where
    it cannot listen."""
    token = token_for(host, require_token)
    pages = Pages(run)
    pages.check()
    asyncio.run(_serve(pages, host, port, token))


async def _serve(pages: Pages, host: str, port: int, token: str | None) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    runner = web.AppRunner(build(pages, token), access_log=None)  # it would hold tokens
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            reason = (error.strerror or str(error)).splitlines()[0]
            raise ResourceError(f"cannot listen at {host}:{port}: {reason}; give --port") from None
        click.echo(f"Samples: {_address(host, runner.addresses[0][1], token)}")
        click.echo("Ctrl-C ends it", err=True)
        await asyncio.gather(_read(pages), ended.wait())
    finally:
        await runner.cleanup()


async def _read(pages: Pages) -> None:
    """Reads what the first page needs, before it is asked for."""
    with suppress(HaloforgeError, OSError):  # each page tells it
        await asyncio.to_thread(pages.ready)


def _address(host: str, port: int, token: str | None) -> str:
    host = "127.0.0.1" if host in _EVERYWHERE else host
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{port}/" + (f"?{urlencode({'token': token})}" if token else "")


class _Guard:
    """Lets through who has the token, or asks for this machine where there is none."""

    def __init__(self, pages: Pages, token: str | None) -> None:
        self._pages, self._token = pages, token

    @web.middleware
    async def check(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        if request.path in _OPEN:
            return await handler(request)
        if self._token is None:
            if _is_local(request.host):
                return await handler(request)
            return _html(self._pages.told("Not here", _NOT_LOCAL, home=False), 403)
        if "token" in request.query:
            if self._is_token(request.query["token"]):
                return self._enter(request)
        elif self._has_cookie(request) or self._has_header(request):
            return await handler(request)
        return _html(self._pages.told("A token is needed", _NO_TOKEN, home=False), 401)

    def _enter(self, request: web.Request) -> web.Response:
        """Keeps the token out of the address, and so out of what is shared of it."""
        rest = [(name, value) for name, value in request.query.items() if name != "token"]
        path = request.path if request.path in _PATHS else "/"
        answer = web.Response(status=303)
        answer.headers["Location"] = f"{path}?{urlencode(rest)}" if rest else path
        # Lax: a link from another site leads here too, and only GET is answered, which only reads.
        name = _cookie(request.host)
        answer.set_cookie(name, self._ticket, httponly=True, samesite="Lax", path="/")
        return answer

    @property
    def _ticket(self) -> str:
        """What the cookie holds: it does not tell the token."""
        return hashlib.sha256(f"cookie {self._token}".encode()).hexdigest()

    def _has_cookie(self, request: web.Request) -> bool:
        return _same(request.cookies.get(_cookie(request.host), ""), self._ticket)

    def _has_header(self, request: web.Request) -> bool:
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        return kind.lower() == "bearer" and self._is_token(given.strip())

    def _is_token(self, given: str) -> bool:
        return _same(given, self._token or "")


class _Failures:
    """A page in place of an error of ours, which says it in its line."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    @web.middleware
    async def tell(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except NotFoundError as error:
            return _html(self._pages.told("Not found", str(error)), 404)
        except InputError as error:
            return _html(self._pages.told("That cannot be asked for", str(error)), 400)
        except HaloforgeError as error:
            return _html(self._pages.told("That cannot be shown", str(error)), 500)
        except web.HTTPNotFound:
            return _html(self._pages.told("Not found", "there is no such page"), 404)
        except web.HTTPException:
            raise
        except OSError as error:
            return _html(self._pages.told("That cannot be shown", str(error)), 500)
        except Exception:
            _log.exception("%s cannot be shown", request.path)
            told = "that is a fault of halo-forge; where it was started it has said more"
            return _html(self._pages.told("That cannot be shown", told), 500)


_NO_TOKEN = (
    "open the address that `halo-forge view` printed, with its token, or send it as "
    "`Authorization: Bearer ...`"
)
_NOT_LOCAL = "ask for 127.0.0.1 or localhost: other names are not answered without a token"


def _is_local(host: str) -> bool:
    """Whether a Host header names this machine's own address, by whatever port: a tunnel may lead
    here from another one."""
    name = host.strip().lower()
    name = name.partition("]")[0].lstrip("[") if name.startswith("[") else name.partition(":")[0]
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _cookie(host: str) -> str:
    """Its name: a host's ports share their cookies. Of a tunnel the port is that of its own end,
    by which the browser asks."""
    port = host.rpartition(":")[2]
    return f"{_COOKIE}_{port}" if port.isascii() and port.isdecimal() else _COOKIE


def _same(given: str, known: str) -> bool:
    """In a time that tells nothing of either."""
    digests = (hashlib.sha256(each.encode("utf-8", "replace")).digest() for each in (given, known))
    return hmac.compare_digest(*digests)


async def _with_headers(request: web.Request, answer: web.StreamResponse) -> None:
    answer.headers.update(_HEADERS)
    answer.headers.pop("Server", None)


def _html(page: str, status: int = 200) -> web.Response:
    return web.Response(
        text=page.encode("utf-8", "replace").decode(), status=status, content_type="text/html"
    )


def _file(name: str, kind: str) -> _Handler:
    body = (files("haloforge.view") / "page" / name).read_bytes()

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type=kind, charset="utf-8")

    return answer
