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


def lost(*_: Any) -> Any:
    raise ActorDiedError()


def test_a_lost_progress_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ended: list[bool] = []
    method = SimpleNamespace(remote=lambda: None)
    end = SimpleNamespace(remote=lambda: ended.append(True))
    job: Any = SimpleNamespace(
        progress=SimpleNamespace(take=method, error=method, end=end),
        settings=SimpleNamespace(max_restarts=0),
    )
    scaling: Any = SimpleNamespace(use_gpu=False)
    monkeypatch.setattr(trainer, "_Trainer", lambda *_, **__: SimpleNamespace(fit=lambda: None))
    monkeypatch.setattr(ray, "get", lost)
    log: Any = SimpleNamespace(steps=[])
    with pytest.raises(InfraError, match=r"ActorDiedError.; the same command goes on from the"):
        trainer._fit(job, scaling, str(tmp_path), log, None)
    assert ended, "workers are told to stop"


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
