"""Commits hold, torn files do not count, and a changed run is refused by name."""

from pathlib import Path

import pytest

from haloforge.errors import InfraError, InputError
from haloforge.store.run import open_run, set_aside
from haloforge.store.shards import ShardWriter, committed_ids, read_judged


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
    }


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


def test_an_error_in_the_block_keeps_what_was_added(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path) as shards:
        shards.add(sample("a"), verdict("a"))
        raise KeyboardInterrupt
    assert committed_ids(tmp_path) == {"a"}


def test_a_committed_shard_that_changed_is_an_error_of_ours(tmp_path: Path) -> None:
    write(tmp_path, "a")
    (tmp_path / "verdicts" / "000001.parquet").write_bytes(b"torn")
    with pytest.raises(InfraError, match=r"verdicts/000001\.parquet"):
        list(read_judged(tmp_path))


def test_a_run_of_other_settings_is_refused_by_name(tmp_path: Path) -> None:
    run = tmp_path / "run"
    identity = {"seed": 0, "sampling": {"temperature": 0.7}}
    first = open_run(run, identity)
    assert open_run(run, identity) == first
    with pytest.raises(InputError, match=r"sampling.temperature: was 0.7, is now 0.9"):
        open_run(run, {"seed": 0, "sampling": {"temperature": 0.9}})


def test_fresh_sets_the_old_run_aside(tmp_path: Path) -> None:
    run = tmp_path / "run"
    open_run(run, {"seed": 0})
    (run / "precious").write_text("kept")
    open_run(run, {"seed": 1}, fresh=True)
    assert (tmp_path / "run.old-1" / "precious").read_text() == "kept"
    assert set_aside(run).name == "run.old-2"
