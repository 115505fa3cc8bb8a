"""One driver at a time at a run in object storage, whatever stops it in between."""

import json
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest

from haloforge.errors import InfraError, InputError
from haloforge.store import lease, remote
from haloforge.store.remote import run_folder, saved
from haloforge.store.run import move_durably, set_aside, write_atomic
from haloforge.store.shards import committed_ids
from tests.object_storage import BUCKET, environment
from tests.results import judged
from tests.stored_run import RUN, adapter, commit, elsewhere, stored


def hold(address: str, cache: str, seconds: float) -> None:
    os.environ.update({**environment(address), "HALOFORGE_CACHE": cache})
    run_folder(RUN)
    time.sleep(seconds)
    os._exit(0)  # as a kill ends it: with its lease there


def held(server: str, tmp_path: Path, seconds: float) -> Any:
    spawn = multiprocessing.get_context("spawn")
    child = spawn.Process(target=hold, args=(server, str(tmp_path / "theirs"), seconds))
    child.start()
    return child


def test_two_drivers_are_not_let_in_at_once(
    server: str, store: pafs.FileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = held(server, tmp_path, 60)
    place = f"{BUCKET}/run/.lease"
    try:
        while store.get_file_info(place).type == pafs.FileType.NotFound:
            assert child.is_alive()
            time.sleep(0.1)
        monkeypatch.setattr(lease, "_RENEW_S", 8.0)
        with pytest.raises(InputError, match=rf"another driver is at work here \(pid {child.pid} "):
            run_folder(RUN)
    finally:
        child.kill()
        child.join()
    began = time.monotonic()
    assert run_folder(RUN).is_dir(), "of a process that was killed here the lease is taken over"
    assert time.monotonic() - began < 8


def write_lease(store: pafs.FileSystem, beat: int, name: str = "x") -> None:
    told = {"id": name, "host": "elsewhere", "machine": "elsewhere", "pid": 1, "beat": beat}
    with store.open_output_stream(f"{BUCKET}/run/.lease") as stream:
        stream.write(json.dumps(told).encode())


def test_a_lease_of_another_machine_is_taken_when_it_is_not_renewed(
    store: pafs.FileSystem, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lease(store, 1)
    monkeypatch.setattr(lease, "_RENEW_S", 0.4)
    assert run_folder(RUN).is_dir()
    said = " ".join(capsys.readouterr().err.split())
    assert "waiting to see if it still does, 1 seconds at most" in said


def test_it_is_taken_after_three_renewals_that_did_not_come_not_two(
    store: pafs.FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lease(store, 1)
    monkeypatch.setattr(lease, "_RENEW_S", 1.0)
    late = threading.Timer(2.4, write_lease, (store, 2))
    late.start()
    with pytest.raises(InputError, match=r"another driver is at work here \(pid 1 on elsewhere"):
        run_folder(RUN)
    late.join()


def test_a_machine_of_the_same_name_is_another(
    store: pafs.FileSystem, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {"id": "x", "host": socket.gethostname(), "machine": "x", "pid": 2**30, "beat": 1}
    with store.open_output_stream(f"{BUCKET}/run/.lease") as stream:
        stream.write(json.dumps(told).encode())
    monkeypatch.setattr(lease, "_RENEW_S", 0.4)
    assert run_folder(RUN).is_dir()
    assert "waiting" in capsys.readouterr().err


def writes_a_manifest(folder: Path) -> None:
    write_atomic(folder / "cycle_1/commits/000012.json", "mine")


def moves_an_adapter(folder: Path) -> None:
    move_durably(adapter(folder), folder / "cycle_1_final")


def removes_a_file(folder: Path) -> None:
    (folder / "a.json").unlink()
    remote.removed(folder / "a.json")


def removes_a_folder(folder: Path) -> None:
    remote.removed(folder / "cycle_0")


def writes_data(folder: Path) -> None:
    (folder / "data.parquet").write_text("mine")
    saved(folder / "data.parquet")


@pytest.mark.parametrize("left", ["another's", "none"])
@pytest.mark.parametrize(
    "does",
    [writes_a_manifest, moves_an_adapter, removes_a_file, removes_a_folder, writes_data, set_aside],
)
def test_who_was_taken_over_while_it_was_stopped_changes_nothing(
    folder: Path, store: pafs.FileSystem, does: Callable[[Path], Any], left: str
) -> None:
    """With no renewal in between that could have told it."""
    write_atomic(folder / "a.json", "1")
    write_atomic(folder / "cycle_0/b.json", "1")
    [mine] = remote._remotes.values()
    if left == "none":
        store.delete_file(f"{BUCKET}/run/.lease")
    else:
        write_lease(store, 1, "other")
    before = stored(store)
    if does is writes_data:  # what counts by itself asks the storage each time
        mine.lease._renewed -= 46  # as if it had been stopped for so long
    with pytest.raises(InfraError, match="another driver has taken this run over"):
        does(folder)
    assert stored(store) == before


def test_only_the_own_lease_is_given_back(folder: Path, store: pafs.FileSystem) -> None:
    [mine] = remote._remotes.values()
    write_lease(store, 1, "other")
    mine.lease.leave()
    assert b"other" in store.open_input_stream(f"{BUCKET}/run/.lease").read()


def test_who_was_taken_over_is_told_by_its_renewal(
    store: pafs.FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_RENEW_S", 0.5)
    folder = run_folder(RUN)
    write_atomic(folder / "a.json", "1")
    [mine] = remote._remotes.values()
    for _ in range(50):  # it may be renewing its own at that moment; whoever takes it looks again
        write_lease(store, 1, "other")
        time.sleep(0.6)
        if mine.lease._lost:
            break
    assert mine.lease._lost
    with pytest.raises(InfraError, match="another driver has taken this run over"):
        writes_data(folder)
    assert {*stored(store)} == {"a.json"}


def commits(address: str, cache: str, told: Any) -> None:
    """A driver that commits a sample, and, when it is told, another; no renewal in the moment
    between tells it whose the run is."""
    os.environ.update({**environment(address), "HALOFORGE_CACHE": cache})
    lease._RENEW_S = 1.0
    lease.Lease._keep = lambda self: None  # type: ignore[method-assign]
    folder = run_folder(RUN)
    commit(folder, 0)
    told.send("committed")
    told.recv()
    try:
        commit(folder, 1)
    except InfraError as error:
        told.send(str(error))


def test_a_driver_that_is_stopped_and_wakes_commits_nothing_over_the_next_one(
    server: str, store: pafs.FileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_RENEW_S", 1.0)
    spawn = multiprocessing.get_context("spawn")
    mine, theirs = spawn.Pipe()
    child = spawn.Process(target=commits, args=(server, str(tmp_path / "theirs"), theirs))
    child.start()
    try:
        assert mine.poll(60) and mine.recv() == "committed"
        os.kill(child.pid or 0, signal.SIGSTOP)
        mine.send("commit")
        folder = run_folder(RUN)
        commit(folder, 2)
        after = stored(store)
        os.kill(child.pid or 0, signal.SIGCONT)
        assert mine.poll(60)
        assert "another driver has taken this run over" in mine.recv()
    finally:
        child.kill()
        child.join()
    assert {name: stored(store)[name] for name in after} == after
    ids = committed_ids(elsewhere(monkeypatch, tmp_path) / "cycle_1")
    assert ids == {judged(number, 0, "passed").sample["sample_id"] for number in (0, 2)}


def test_shards_of_two_drivers_have_other_names(
    folder: Path, store: pafs.FileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(folder, 0)
    [first] = [name for name in stored(store) if "samples/" in name]
    store.delete_file(f"{BUCKET}/run/cycle_1/commits/000001.json")  # as if stopped before
    other = elsewhere(monkeypatch, tmp_path)
    commit(other, 1)
    names = [name for name in stored(store) if "samples/" in name]
    assert len(names) == 2 and first in names
    third = elsewhere(monkeypatch, tmp_path)
    assert len(committed_ids(third / "cycle_1")) == 1
    commit(tmp_path / "local", 1)
    local = tmp_path / "local/cycle_1/samples/000001.parquet"
    assert local.is_file(), "a local run has its names as before"
