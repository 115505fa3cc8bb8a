"""An LLM that is none: a server that speaks as OpenAI's and answers, or fails, by a script.

It stands in for addresses that cost money. What an answer holds depends on the request's words
alone, so that a run that was killed and one that was not are told the same; whether a request fails
first depends on how often it was sent.
"""

import asyncio
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

Act = Literal[
    "ok", "429", "500", "slow", "half_json", "half_body", "nothing", "dropped", "no_choice", "cut"
]
Script = Callable[[str, int], Act]
"""What is done with a request, told by its words, that is sent for the n-th time (from 0)."""
Write = Callable[[str], str]
"""The answer to a request's words."""


def always_ok(words: str, time: int) -> Act:
    return "ok"


def exercise(words: str) -> str:
    """An exercise whose story is of random words, and whose solution adds two numbers in Python."""
    sha = hashlib.sha256(words.encode()).hexdigest()
    story = " ".join(sha[place : place + 4] for place in range(0, 60, 2))
    tests = [{"stdin": f"{n} {n}\n", "stdout": f"{2 * n}\n"} for n in range(5)]
    return (
        f"# Problem\nRead two integers and print their sum. {story}\n\n"
        f"# Tests\n```json\n{json.dumps(tests)}\n```\n\n"
        f"# Solution\n```python\n# {sha}\nprint(sum(map(int, input().split())))\n```\n"
    )


@dataclass
class ScriptedLLM:
    """`url` is its address; `sent` counts how often each request came, `answered` those that were
    answered whole, by their words; `lists` are the models that it names."""

    script: Script = always_ok
    write: Write = exercise
    seconds: float = 0.0
    slow_s: float = 30.0
    retry_after: str = "0.05"
    lists: tuple[str, ...] = ("scripted", "another")
    url: str = ""
    sent: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    at_once: int = 0
    most_at_once: int = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.keys.add(request.headers.get("authorization", ""))
        words = "\n".join(turn["content"] for turn in body["messages"])
        time = self.sent[words]
        self.sent[words] += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.seconds)
            return await self._acted(request, words, self.script(words, time))
        finally:
            self.at_once -= 1

    async def models(self, request: web.Request) -> web.StreamResponse:
        self.keys.add(request.headers.get("authorization", ""))
        listed = [{"id": name, "object": "model"} for name in self.lists]
        return web.json_response({"object": "list", "data": listed})

    async def _acted(self, request: web.Request, words: str, act: Act) -> web.StreamResponse:
        if act in ("429", "500"):
            headers = {"retry-after": self.retry_after} if act == "429" else {}
            error = {"error": {"message": f"scripted {act}", "type": "scripted", "code": None}}
            return web.json_response(error, status=int(act), headers=headers)
        if act == "dropped":
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        if act == "slow":
            await asyncio.sleep(self.slow_s)
        text = self.write(words)
        if act == "half_json":
            text = '{"problem": "Add two numbers.", "tests": [{"stdin": "1 2", "stdo'
        elif act == "nothing":
            text = ""
        whole = _completion(text, "length" if act == "cut" else "stop")
        if act == "half_body":
            told = json.dumps(whole)
            return web.Response(text=told[: len(told) // 2], content_type="application/json")
        if act == "no_choice":
            return web.json_response({**whole, "choices": []})
        self.answered[words] += 1
        return web.json_response(whole)

    @contextmanager
    def serving(self) -> Iterator["ScriptedLLM"]:
        """Serves in a thread of its own until the block ends."""
        loop = asyncio.new_event_loop()
        up = threading.Event()

        async def start() -> web.AppRunner:
            app = web.Application()
            app.router.add_post("/v1/chat/completions", self.answer)
            app.router.add_get("/v1/models", self.models)
            runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
            return runner

        def serve() -> None:
            asyncio.set_event_loop(loop)
            runner = loop.run_until_complete(start())
            up.set()
            loop.run_forever()
            loop.run_until_complete(runner.cleanup())
            loop.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        assert up.wait(10)
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)


def _completion(text: str, finish: str) -> dict[str, Any]:
    return {
        "id": "scripted",
        "object": "chat.completion",
        "created": 0,
        "model": "scripted",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": finish,
            }
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30},
    }
