"""How a run stands, as `logs/state.json` and its page tell: also of one that is refused."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from haloforge.errors import InfraError, InputError
from haloforge.observe.log import attached
from haloforge.observe.observer import Observer
from haloforge.observe.settings import ObserveSettings
from haloforge.report.page.gather import gather
from haloforge.report.progress import Report
from haloforge.store.lock import hold, release
from tests.report_runs import write_raft


class Page:
    """Stands for the report that is written while a run goes on."""

    def __init__(self, run: Path, tell: Any) -> None: ...

    def write(self) -> None: ...

    def close(self, write: bool) -> None: ...


@pytest.fixture
def watching(monkeypatch: pytest.MonkeyPatch) -> Observer:
    monkeypatch.setattr("haloforge.observe.observer.LiveReport", Page)
    return Observer(ObserveSettings(every_s=3600, report_s=0), Report())


def state(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "logs" / "state.json").read_text()))


@pytest.mark.parametrize(
    ("error", "stands"),
    [
        (None, {"state": "finished", "message": ""}),
        (KeyboardInterrupt(), {"state": "stopped", "message": ""}),
        (
            InfraError("no engine is left"),
            {"state": "failed", "message": "InfraError: no engine is left"},
        ),
    ],
)
def test_it_is_kept(
    tmp_path: Path, watching: Observer, error: BaseException | None, stands: dict[str, str]
) -> None:
    watching.enter(tmp_path, "raft", {})
    with watching.phase("train", 2):
        at = {name: state(tmp_path)[name] for name in ("state", "stage", "phase", "cycle")}
        assert at == {"state": "running", "stage": "raft", "phase": "train", "cycle": 2}
    watching.close(error)
    assert stands.items() <= state(tmp_path).items()


def test_what_fails_before_a_run_begins_is_not_booked_on_the_one_before(
    tmp_path: Path, watching: Observer
) -> None:
    first = tmp_path / "first"
    with watching.run(first, "benchmark", {}), watching.phase("measure"):
        pass
    watching.close(InputError("second: another run is there"))
    assert state(first)["state"] == "finished"
    log = attached()
    assert log is not None and log.path is None and log.last() == []


def test_of_a_run_that_is_refused_nothing_is_told(tmp_path: Path, watching: Observer) -> None:
    with watching.run(tmp_path, "raft", {}), watching.phase("train"):
        pass
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError), watching.run(tmp_path, "raft", {"seed": 2}):
        raise InputError("it holds a run of other settings")
    watching.close(InputError("it holds a run of other settings"))
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


def test_its_page_says_how_it_ended_and_that_it_goes_on_again(
    tmp_path: Path, watching: Observer
) -> None:
    write_raft(tmp_path, cycles=1)
    (tmp_path / "config.yaml").write_text("raft: {cycles: 3}")
    hold(tmp_path)
    watching.enter(tmp_path, "raft", {})
    with watching.phase("train", 2):
        assert gather(tmp_path).status.state == "running"
    watching.close(InfraError("no engine is left"))
    status = gather(tmp_path).status  # while this process still has the folder
    assert (status.state, status.message) == ("stopped", "InfraError: no engine is left")
    release(tmp_path)
    time.sleep(0.02)
    hold(tmp_path)
    assert gather(tmp_path).status.state == "running"
    release(tmp_path)
    assert gather(tmp_path).status.state == "stopped"
