"""An LLM that is slow, refuses, breaks off and writes halves: what is sent again."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import web

from haloforge.data.generate.answers import FILE, Answer, Answers
from haloforge.data.generate.asking import Asked, _pause, ask
from haloforge.data.generate.backends import Backend, find_backend
from haloforge.data.generate.pace import Pace, Purse
from haloforge.data.generate.settings import GenerateSettings
from haloforge.errors import InfraError, InputError, ResourceError
from haloforge.report.progress import Report
from haloforge.schema import Message
from tests.scripted_llm import Act, ScriptedLLM

QUICK = GenerateSettings(in_flight=4, timeout_s=5, retries=3)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("haloforge.data.generate.asking._FIRST_WAIT_S", 0.01)


def requests(count: int) -> Iterator[tuple[str, list[Message]]]:
    return ((f"r{n}", [{"role": "user", "content": f"words {n}"}]) for n in range(count))


def backend(llm: ScriptedLLM) -> Backend:
    return Backend(url=llm.url, model="m", count=1)


def asked(
    llm: ScriptedLLM, folder: Path, count: int, settings: GenerateSettings = QUICK
) -> tuple[Asked, Answers]:
    with Answers(folder) as answers, Report().stage("asking", count, "answers") as stage:
        left = (each for each in requests(count) if each[0] not in answers)
        return ask(backend(llm), settings, left, answers, stage), answers


@contextmanager
def failing_first(*acts: Act) -> Iterator[ScriptedLLM]:
    """Each request is met with these before it is answered."""
    with ScriptedLLM(lambda _, time: acts[time] if time < len(acts) else "ok").serving() as llm:
        yield llm


def test_every_request_is_answered_once(tmp_path: Path) -> None:
    with ScriptedLLM(seconds=0.05).serving() as llm:
        found, answers = asked(llm, tmp_path, 20)
    assert found == Asked(answered=20)
    assert set(llm.sent.values()) == {1} and len(llm.sent) == 20
    assert llm.most_at_once == 4
    assert (answers.input_tokens, answers.output_tokens) == (200, 400)
    body = llm.bodies[0]
    assert {"model", "messages", "max_tokens"} == {*body} and body["max_tokens"] == 8192


@pytest.mark.parametrize("act", ["500", "429", "half_body", "dropped", "no_choice"])
def test_what_may_pass_is_sent_again(tmp_path: Path, act: Act) -> None:
    with failing_first(act, act) as llm:
        found, answers = asked(llm, tmp_path, 5)
    assert found == Asked(answered=5) and len(answers) == 5
    assert set(llm.sent.values()) == {3}


def test_an_answer_that_takes_too_long_is_asked_for_again(tmp_path: Path) -> None:
    with failing_first("slow") as llm:
        settings = QUICK.model_copy(update={"timeout_s": 0.5})
        found, _ = asked(llm, tmp_path, 3, settings)
    assert found == Asked(answered=3) and set(llm.sent.values()) == {2}


@pytest.mark.parametrize("act", ["half_json", "nothing", "cut"])
def test_what_is_an_answer_is_committed_whatever_it_says(tmp_path: Path, act: Act) -> None:
    with ScriptedLLM(lambda *_: act).serving() as llm:
        found, answers = asked(llm, tmp_path, 3)
    assert found == Asked(answered=3) and set(llm.sent.values()) == {1}
    assert all(name in answers for name in ("r0", "r1", "r2"))
    with Answers(tmp_path) as again:
        assert again.read("r0").finish == ("length" if act == "cut" else "stop")


def test_a_request_that_always_fails_is_given_up_and_asked_for_the_next_time(
    tmp_path: Path,
) -> None:
    llm = ScriptedLLM(lambda words, _: "500" if words == "words 1" else "ok")
    with llm.serving():
        found, answers = asked(llm, tmp_path, 3)
        assert (found.answered, found.given_up) == (2, 1)
        assert "scripted 500" in found.why and "4 times" in found.why
        assert llm.sent["words 1"] == 4 and "r1" not in answers
        llm.script = lambda *_: "ok"
        found, answers = asked(llm, tmp_path, 3)
    assert found == Asked(answered=1) and len(answers) == 3
    assert (llm.sent["words 0"], llm.sent["words 1"]) == (1, 5)


def test_it_stops_where_nothing_is_answered(tmp_path: Path) -> None:
    with (
        ScriptedLLM(lambda *_: "500").serving() as llm,
        pytest.raises(InfraError, match="8 requests one after the other were not answered"),
    ):
        asked(llm, tmp_path, 100)
    assert len(llm.sent) < 20
    with pytest.raises(InfraError, match="connection failed"):  # nobody is there any more
        asked(llm, tmp_path, 100)


@pytest.mark.parametrize(
    ("status", "code", "error", "why"),
    [
        (
            401,
            None,
            InputError,
            "a request with no key is not accepted (401 scripted)",
        ),
        (404, None, InputError, "no such address, or no model 'm'"),
        (402, None, ResourceError, "nothing is left to pay with"),
        (429, "insufficient_quota", ResourceError, "nothing is left to pay with"),
    ],
)
def test_what_cannot_pass_stops_it_at_once(
    tmp_path: Path, status: int, code: str | None, error: type[Exception], why: str
) -> None:
    class Refusing(ScriptedLLM):
        async def answer(self, request: web.Request) -> web.StreamResponse:
            self.sent["any"] += 1
            told = {"error": {"message": "scripted", "code": code}}
            return web.json_response(told, status=status)

    with Refusing().serving() as llm, pytest.raises(error) as stopped:
        asked(llm, tmp_path, 50)
    assert why in str(stopped.value) and llm.sent["any"] <= 4


def test_a_pause_that_is_asked_for_is_kept_by_all(tmp_path: Path) -> None:
    with failing_first("429") as llm:
        llm.retry_after = "1"
        began = time.monotonic()
        found, _ = asked(llm, tmp_path, 4)
    assert found == Asked(answered=4) and time.monotonic() - began >= 1


def test_what_a_header_asks_for() -> None:
    from email.utils import formatdate

    assert _pause({"retry-after": "2.5"}) == 2.5
    assert _pause({"retry-after-ms": "500", "retry-after": "9"}) == 0.5
    at = _pause({"retry-after": formatdate(time.time() + 30, usegmt=True)})
    assert at is not None and 25 < at <= 30
    assert _pause({"retry-after": "100000"}) == 600
    for header in ("soon", "-1", "nan", "inf"):
        assert _pause({"retry-after": header}) is None
    assert _pause({}) is None


def test_no_more_tokens_are_paid_for_than_allowed(tmp_path: Path) -> None:
    # A request takes 6 and 64 before it is sent, and gives back all but the 30 that it cost.
    settings = QUICK.model_copy(update={"max_tokens": 200, "answer_tokens": 64})
    with ScriptedLLM().serving() as llm:
        found, answers = asked(llm, tmp_path, 50, settings)
        assert found.capped and answers.tokens <= 200
        assert found.answered == 5  # at 150 there is no room for 70
        found, _ = asked(llm, tmp_path, 50, settings)
    assert found == Asked(capped=True) and sum(llm.sent.values()) == 5


class FakeClock:
    """Time passes where somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_turns_are_spaced_by_the_rate_and_kept_back_by_a_pause() -> None:
    clock = FakeClock()
    pace = Pace(30, clock, clock.sleep)
    times = []

    async def turns() -> None:
        for number in range(6):
            if number == 3:
                pace.pause(10)
            await pace.turn()
            times.append(clock.now - 100)
        clock.now += 60
        for _ in range(2):  # time that passed unused is not saved up
            await pace.turn()
            times.append(clock.now - 100)

    asyncio.run(turns())
    assert times == [0, 2, 4, 14, 16, 18, 78, 80]


def test_a_turn_that_was_waited_for_is_lost_to_a_pause() -> None:
    clock = FakeClock()
    pace = Pace(60, clock, clock.sleep)
    times: list[float] = []

    async def both() -> None:
        await pace.turn()

        async def paused_while_asleep(seconds: float) -> None:
            if not times:
                times.append(clock.now)
                pace.pause(30)
            clock.now += seconds

        pace._sleep = paused_while_asleep
        await pace.turn()
        times.append(clock.now)

    asyncio.run(both())
    assert times == [100, 130]


def test_a_purse_waits_for_what_others_may_give_back() -> None:
    async def spend() -> list[str]:
        purse, order = Purse(100), []

        async def second() -> None:
            order.append("taken" if await purse.take(60) else "refused")

        assert await purse.take(60)
        waiting = asyncio.create_task(second())
        await asyncio.sleep(0)
        order.append("given")
        await purse.give(60, 40)
        await waiting
        await purse.give(60, 60)
        assert not await purse.take(1) and purse.empty
        return order

    assert asyncio.run(spend()) == ["given", "taken"]


def answer(request: str, text: str = "x") -> Answer:
    return Answer(request, text, "stop", 1, 2)


def test_a_torn_line_is_no_answer_and_is_cut_off(tmp_path: Path) -> None:
    with Answers(tmp_path) as answers:
        answers.commit(answer("a", "half a pair: \ud800"))
        answers.commit(answer("b"))
    whole = (tmp_path / FILE).read_bytes()
    for cut in range(len(whole.splitlines(keepends=True)[0]), len(whole)):
        (tmp_path / FILE).write_bytes(whole[:cut])
        with Answers(tmp_path) as answers:
            assert "a" in answers and "b" not in answers and len(answers) == 1
            assert answers.read("a").text == "half a pair: \ud800"
            answers.commit(answer("b"))
        assert (tmp_path / FILE).read_bytes() == whole


def test_a_spoilt_line_is_asked_for_again(tmp_path: Path) -> None:
    with Answers(tmp_path) as answers:
        for name in "abc":
            answers.commit(answer(name))
    lines = (tmp_path / FILE).read_bytes().splitlines(keepends=True)
    (tmp_path / FILE).write_bytes(lines[0] + lines[1].replace(b'"x"', b'"y"') + lines[2])
    with Answers(tmp_path) as answers:
        assert ("a" in answers, "b" in answers, "c" in answers) == (True, False, True)
        assert answers.spoilt == 1
        answers.commit(answer("b"))
    with Answers(tmp_path) as answers:
        assert len(answers) == 3 and answers.read("b").text == "x"


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    write = os.write
    with Answers(tmp_path) as answers:
        answers.commit(answer("a"))
        monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:20]))
        with pytest.raises(OSError, match="No space left"):
            answers.commit(answer("b"))
        monkeypatch.setattr(os, "write", write)
        answers.commit(answer("c"))
    with Answers(tmp_path) as answers:
        assert "b" not in answers and answers.read("c") == answer("c") and not answers.spoilt


def test_passwords_of_netrc_are_not_sent_and_break_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with ScriptedLLM().serving() as llm:
        found, _ = asked(llm, tmp_path, 2)
    assert found == Asked(answered=2) and llm.keys == {"Bearer none"}


def test_a_proxy_is_taken_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ScriptedLLM().serving() as llm:
        monkeypatch.setenv("http_proxy", llm.url.removesuffix("/v1"))
        llm.url = "http://host.invalid/v1"  # which only a proxy could reach
        assert asked(llm, tmp_path, 2)[0] == Asked(answered=2)
        monkeypatch.setenv("no_proxy", "host.invalid")
        other = tmp_path / "other"
        other.mkdir()
        none = QUICK.model_copy(update={"retries": 0})
        assert asked(llm, other, 1, none)[0].given_up == 1


@pytest.mark.parametrize(
    ("key", "why"),
    [("", "wants a key: set HALOFORGE_API_KEY"), ("wrong", "the key in HALOFORGE_API_KEY is not")],
)
def test_a_server_of_ones_own_that_wants_a_key_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, why: str
) -> None:
    monkeypatch.setenv("HALOFORGE_API_KEY", key)
    with Refused().serving() as llm:
        for ask_for in (None, "m"):
            with pytest.raises(InputError, match=why):
                found = find_backend(llm.url, ask_for)
                with Answers(tmp_path) as answers, Report().stage("a", 1, "answers") as stage:
                    ask(found, QUICK, requests(1), answers, stage)


class Refused(ScriptedLLM):
    """One that knows no key."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"detail": "who is it?"}, status=401)

    models = answer
