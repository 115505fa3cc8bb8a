"""Run folders in object storage: what counts there after any stop."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest

from haloforge.errors import InfraError
from haloforge.model.adapter import INFO_FILE
from haloforge.store import remote
from haloforge.store.remote import (
    PARTIAL,
    Remote,
    address_of,
    checkpoints_of,
    fetch,
    run_folder,
    saved,
)
from haloforge.store.run import move_durably, open_run, set_aside, write_atomic
from haloforge.store.shards import (
    ShardWriter,
    committed_ids,
    compact,
    read_judged,
    set_torn_aside,
)
from tests.object_storage import BUCKET
from tests.results import POLICY, judged
from tests.stored_run import RUN, adapter, commit, elsewhere, stored
from tests.unit.test_held_out import watched


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


def test_the_run_itself_has_the_address_that_was_given(store: pafs.FileSystem, server: str) -> None:
    options = f"?endpoint_override={server}&region=us-east-1"
    for given in (RUN, f"{RUN}-2{options}"):
        folder = run_folder(given)
        assert address_of(folder) == remote.shown(folder) == given
        place, mark, after = given.partition("?")
        assert address_of(folder / "a") == f"{place}/a{mark}{after}"
        assert checkpoints_of(folder) == f"{place}.checkpoints{mark}{after}"


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
