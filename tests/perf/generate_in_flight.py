"""64 requests in flight: answers a second, beside what an LLM that takes 200 ms could give.

The scripted LLM is a process of its own, and every answer is committed as it comes. Prints one line
of JSON.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from haloforge.data.generate.answers import Answers
from haloforge.data.generate.asking import ask
from haloforge.data.generate.backends import Backend
from haloforge.data.generate.settings import GenerateSettings
from haloforge.data.generate.slots import messages, slots
from haloforge.data.generate.topic import find_topic
from haloforge.report.progress import Report

ANSWERS, IN_FLIGHT, SECONDS = 3200, 64, 0.2


def serve() -> None:
    """Answers until its standard input ends."""
    from tests.scripted_llm import ScriptedLLM

    with ScriptedLLM(seconds=SECONDS).serving() as llm:
        print(llm.url, flush=True)
        sys.stdin.read()


def rate(url: str, count: int) -> float:
    """Answers a second, of `count`."""
    topic = find_topic("rust_async")
    requests = ((each.request, messages(topic, each)) for each in slots(topic, "m", count, count))
    settings = GenerateSettings(in_flight=IN_FLIGHT)
    backend = Backend(url=url, model="m", count=1)
    with (
        tempfile.TemporaryDirectory() as folder,
        Answers(Path(folder)) as answers,
        Report().stage("asking", count, "answers") as stage,
    ):
        began = time.monotonic()
        asked = ask(backend, settings, requests, answers, stage)
        seconds = time.monotonic() - began
        assert asked.answered == len(answers) == count, asked
    return count / seconds


def main() -> None:
    command = [sys.executable, "-m", "tests.perf.generate_in_flight", "serve"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None and server.stdout is not None
        url = server.stdout.readline().strip()
        rate(url, IN_FLIGHT)  # imports, and the first connections
        ours = rate(url, ANSWERS)
        server.stdin.close()
    most = IN_FLIGHT / SECONDS
    note = f"the reference is {IN_FLIGHT} in flight / {SECONDS * 1000:g} ms"
    entry = {"ours": ours, "reference": most, "ratio": ours / most, "unit": "answers/s"}
    print(json.dumps({**entry, "note": note}))


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else main()
