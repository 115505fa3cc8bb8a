"""What a session tells its engines, and its user about them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from haloforge.config import load_settings
from haloforge.model.bases import Base
from haloforge.model.policy import Policy
from haloforge.placement import Cluster, place
from haloforge.session import Session

BASE = Base("base", "base", Path("base"), "base")
POLICY = Policy("tuned", BASE, None, "tuned")


@pytest.mark.parametrize(("gpus", "sleeps"), [(0, 0), (1, 1), (2, 0)])
def test_engines_rest_only_where_they_share_gpus(gpus: int, sleeps: int) -> None:
    session, slept = Session(load_settings()), list[int]()
    session._placement = place(Cluster(8, gpus, 8), 1)
    session.rest_engines()  # none was started
    session._pool = SimpleNamespace(sleep=lambda: slept.append(1))  # type: ignore[assignment]
    session.rest_engines()
    assert len(slept) == sleeps


def test_an_engine_that_is_lost_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    session = Session(load_settings())

    class Pool:
        engines: list[Any] = ["first", "second"]

        def set_policy(self, policy: Policy) -> float:
            self.engines.remove("first")
            return 0.0

    session._pool, session._pool_base = Pool(), BASE  # type: ignore[assignment]
    session.engines(POLICY)
    assert "1 of 2 died and are restarted no more" in capsys.readouterr().err
