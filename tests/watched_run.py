"""A run that gives every metric a value: `python -m tests.watched_run MODEL FOLDER`.

SFT on a tiny model, then a cycle of RAFT up to its training, in one observed run: real Ray, a real
training, the real verifiers. Engines alone are stand-ins, which know their answers beforehand. One
of them dies on the way, and a problem's checker is broken, so that some samples have no verdict.
"""

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

import ray

from haloforge.config import Settings, load_settings
from haloforge.errors import HaloforgeError
from haloforge.model.policy import Policy
from haloforge.raft.cycle import raft
from haloforge.rollout.engine import Prompt
from haloforge.rollout.pool import EnginePool, name_of
from haloforge.rollout.settings import Sampling
from haloforge.session import Session
from haloforge.sft import sft
from tests.sleeping_engine import SleepingEngine, pool_of

PROBLEMS, SAMPLES, HELD_OUT = 4, 12, 2
ENGINES = 2
LAST_S = 4.0
"""So long Ray stays for the last values to be taken; they leave it once a second."""
_SLEEP_MS, _DIES_AT = 300, 10
_ANSWERS = ("```python\nprint(42)\n```", "```python\nprint(41)\n```", "```python\nprint(\n```", "?")


class AnsweringEngine(SleepingEngine):
    """Gives one answer after the other; its first life ends in the middle, where it is `mortal`."""

    def __init__(self, mortal: bool) -> None:
        super().__init__()
        again = ray.get_runtime_context().was_current_actor_reconstructed
        self._mortal = mortal and not again
        self._answers, self._asked = cycle(_ANSWERS), 0

    @ray.method(max_task_retries=-1)
    async def ready(self) -> None:
        pass

    @ray.method(max_task_retries=-1)
    async def facts(self) -> dict[str, Any]:
        return await super().facts()

    @ray.method(max_task_retries=-1)
    async def set_policy(self, policy: Policy) -> float:
        return 0.0

    async def stop(self) -> None:
        pass

    async def generate(self, prompt: Prompt, sampling: Sampling, policy: Policy) -> dict[str, Any]:
        self._asked += 1
        if self._mortal and self._asked == _DIES_AT:
            os._exit(1)
        answer = await super().generate(Prompt([_SLEEP_MS]), sampling, policy)
        return {**answer, "completion": next(self._answers), "policy": policy.digest}


class WatchedSession(Session):
    """With such engines."""

    def _start_engines(self, policy: Policy) -> EnginePool:
        actor = ray.remote(AnsweringEngine)
        options = {"num_cpus": 0, "max_concurrency": 100, "max_restarts": 1}
        engines = [
            actor.options(name=name_of(rank), **options).remote(mortal=rank == 0)
            for rank in range(ENGINES)
        ]
        self._pool_base = policy.base
        return pool_of(engines)


def settings_of(model: str, folder: Path) -> Settings:
    """The run's, with its data written to `folder`."""

    def jsonl(name: str, rows: Iterable[Mapping[str, Any]]) -> str:
        path = folder / name
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return str(path)

    def problems(name: str, number: int) -> list[dict[str, Any]]:
        test = {"stdin": "", "stdout": "42\n"}
        row = {"language": "python", "judge": "stdio", "tests": [test]}
        return [{"problem_id": f"{name}{n}", "prompt": f"{name} {n}", **row} for n in range(number)]

    train = problems("train", PROBLEMS)
    train[0]["checker"] = "def check(stdin, stdout, expected):\n    raise KeyError(stdout)\n"
    turns = [
        [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"answer {n}"}]
        for n in range(16)
    ]
    return load_settings(
        None,
        {
            "model": model,
            "ray.num_cpus": 2,
            "observe.every_s": 1,
            "train.workers": 1,
            "train.batch_size": 4,
            "train.epochs": 1,
            "train.max_length": 128,
            "sft.data": jsonl("sft.jsonl", ({"messages": turn} for turn in turns)),
            "sft.validation": 0.25,
            "raft.prompts": jsonl("train.jsonl", train),
            "raft.samples_per_prompt": SAMPLES,
            "raft.min_samples": 10_000,  # what ends the run before a second training
            "raft.eval_prompts": jsonl("test.jsonl", problems("test", HELD_OUT)),
        },
    )


def main(model: str, folder: Path) -> None:
    """Does the run in `folder / "run"`."""
    settings, run = settings_of(model, folder), folder / "run"
    with WatchedSession(settings) as session:
        session.observer.enter(run, "pipeline", settings.model_dump(mode="json"))
        session.observer.stage("sft")
        tuned = sft(session, session.policy(None), run / "sft")
        session.observer.stage("raft")
        try:
            raft(session, tuned, run / "raft")
        except HaloforgeError as error:
            print(error)
        time.sleep(LAST_S)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
