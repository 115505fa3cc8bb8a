"""Commits hold, torn files do not count, and a changed run is refused by name."""

import json
import time
from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from haloforge.errors import InfraError
from haloforge.store.run import write_atomic
from haloforge.store.shards import (
    Judged,
    ShardWriter,
    committed_ids,
    compact,
    in_order,
    lost_ids,
    read_judged,
    set_torn_aside,
    working_seconds,
)


def sample(name: str) -> dict[str, object]:
    return {
        "sample_id": name,
        "problem_id": "p",
        "cycle": 1,
        "index": 0,
        "completion": "x",
        "finish_reason": "stop",
        "num_tokens": 1,
        "logprob_sum": None,
        "policy": "d",
        "sampling": "{}",
    }


def verdict(name: str) -> dict[str, object]:
    return {
        "sample_id": name,
        "problem_id": "p",
        "outcome": "passed",
        "compiled": True,
        "ran": True,
        "warnings": False,
        "reward": 1.0,
        "tests_passed": 1,
        "tests_total": 1,
        "diagnostics": "",
        "compile_ms": 1.0,
        "run_ms": 1.0,
        "toolchain": "gcc",
        "sandbox_tier": "bubblewrap",
        "raw_outcome": None,
    }


def first_page(path: Path) -> int:
    """Where the last byte of the first column's data is."""
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    return int(column.data_page_offset + column.total_compressed_size - 1)


def write(folder: Path, *names: str) -> None:
    with ShardWriter(folder) as shards:
        for name in names:
            shards.add(sample(name), verdict(name))


def test_a_second_writer_goes_on(tmp_path: Path) -> None:
    write(tmp_path, "a", "b")
    before = (tmp_path / "samples" / "000001.parquet").read_bytes()
    write(tmp_path, "c")
    assert [row.sample["sample_id"] for row in read_judged(tmp_path)] == ["a", "b", "c"]
    assert committed_ids(tmp_path) == {"a", "b", "c"}
    assert (tmp_path / "samples" / "000001.parquet").read_bytes() == before


def test_shards_without_a_manifest_do_not_count(tmp_path: Path) -> None:
    write(tmp_path, "a")
    (tmp_path / "samples" / "000002.parquet").write_bytes(b"torn")
    (tmp_path / "commits" / "000002.json.99.tmp").write_text("{")
    assert committed_ids(tmp_path) == {"a"}
    write(tmp_path, "b")  # takes the torn shard's place
    assert committed_ids(tmp_path) == {"a", "b"}


def test_a_new_verdict_takes_the_place_of_a_lost_one(tmp_path: Path) -> None:
    """In whatever shard it is, and no other verdict is ever replaced."""
    lost = {"outcome": "infra_error", "reward": 0.0}
    with ShardWriter(tmp_path) as shards:
        shards.add(sample("a"), verdict("a"))
        shards.add(sample("b"), verdict("b") | lost)
    with ShardWriter(tmp_path) as shards:
        shards.add(sample("c"), verdict("c") | lost)
        shards.add(sample("d"), verdict("d") | lost)
    assert lost_ids(tmp_path) == {"b", "c", "d"}
    with ShardWriter(tmp_path) as shards:
        shards.add({"sample_id": "d"}, verdict("d"))
        shards.add({"sample_id": "b"}, verdict("b") | {"outcome": "timeout"})
        shards.add(sample("e"), verdict("e"))
    assert lost_ids(tmp_path) == {"c"}
    judged = list(read_judged(tmp_path))
    assert [row.sample for row in judged] == [sample(name) for name in "abcde"]
    assert [(row.verdict["sample_id"], row.verdict["outcome"]) for row in judged] == [
        ("a", "passed"),
        ("b", "timeout"),
        ("c", "infra_error"),
        ("d", "passed"),
        ("e", "passed"),
    ]


def test_only_shards_with_a_new_verdict_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abcd":
        with ShardWriter(tmp_path) as shards:
            outcome = {"outcome": "infra_error"} if name in "bd" else {}
            shards.add(sample(name), verdict(name) | outcome)
    read: list[str] = []
    read_table = pq.read_table

    def noted(path: Path, **options: Any) -> Any:
        read.append(path.name)
        return read_table(path, **options)

    with ShardWriter(tmp_path) as shards:
        monkeypatch.setattr(pq, "read_table", noted)
        for name, shard in (("b", "000002.parquet"), ("d", "000004.parquet")):
            shards.add({"sample_id": name}, verdict(name))
            shards.commit()
            assert read == [shard]
            read.clear()
    assert lost_ids(tmp_path) == set()


def test_verdicts_of_before_raw_outcomes_are_read(tmp_path: Path) -> None:
    write(tmp_path, "a")
    shard = tmp_path / "verdicts" / "000001.parquet"
    pq.write_table(pq.read_table(shard).drop_columns(["raw_outcome"]), shard)
    assert [row.verdict for row in read_judged(tmp_path)] == [verdict("a")]
    assert lost_ids(tmp_path) == set()


def test_a_raw_outcome_that_was_lost_is_judged_again(tmp_path: Path) -> None:
    with ShardWriter(tmp_path) as shards:
        shards.add(sample("a"), verdict("a") | {"raw_outcome": "infra_error"})
    assert lost_ids(tmp_path) == {"a"}


def test_the_time_that_was_worked_is_kept_over_sittings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 104.5, 104.5, 200.0, 202.0, 202.0])
    monkeypatch.setattr("haloforge.store.shards.time.monotonic", lambda: next(clock))
    write(tmp_path, "a")
    assert working_seconds(tmp_path) == 4.5
    write(tmp_path, "b")
    assert working_seconds(tmp_path) == 6.5


@pytest.mark.parametrize("torn", ["", "[1]", '{"shard": "00'])
def test_a_torn_manifest_costs_the_time_of_its_own_commit_alone(tmp_path: Path, torn: str) -> None:
    for number, seconds in ((1, 2.0), (2, 3.0), (3, 4.0)):
        path = tmp_path / "commits" / f"{number:06d}.json"
        write_atomic(path, json.dumps({"shard": f"{number:06d}.parquet", "seconds": seconds}))
    (tmp_path / "commits" / "000002.json").write_text(torn)
    assert working_seconds(tmp_path) == 6.0


def test_a_sample_after_which_none_comes_is_committed_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("haloforge.store.shards._COMMIT_SECONDS", 0.2)
    monkeypatch.setattr("haloforge.store.shards._LOOK_SECONDS", 0.02)
    with ShardWriter(tmp_path) as shards:
        for names in ("ab", "c"):
            for name in names:
                shards.add(sample(name), verdict(name))
            begun = time.monotonic()
            while names[-1] not in committed_ids(tmp_path):
                assert time.monotonic() - begun < 20
                time.sleep(0.02)
        assert committed_ids(tmp_path) == {"a", "b", "c"}


def test_what_keeps_a_commit_in_time_from_the_disk_is_told_and_costs_no_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("haloforge.store.shards._COMMIT_SECONDS", 0.0)
    monkeypatch.setattr("haloforge.store.shards._LOOK_SECONDS", 0.01)
    full = tmp_path / "samples"
    with pytest.raises(OSError, match="samples"), ShardWriter(tmp_path) as shards:
        full.rename(tmp_path / "away")
        shards.add(sample("a"), verdict("a"))
        shards._clock.join()
        (tmp_path / "away").rename(full)
        shards.add(sample("b"), verdict("b"))
    assert committed_ids(tmp_path) == {"a"}


def test_an_error_in_the_block_keeps_what_was_added(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path) as shards:
        shards.add(sample("a"), verdict("a"))
        raise KeyboardInterrupt
    assert committed_ids(tmp_path) == {"a"}


@pytest.mark.parametrize("kind", ["samples", "verdicts", "commits"])
@pytest.mark.parametrize("how", ["torn", "bit", "gone"])
def test_a_spoilt_commit_is_set_aside_and_the_others_stay(
    tmp_path: Path, kind: str, how: str
) -> None:
    write(tmp_path, "a")
    write(tmp_path, "b")
    write(tmp_path, "c")
    path = tmp_path / kind / ("000002.json" if kind == "commits" else "000002.parquet")
    whole = path.read_bytes()
    if how == "gone":
        path.unlink()
    elif how == "torn":
        path.write_bytes(whole[: len(whole) // 2])
    else:
        place = whole.index(b"}") if kind == "commits" else first_page(path)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    torn = set_torn_aside(tmp_path)
    assert committed_ids(tmp_path) == {"a", "c"}
    if kind == "commits" and how == "gone":
        assert torn == []  # it was never committed, for all that can be known
    else:
        assert [each.name for each in torn] == ["000002.json"]
    write(tmp_path, "b")
    assert [row.sample["sample_id"] for row in read_judged(tmp_path)] == ["a", "c", "b"]
    assert set_torn_aside(tmp_path) == []


def test_an_error_of_the_moment_spoils_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a")

    def read_table(*_: Any, **__: Any) -> Any:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(pq, "read_table", read_table)
        with pytest.raises(InfraError, match="Too many open files"):
            set_torn_aside(tmp_path)
    assert set_torn_aside(tmp_path) == []
    assert committed_ids(tmp_path) == {"a"}


def test_small_commits_are_put_together(tmp_path: Path) -> None:
    for name in "abcde":
        write(tmp_path, name)
    before = list(read_judged(tmp_path))
    seconds = working_seconds(tmp_path)
    compact(tmp_path)
    assert len(list((tmp_path / "commits").iterdir())) == 5, "they are few"
    compact(tmp_path, least=2)
    assert list(read_judged(tmp_path)) == before
    assert working_seconds(tmp_path) == pytest.approx(seconds)
    for kind in ("samples", "verdicts", "commits"):
        assert len(list((tmp_path / kind).iterdir())) == 1
    write(tmp_path, "f")
    assert committed_ids(tmp_path) == set("abcdef")
    compact(tmp_path, least=2)
    compact(tmp_path, least=2)
    assert [row.sample["sample_id"] for row in read_judged(tmp_path)] == list("abcdef")


def test_what_no_commit_names_is_deleted(tmp_path: Path) -> None:
    """What was set aside for its user to look at is not."""
    for name in "ab":
        write(tmp_path, name)
    (tmp_path / "verdicts" / "000001.parquet").write_bytes(b"torn")
    set_torn_aside(tmp_path)
    stay = ["000001.parquet.torn", "000002.parquet"]
    for name in ("000007.parquet", "000002.parquet.99.tmp", "000008.parquet.99.tmp"):
        (tmp_path / "samples" / name).write_bytes(b"left")
    (tmp_path / "verdicts" / "000007.parquet").write_bytes(b"left")
    compact(tmp_path)
    for kind in ("samples", "verdicts"):
        assert sorted(path.name for path in (tmp_path / kind).iterdir()) == stay
    assert committed_ids(tmp_path) == {"b"}


def test_a_stop_while_commits_are_put_together_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before each file that is written, renamed or removed, one after the other."""
    original = {name: getattr(Path, name) for name in ("unlink", "replace")}
    for steps in range(40):
        folder = tmp_path / str(steps)
        for name in "abc":
            write(folder, name)
        left = steps

        def stop(*arguments: Any, of: str, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return original[of](*arguments, **options)

        with monkeypatch.context() as patch:
            for name in original:
                patch.setattr(Path, name, partialmethod(stop, of=name))
            try:
                compact(folder, least=2)
            except KeyboardInterrupt:
                stopped = True
            else:
                stopped = False
        assert set_torn_aside(folder) == []
        assert [row.sample["sample_id"] for row in read_judged(folder)] == list("abc")
        if not stopped:
            assert steps > 8
            return
        write(folder, "d")
        compact(folder, least=2)
        assert sorted(row.sample["sample_id"] for row in read_judged(folder)) == list("abcd")
        for kind, pattern in (("commits", "*.json"), ("samples", "*"), ("verdicts", "*")):
            assert len(list((folder / kind).glob(pattern))) == 1
    raise AssertionError("it never ended")


def test_a_committed_shard_that_changed_is_an_error_of_ours(tmp_path: Path) -> None:
    write(tmp_path, "a")
    (tmp_path / "verdicts" / "000001.parquet").write_bytes(b"torn")
    with pytest.raises(InfraError, match=r"verdicts/000001\.parquet"):
        list(read_judged(tmp_path))


def test_rows_are_put_in_order_while_few_are_held() -> None:
    taken: list[int] = []

    def judged() -> Iterator[Judged]:
        for index in (1, 0, 2, 4, 5, 3, 6, 7):
            taken.append(index)
            yield Judged({"index": index}, {})

    given = []
    for row in in_order(judged()):
        given.append(row.sample["index"])
        assert len(taken) - len(given) <= 3  # it does not read on while it can give
    assert given == list(range(8))
    with pytest.raises(InfraError, match="sample at 1 was not judged"):
        list(in_order(Judged({"index": index}, {}) for index in (0, 2)))
