"""The engine's actor around a scripted engine: whose turn it is, what sleeps, and when it ends."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from haloforge.model.bases import Base
from haloforge.model.policy import Policy
from haloforge.rollout import actor as module
from haloforge.rollout.actor import EngineActor
from haloforge.rollout.engine import Completion, EngineSpec, Prompt
from haloforge.rollout.settings import RolloutSettings, Sampling

HERE = Path(__file__).parent  # a folder that this machine has
BASE = Base("base", "base", HERE, "base")
SAMPLING = Sampling(temperature=0.0, top_p=1.0, max_tokens=8, stop_at_fence=False)
ONE, TWO = (Policy(name, BASE, HERE, name) for name in ("one", "two"))


class ScriptedEngine:
    """Notes what it is asked, and answers with the policy that it has by then."""

    def __init__(self) -> None:
        self.dead = False
        self.calls: list[str] = []
        self.policy = "base"
        self.fault: Exception | None = None

    async def generate(
        self, prompt: Prompt, sampling: Sampling, on_first_token: Callable[[], None] | None = None
    ) -> Completion:
        before = self.policy
        await asyncio.sleep(0.01)
        if on_first_token is not None:
            on_first_token()
        assert self.policy == before, "a swap did not drain"
        if self.fault:
            raise self.fault
        self.calls.append(f"answer by {before}")
        return Completion(before, 1, "stop", None)

    async def take(self, policy: Policy) -> None:
        self.calls.append(f"take {policy.name}")
        if self.fault:
            raise self.fault
        self.policy = policy.name

    async def sleep(self) -> None:
        self.calls.append("sleep")

    async def wake(self) -> None:
        self.calls.append("wake")

    async def stop(self) -> None:
        self.calls.append("stop")


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def actor(engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> EngineActor:
    monkeypatch.setattr(module, "prepare", lambda: None)
    monkeypatch.setattr(module, "own_cores", lambda: (0,))
    monkeypatch.setattr(module, "_was_restarted", lambda: False)
    monkeypatch.setattr(module, "_build", lambda kind, spec: engine)
    return EngineActor(EngineSpec(BASE, RolloutSettings(), (2,)))


def ask(actor: EngineActor, policy: Policy) -> "asyncio.Task[dict[str, object]]":
    return asyncio.ensure_future(actor.generate(Prompt([1]), SAMPLING, policy))


def test_each_request_is_answered_by_its_policy_in_turn(
    actor: EngineActor, engine: ScriptedEngine
) -> None:
    async def run() -> list[dict[str, object]]:
        order = (ONE, ONE, TWO, ONE)
        return await asyncio.gather(*(ask(actor, policy) for policy in order))

    answers = asyncio.run(run())
    assert [answer["policy"] for answer in answers] == ["one", "one", "two", "one"]
    assert [answer["completion"] for answer in answers] == ["one", "one", "two", "one"]
    assert engine.calls[:3] == ["take one", "answer by one", "answer by one"]


def test_it_sleeps_when_drained_and_wakes_for_the_next(
    actor: EngineActor, engine: ScriptedEngine
) -> None:
    async def run() -> None:
        await actor.sleep()  # not started: there is nothing to give back
        await actor.ready()
        first = ask(actor, ONE)
        await asyncio.sleep(0)
        await asyncio.gather(actor.sleep(), actor.sleep(), first)
        await actor.set_policy(ONE)
        await actor.sleep()
        await ask(actor, TWO)

    asyncio.run(run())
    assert engine.calls == [
        *("take one", "answer by one", "sleep"),
        *("wake", "sleep"),
        *("wake", "take two", "answer by two"),
    ]


def test_after_a_failed_swap_no_policy_is_taken_for_loaded(
    actor: EngineActor, engine: ScriptedEngine
) -> None:
    async def run() -> None:
        await actor.set_policy(ONE)
        engine.fault = OSError("disk full")
        with pytest.raises(OSError, match="disk full"):
            await actor.set_policy(TWO)
        assert (await actor.facts())["policy"] == ""
        engine.fault = None
        assert (await ask(actor, ONE))["completion"] == "one"

    asyncio.run(run())
    assert engine.calls == ["take one", "take two", "take one", "answer by one"]


@pytest.mark.parametrize("dead", [False, True])
def test_the_process_ends_with_the_engine_s_own_only(
    actor: EngineActor, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, dead: bool
) -> None:
    ended: list[int] = []
    monkeypatch.setattr("os._exit", ended.append)

    async def run() -> None:
        await actor.set_policy(ONE)
        engine.fault, engine.dead = ValueError("bad request"), dead
        with pytest.raises(ValueError, match="bad request"):
            await ask(actor, ONE)
        assert (await actor.facts())["in_flight"] == 0

    asyncio.run(run())
    assert ended == [1] * dead


@pytest.mark.parametrize("restarted", [False, True])
def test_no_engine_draws_what_one_before_it_drew(
    actor: EngineActor,
    engine: ScriptedEngine,
    monkeypatch: pytest.MonkeyPatch,
    restarted: bool,
) -> None:
    seeds: list[int] = []

    def build(kind: str, spec: EngineSpec) -> ScriptedEngine:
        seeds.append(spec.seed)
        return engine

    monkeypatch.setattr(module, "_build", build)
    asyncio.run(actor.ready())
    monkeypatch.setattr(module, "_was_restarted", lambda: restarted)
    asyncio.run(EngineActor(EngineSpec(BASE, RolloutSettings(), (2,))).ready())
    assert len(set(seeds)) == 2
