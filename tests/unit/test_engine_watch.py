"""What is noted of engines while they are sampled from: deaths, and when the first token came."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from haloforge.config import load_settings
from haloforge.report.progress import Report
from haloforge.rollout.pool import EnginePool
from haloforge.sampling import _EngineWatch, engine_restarts
from haloforge.session import Session
from tests.observing import unobserved
from tests.sleeping_engine import pool_of

SESSION: Any = SimpleNamespace(report=Report(), observer=unobserved())


@pytest.fixture
def restarts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often the engines were restarted, as Ray says: the last number."""
    said = [0]
    monkeypatch.setattr(EnginePool, "restarts", lambda pool: said[-1])
    monkeypatch.setattr(EnginePool, "facts", lambda pool, timeout_s: [])
    return said


def test_those_between_the_stages_count_for_the_next(tmp_path: Path, restarts: list[int]) -> None:
    engine: Any = None
    pool = pool_of([engine])
    with _EngineWatch(SESSION, pool, tmp_path / "cycle_1", "toy"):
        restarts.append(1)
    restarts.append(3)  # while it trained
    with _EngineWatch(SESSION, pool, tmp_path / "cycle_1" / "eval", "toy"):
        assert engine_restarts(tmp_path / "cycle_1") == 3, "a process that is killed tells nothing"
    assert engine_restarts(tmp_path / "cycle_1" / "eval") == 2
    with _EngineWatch(SESSION, pool, tmp_path / "cycle_2", "toy"):
        pass
    assert engine_restarts(tmp_path / "cycle_2") == 0


def test_they_are_told_while_samples_come(
    tmp_path: Path,
    restarts: list[int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = [0.0]
    monkeypatch.setattr("haloforge.sampling.time.monotonic", lambda: now[-1])
    engine: Any = None
    with _EngineWatch(SESSION, pool_of([engine]), tmp_path, "toy") as watch:
        for moment, restarted, told in ((1, 0, 0), (2, 1, 0), (32, 1, 1), (33, 2, 1)):
            now.append(moment)
            restarts.append(restarted)
            watch.look()
            assert engine_restarts(tmp_path) == told
            assert watch.told == ("engines restarted: 1" if told else "")
    assert engine_restarts(tmp_path) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("toy: 1 engines died and were started anew") == 2


def test_the_first_token_stays_the_first_where_an_engine_is_restarted(
    tmp_path: Path, restarts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine: Any = None
    pool = pool_of([engine, engine])
    session = Session(load_settings())
    session._pool = pool
    tokens: list[list[float | None]] = [[None, None], [7.0, 5.0], [None, 7.0], [30.0, 40.0]]
    with _EngineWatch(SESSION, pool, tmp_path, "toy") as watch:
        for first in tokens:
            told = [{"policy": pool.policy.digest, "first_token_at": each} for each in first]
            told.append({"policy": "another", "first_token_at": 1.0})
            monkeypatch.setattr(pool, "facts", lambda timeout_s, told=told: told)
            watch.look()
            watch._next = 0.0
    assert session.first_token_at(pool.policy) == 5.0
    another = dataclasses.replace(pool.policy, digest="another")
    assert session.first_token_at(another) is None


@pytest.mark.parametrize("spoilt", [b"", b"{", b"\xff", b"[1]", b"null"])
def test_a_count_that_cannot_be_read_is_none(tmp_path: Path, spoilt: bytes) -> None:
    (tmp_path / "engine_restarts.json").write_bytes(spoilt)
    assert engine_restarts(tmp_path) == 0
