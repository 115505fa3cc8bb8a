"""What Ray loses of a training is an error of ours, in one line."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import ray.data
from ray.exceptions import ActorDiedError, NodeDiedError, ObjectLostError

from haloforge.errors import InfraError
from haloforge.train import examples, trainer
from haloforge.train.sittings import Sittings


def lost(*_: Any) -> Any:
    raise ActorDiedError()


def fit(folder: Path, progress: Any, monkeypatch: pytest.MonkeyPatch) -> Sittings:
    """Of a trainer that ends at once, with this in the place of the actor."""
    job: Any = SimpleNamespace(progress=progress, settings=SimpleNamespace(max_restarts=0))
    scaling: Any = SimpleNamespace(use_gpu=False)
    monkeypatch.setattr(trainer, "_Trainer", lambda *_, **__: SimpleNamespace(fit=lambda: None))
    log: Any = SimpleNamespace(steps=[], begin=lambda history: None)
    sittings = Sittings(folder / "sittings.json", "run", 0.0)
    trainer._fit(job, scaling, str(folder), log, sittings, None)
    return sittings


def test_a_lost_progress_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ended: list[bool] = []
    method = SimpleNamespace(remote=lambda: None)
    end = SimpleNamespace(remote=lambda: ended.append(True))
    monkeypatch.setattr(ray, "get", lost)
    with pytest.raises(InfraError, match=r"ActorDiedError.; the same command goes on from the"):
        fit(tmp_path, SimpleNamespace(take=method, error=method, end=end), monkeypatch)
    assert ended, "workers are told to stop"


def test_restarts_of_all_sittings_add_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The first beginning of each sitting is none."""
    monkeypatch.setattr(ray, "get", lambda reply: reply)
    for restarts in (2, 4):
        events: list[list[Any]] = [[], [], []]
        taken = [events]
        take = SimpleNamespace(remote=lambda taken=taken: taken.pop() if taken else [])
        error = SimpleNamespace(remote=lambda: None)
        assert fit(tmp_path, SimpleNamespace(take=take, error=error), monkeypatch).restarts == (
            restarts
        )


@pytest.mark.parametrize("error", [ObjectLostError("id", None, ""), NodeDiedError("gone")])
def test_rows_that_ray_lost(
    error: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail() -> Any:
        raise error

    dataset = SimpleNamespace(context=SimpleNamespace(), materialize=fail)
    dataset.map_batches = lambda *_, **__: dataset
    monkeypatch.setattr(ray, "put", lambda value: value)
    monkeypatch.setattr(ray.data, "from_arrow_refs", lambda _: dataset)
    with pytest.raises(InfraError, match="the rows to train on could not be encoded: ") as caught:
        examples.encode_rows([{"messages": []}], tmp_path, 64)
    assert "\n" not in str(caught.value)
