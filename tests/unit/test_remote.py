"""Run folders in object storage: what counts there after any stop, and who may write."""

import json
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest

from haloforge.errors import InfraError, InputError
from haloforge.model.adapter import INFO_FILE
from haloforge.store import lease, remote
from haloforge.store.remote import PARTIAL, Remote, address_of, fetch, run_folder, saved
from haloforge.store.run import move_durably, open_run, set_aside, write_atomic
from haloforge.store.shards import (
    ShardWriter,
    committed_ids,
    compact,
    read_judged,
    set_torn_aside,
)
from tests.object_storage import BUCKET, environment, s3_server
from tests.results import POLICY, judged
from tests.unit.test_held_out import watched

RUN = f"s3://{BUCKET}/run"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3") / "log") as address:
        yield address


@pytest.fixture
def store(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pafs.FileSystem]:
    """The bucket, empty, and a machine that has no copy of anything."""
    for name, value in environment(server).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HALOFORGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(lease, "_SETTLE_S", 0.0)
    mine: dict[Path, Remote] = {}
    monkeypatch.setattr(remote, "_remotes", mine)
    system, _ = pafs.FileSystem.from_uri(f"s3://{BUCKET}")
    system.delete_dir_contents(BUCKET, missing_dir_ok=True)
    yield system
    for each in mine.values():
        each.lease.leave()


@pytest.fixture
def folder(store: pafs.FileSystem) -> Path:
    return run_folder(RUN)


def stored(store: pafs.FileSystem, root: str = f"{BUCKET}/run") -> dict[str, bytes]:
    """What is in the bucket, but for leases."""
    found = store.get_file_info(pafs.FileSelector(root, recursive=True, allow_not_found=True))
    return {
        each.path.removeprefix(f"{root}/"): store.open_input_stream(each.path).read()
        for each in found
        if each.type == pafs.FileType.File and not each.path.endswith(".lease")
    }


def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The run's folder on another machine, after this one's driver has ended."""
    for each in remote._remotes.values():
        each.lease.leave()
    monkeypatch.setattr(remote, "_remotes", {})
    monkeypatch.setenv("HALOFORGE_CACHE", str(tmp_path / f"cache-{time.time_ns()}"))
    return run_folder(RUN)


def test_a_path_is_itself(tmp_path: Path) -> None:
    assert run_folder(tmp_path) == tmp_path and run_folder("runs/x") == Path("runs/x")
    assert address_of(tmp_path) is None
    saved(tmp_path / "x")  # nothing to do


def test_what_is_written_is_stored_and_found_elsewhere(
    folder: Path, store: pafs.FileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomic(folder / "a/run.json", "1")
    write_atomic(folder / "a/run.json", "2")
    assert stored(store) == {"a/run.json": b"2"}
    assert address_of(folder / "a/run.json") == f"{RUN}/a/run.json"
    other = elsewhere(monkeypatch, tmp_path)
    assert other != folder and (other / "a/run.json").read_text() == "2"


def test_what_did_not_get_there_does_not_count(
    folder: Path, store: pafs.FileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomic(folder / "kept.json", "1")
    (folder / "late.json").write_text("made here, and the process was killed")
    (folder / "kept.json").write_text("2")
    for each in remote._remotes.values():
        each.lease.leave()
    monkeypatch.setattr(remote, "_remotes", {})
    again = run_folder(RUN)
    assert again == folder and not (folder / "late.json").exists()
    assert {*stored(store)} == {"kept.json"}


def test_samples_are_committed_there_and_compacted(
    folder: Path, store: pafs.FileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [judged(number, 0, "passed") for number in range(20)]
    for row in rows:
        with ShardWriter(folder / "cycle_1") as shards:
            shards.add(row.sample, row.verdict)
    names = {name for name in stored(store) if "commits/" in name}
    assert len(names) == 20
    compact(folder / "cycle_1")
    names = {name for name in stored(store) if "commits/" in name}
    assert len(names) == 1
    other = elsewhere(monkeypatch, tmp_path)
    assert committed_ids(other / "cycle_1") == {row.sample["sample_id"] for row in rows}
    assert [row.sample for row in read_judged(other / "cycle_1")] == [row.sample for row in rows]


def adapter(folder: Path) -> Path:
    made = folder / "made.tmp"
    made.mkdir()
    for name in ("adapter_model.safetensors", "adapter_config.json", INFO_FILE):
        (made / name).write_text(name)
    return made


def test_an_adapter_is_there_whole_or_not_at_all(
    folder: Path, store: pafs.FileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("adapter_config.json", "adapter_model.safetensors", INFO_FILE)
    pushed: list[str] = []
    push = Remote.push

    def breaks(self: Remote, path: Path) -> None:
        if len(pushed) == 2:
            raise InfraError("gone")
        pushed.append(path.name)
        push(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(Remote, "push", breaks)
        with pytest.raises(InfraError, match="gone"):
            move_durably(adapter(folder), folder / "cycle_1_final")
    assert f"cycle_1_final/{PARTIAL}" in stored(store) and len(stored(store)) == 3
    other = elsewhere(monkeypatch, tmp_path)
    assert not (other / "cycle_1_final").exists() and stored(store) == {}
    move_durably(adapter(other), other / "cycle_1_final")
    assert {*stored(store)} == {f"cycle_1_final/{name}" for name in names}
    third = elsewhere(monkeypatch, tmp_path)
    assert (third / "cycle_1_final" / INFO_FILE).read_text() == INFO_FILE


def test_a_run_is_set_aside_and_another_begins(
    folder: Path, store: pafs.FileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        open_run(folder, {"seed": number}, fresh=True)
        write_atomic(folder / "cycle_1/x.json", str(number))
    assert stored(store, f"{BUCKET}/run.old-1")["cycle_1/x.json"] == b"1"
    assert stored(store)["cycle_1/x.json"] == b"2"
    assert set_aside(folder) == f"{RUN}.old-2"
    assert not stored(store)
    inner = run_folder(RUN) / "cycle_2_final"
    move_durably(adapter(folder), inner)
    aside = set_aside(inner)
    assert Path(aside).name == "cycle_2_final.old-1"
    assert {name.split("/")[0] for name in stored(store)} == {"cycle_2_final.old-1"}


def test_a_move_aside_that_stopped_leaves_nothing_that_counts(
    folder: Path, store: pafs.FileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        write_atomic(folder / f"{name}.json", name)
    deleted: list[str] = []

    class Stopped(BaseException):
        pass

    def stops(self: Any, names: Any) -> None:
        deleted.extend(names)
        raise Stopped

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Remote, "_delete", stops)
        set_aside(folder)
    assert len(deleted) == 4
    assert {*stored(store)} == {"a.json", "b.json", "c.json", PARTIAL}
    other = elsewhere(monkeypatch, tmp_path)
    assert not [path for path in other.rglob("*") if path.suffix == ".json" and path.name in "abc"]
    assert stored(store) == {} and len(stored(store, f"{BUCKET}/run.old-1")) == 3


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


def commit(folder: Path, number: int) -> None:
    row = judged(number, 0, "passed")
    with ShardWriter(folder / "cycle_1") as shards:
        shards.add(row.sample, row.verdict)


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
    """A driver that commits a sample, and, when it is told, another."""
    os.environ.update({**environment(address), "HALOFORGE_CACHE": cache})
    lease._RENEW_S = 1.0
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
        mine.send("commit")  # it reads that when it wakes
        os.kill(child.pid or 0, signal.SIGSTOP)
        if mine.poll(0.5):
            pytest.fail("it was not stopped in time")
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


def test_a_spoilt_commit_is_set_aside_there(
    folder: Path, store: pafs.FileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(folder, 0)
    commit(folder, 1)
    [shard] = (folder / "cycle_1/samples").glob("000001*.parquet")
    with store.open_output_stream(f"{BUCKET}/run/cycle_1/samples/{shard.name}") as stream:
        stream.write(b"PAR1 spoilt")
    other = elsewhere(monkeypatch, tmp_path)
    assert len(set_torn_aside(other / "cycle_1")) == 1
    kept = {judged(1, 0, "passed").sample["sample_id"]}
    assert committed_ids(other / "cycle_1") == kept
    third = elsewhere(monkeypatch, tmp_path)
    assert committed_ids(third / "cycle_1") == kept
    torn = {name for name in stored(store) if name.endswith(".torn")}
    assert {name.split("/")[1] for name in torn} == {"samples", "verdicts", "commits"}
    commit(third, 0)
    assert len(committed_ids(third / "cycle_1")) == 2


def test_a_file_that_only_ends_like_the_mark_breaks_nothing(
    folder: Path, store: pafs.FileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/notes.partial", "a/kept.json"):
        write_atomic(folder / name, "1")
    other = elsewhere(monkeypatch, tmp_path)
    assert (other / "a/kept.json").is_file() and (other / "a/notes.partial").is_file()
    remote.removed(other / "a")
    assert stored(store) == {}


def test_the_best_cycle_is_named_there(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, _ = watched(folder, [4, 6], monkeypatch)
    for cycle in range(2):
        watch.score(POLICY, cycle)
        watch.link_best()
    assert (folder / "best").is_symlink()
    other = elsewhere(monkeypatch, tmp_path)
    told = json.loads((other / "best.json").read_text())
    assert told == {"cycle": 1, "model": "cycle_1_final", "pass@1": 0.6}


@pytest.mark.parametrize("stop", range(8), ids=lambda stop: f"before the write {stop + 1}")
def test_a_kill_at_any_write_loses_no_commit_and_doubles_none(
    folder: Path,
    store: pafs.FileSystem,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop: int,
) -> None:
    """Two commits of samples, verdicts and manifest each, then both put together."""

    class Killed(BaseException):
        pass

    writes = 0

    def counted(done: Callable[..., None]) -> Callable[..., None]:
        def does(self: Remote, *given: Any) -> None:
            nonlocal writes
            if writes == stop:
                raise Killed
            writes += 1
            done(self, *given)

        return does

    def work(run: Path) -> None:
        known = committed_ids(run / "cycle_1")
        for number in range(2):
            if judged(number, 0, "passed").sample["sample_id"] not in known:
                commit(run, number)
        compact(run / "cycle_1", least=2)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Remote, "push", counted(Remote.push))
        patch.setattr(Remote, "remove", counted(Remote.remove))
        work(folder)
    counting = {name for name in stored(store) if "/commits/" in name}
    other = elsewhere(monkeypatch, tmp_path)
    whole = [row.sample["sample_id"] for row in read_judged(other / "cycle_1")]
    assert len(whole) == min(2, stop // 3) and len(set(whole)) == len(whole)
    assert len(counting) >= len(whole) > 0 or stop < 3
    work(other)
    third = elsewhere(monkeypatch, tmp_path)
    rows = [row.sample["sample_id"] for row in read_judged(third / "cycle_1")]
    assert sorted(rows) == sorted(judged(n, 0, "passed").sample["sample_id"] for n in range(2))
    assert len([name for name in stored(store) if "/commits/" in name]) == 1


def test_a_store_that_is_gone_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    [there] = remote._remotes.values()
    there._root = "no-such-bucket/run"
    with pytest.raises(InfraError, match=rf"^{RUN}: cannot be written \(") as told:
        write_atomic(folder / "a.json", "1")
    assert "\n" not in str(told.value)


def test_a_folder_is_fetched_once(folder: Path, tmp_path: Path) -> None:
    move_durably(adapter(folder), folder / "cycle_1_final")
    address = address_of(folder / "cycle_1_final")
    assert address == f"{RUN}/cycle_1_final"
    for _ in range(2):
        got = fetch(address, tmp_path / "node" / "abc")
        assert (got / INFO_FILE).read_text() == INFO_FILE
    assert {path.name for path in (tmp_path / "node").iterdir()} == {"abc", "abc.lock"}
