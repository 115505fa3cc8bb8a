"""Asks an LLM: many requests in flight, each sent again where that may help, answers committed.

By aiohttp, for of OpenAI's client only one call would be used: its retries know neither a rate for
all requests together nor a pause that one answer asks of all, and it takes three times as long.
"""

import asyncio
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from haloforge.data.generate.answers import Answer, Answers
from haloforge.data.generate.backends import Backend
from haloforge.data.generate.pace import Pace, Purse, Sleep
from haloforge.data.generate.settings import GenerateSettings
from haloforge.errors import HaloforgeError, InfraError, InputError, ResourceError
from haloforge.report.progress import Stage
from haloforge.schema import Message

if TYPE_CHECKING:
    from aiohttp import ClientSession

Request = tuple[str, list[Message]]
"""A request's id and its turns."""
_FIRST_WAIT_S, _MOST_WAIT_S = 1.0, 60.0
_LONGEST_PAUSE_S = 600.0
_SYNC_S = 1.0
_IN_VAIN = 8  # requests given up one after the other, with no answer between
_AGAIN = {408, 409, 425, 429}  # and all from 500
_TOLD = 200  # characters of what a server says of a failure


@dataclass
class Asked:
    """How it went: requests answered and given up, why the last of those was, and whether the cap
    on tokens stopped it."""

    answered: int = 0
    given_up: int = 0
    why: str = ""
    capped: bool = False


class _FailedError(Exception):
    """One request failed: whether it may be sent again, and the pause that the server asks for."""

    def __init__(self, why: str, again: bool, pause: float | None = None) -> None:
        super().__init__(why)
        self.again, self.pause = again, pause


def ask(
    backend: Backend,
    settings: GenerateSettings,
    requests: Iterator[Request],
    answers: Answers,
    stage: Stage,
) -> Asked:
    """Sends `requests` and commits each answer as it comes.

    Raises InputError where the backend refuses the key or knows no such model, ResourceError where
    it wants money first, InfraError where request after request fails.
    """
    pace = Pace(settings.requests_per_minute)
    return asyncio.run(_Asking(backend, settings, answers, stage, pace).all(requests))


def about_tokens(text: str) -> int:
    """About how many tokens a text is, whose tokenizer nobody knows: four characters each."""
    return -(-len(text) // 4)


class _Asking:
    def __init__(
        self,
        backend: Backend,
        settings: GenerateSettings,
        answers: Answers,
        stage: Stage,
        pace: Pace,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._backend, self._settings = backend, settings
        self._answers, self._stage = answers, stage
        self._pace, self._sleep = pace, sleep
        cap = settings.max_tokens
        self._purse = Purse(None if cap is None else cap - answers.tokens)
        self._asked = Asked()
        self._in_vain = 0

    async def all(self, requests: Iterator[Request]) -> Asked:
        from aiohttp import ClientSession, ClientTimeout, TCPConnector

        async with ClientSession(
            headers={"authorization": f"Bearer {self._backend.api_key()}"},
            connector=TCPConnector(limit=self._settings.in_flight),
            # Of the whole answer: some servers send blanks while they work.
            timeout=ClientTimeout(total=self._settings.timeout_s),
            proxy=_proxy(self._backend.url),
        ) as client:
            syncing = asyncio.create_task(self._keep_synced())
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(self._settings.in_flight):
                        group.create_task(self._work(client, requests))
            except BaseExceptionGroup as errors:
                raise _first(errors) from None
            finally:
                syncing.cancel()
        self._asked.capped = self._purse.empty
        return self._asked

    async def _keep_synced(self) -> None:
        while True:
            await asyncio.sleep(_SYNC_S)
            await asyncio.to_thread(self._answers.sync)

    async def _work(self, client: "ClientSession", requests: Iterator[Request]) -> None:
        """One request after the other, of those that all workers share."""
        for request, turns in requests:
            # Twice what it is by the rule of thumb: a cap must hold.
            most = 2 * sum(about_tokens(turn["content"]) for turn in turns)
            most += self._settings.answer_tokens
            if not await self._purse.take(most):
                return
            spent = 0
            try:
                answer = await self._answer(client, request, turns)
                if answer is not None:
                    spent = answer.tokens
                    self._answers.commit(answer)
                    self._tell()
            finally:
                await self._purse.give(most, spent)

    def _tell(self) -> None:
        self._asked.answered += 1
        self._in_vain = 0
        self._stage.advance(1, f"{self._answers.tokens} tokens")

    async def _answer(
        self, client: "ClientSession", request: str, turns: list[Message]
    ) -> Answer | None:
        """None where the request is given up."""
        for attempt in range(self._settings.retries + 1):
            await self._pace.turn()
            try:
                return await self._send(client, request, turns)
            except _FailedError as failure:
                why = str(failure)
                if not failure.again:
                    break
                if attempt == self._settings.retries:
                    why = f"{why}, {attempt + 1} times"
                elif failure.pause is not None:
                    self._pace.pause(failure.pause)
                else:
                    # Full jitter, so that those that failed together do not come back together.
                    longest = min(_MOST_WAIT_S, _FIRST_WAIT_S * 2**attempt)
                    await self._sleep(random.uniform(0, longest))
        self._asked.given_up += 1
        self._asked.why = why
        self._in_vain += 1
        if self._in_vain == _IN_VAIN:
            raise InfraError(
                f"{self._backend.url}: {_IN_VAIN} requests one after the other were not answered "
                f"({why}); the same command goes on from what was answered"
            )
        return None

    async def _send(self, client: "ClientSession", request: str, turns: list[Message]) -> Answer:
        import aiohttp

        settings = self._settings
        body: dict[str, Any] = {
            "model": self._backend.model,
            "messages": turns,
            self._backend.limit_field: settings.answer_tokens,
        }
        if settings.temperature is not None:
            body["temperature"] = settings.temperature
        url = f"{self._backend.url}/chat/completions"
        try:
            async with client.post(url, json=body, allow_redirects=False) as reply:
                told = await reply.read()
        except TimeoutError:
            why = f"no answer within {settings.timeout_s:g} s"
            raise _FailedError(why, again=True) from None
        except (aiohttp.ClientError, OSError) as error:
            why = _clipped(f"connection failed: {error or type(error).__name__}")
            raise _FailedError(why, again=True) from None
        if reply.status != 200:
            raise self._refused(reply.status, _object(told), reply.headers)
        try:
            return _answer(request, turns, _object(told))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            raise _FailedError("no whole answer of chat completions", again=True) from None

    def _refused(
        self, status: int, told: dict[str, Any], headers: Mapping[str, str]
    ) -> HaloforgeError | _FailedError:
        """What an answer other than 200 means."""
        url, model = self._backend.url, self._backend.model
        error = told.get("error", told)
        told = error if isinstance(error, dict) else {"message": error}
        said = _clipped(f"{status} {told.get('message') or told.get('detail') or ''}")
        if status in (401, 403):
            return self._backend.refused(said)
        if status == 404:
            return InputError(f"{url}: no such address, or no model '{model}' ({said})")
        if status == 402 or (status == 429 and told.get("code") == "insufficient_quota"):
            return ResourceError(f"{url}: nothing is left to pay with ({said})")
        again = status in _AGAIN or status >= 500
        return _FailedError(said, again, _pause(headers) if again else None)


def _proxy(url: str) -> str | None:
    """The one that the environment names for `url`. Of aiohttp's `trust_env` it comes with the
    passwords of ~/.netrc, looked up for every request, and an error where there is one beside our
    key."""
    parts = urlsplit(url)
    if proxy_bypass(parts.hostname or ""):
        return None
    return getproxies().get(parts.scheme)


def _object(told: bytes) -> dict[str, Any]:
    """The JSON object that was sent; an empty one where it is none, or half of one."""
    try:
        found = json.loads(told)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _answer(request: str, turns: list[Message], told: dict[str, Any]) -> Answer:
    choice, usage = told["choices"][0], told.get("usage") or {}
    text = choice["message"].get("content") or ""
    asked = sum(about_tokens(turn["content"]) for turn in turns)
    if not isinstance(text, str):
        raise TypeError
    return Answer(
        request,
        text,
        str(choice.get("finish_reason")),
        int(usage.get("prompt_tokens", asked)),
        int(usage.get("completion_tokens", about_tokens(text))),
    )


def _pause(headers: Mapping[str, str]) -> float | None:
    """The seconds that a server asks to be left alone for: in `retry-after`, seconds or a date (RFC
    9110, section 10.2.3), or in `retry-after-ms`, as some have it."""
    from email.utils import parsedate_to_datetime
    from math import isfinite
    from time import time

    found: float | None = None
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        told = headers.get(name)
        if told is None or found is not None:
            continue
        try:
            found = float(told) / unit
        except ValueError:
            try:
                found = parsedate_to_datetime(told).timestamp() - time()
            except ValueError:
                continue
    if found is None or not isfinite(found) or found < 0:
        return None
    return min(found, _LONGEST_PAUSE_S)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _clipped(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _TOLD else f"{line[:_TOLD]}..."
