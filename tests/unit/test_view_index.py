"""The sample browser's index: what is committed counts, and it keeps up with a run."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from haloforge.errors import InputError
from haloforge.store.shards import ShardWriter, compact, read_judged, set_torn_aside
from haloforge.view.columns import read_shard
from haloforge.view.filters import Filter, Finder, find
from haloforge.view.index import Index, Table
from haloforge.view.rows import GoneError, diagnostics_of, latest, row_of_id, whole_rows
from haloforge.view.side import columns_of
from haloforge.view.sources import Commit, Source
from tests.raft_runs import Row, stored, write_cycle
from tests.results import judged
from tests.viewing import PROBLEMS, SAMPLES, raft_run, rows_of


def names(table: Table, wanted: Filter | None = None) -> list[tuple[str, str, int]]:
    rows = find(table, wanted or Filter()).rows.tolist()
    return [
        (
            table.source(row).key,
            table.name("problem_id", row),
            int(table.columns["index"][row]),
        )
        for row in rows
    ]


def test_it_has_what_the_shards_have_in_the_order_of_commits(tmp_path: Path) -> None:
    run = raft_run(tmp_path / "run")
    table = Index(run).table()
    assert [source.title for source in table.sources] == [
        "start, evaluation",
        "cycle 1",
        "cycle 1, evaluation",
        "cycle 2",
    ]
    for source in table.sources:
        written = [
            (source.key, row.sample["problem_id"], row.sample["index"])
            for row in read_judged(source.folder)
        ]
        kind = Filter(source=source.kind, cycle=source.cycle)
        assert names(table, kind) == written
    rows = find(table, Filter(source="samples", cycle=2)).rows
    told = [(row.reward, row.tokens) for row in rows_of(2)]
    columns = table.columns
    found = zip(columns["reward"][rows].tolist(), columns["num_tokens"][rows].tolist(), strict=True)
    assert [(round(reward, 3), tokens) for reward, tokens in found] == told


def test_shards_without_a_manifest_do_not_count(tmp_path: Path) -> None:
    write_cycle(tmp_path, 1, [Row("p", 0, 1.0), Row("p", 1, 0.0)], commit=1)
    folder = tmp_path / "cycle_1"
    for kind in ("samples", "verdicts"):
        shutil.copy(folder / kind / "000001.parquet", folder / kind / "000009.parquet")
    (folder / "samples" / "000010.parquet").write_bytes(b"torn")
    (folder / "commits" / "000011.json.7.tmp").write_text("{")
    table = Index(tmp_path).table()
    assert names(table) == [("cycle_1", "p", 0), ("cycle_1", "p", 1)]
    assert table.faults == []


def test_a_run_that_goes_on_is_taken_up_by_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def noted(source: Source, commit: Commit) -> Any:
        read.append(f"{source.key}/{commit.shard}")
        return read_shard(source, commit)

    monkeypatch.setattr("haloforge.view.index.read_shard", noted)
    write_cycle(tmp_path, 1, [Row("p", number, 1.0) for number in range(3)], commit=1)
    index = Index(tmp_path)
    first = index.table(now=True)
    assert len(first) == len(read) == 3
    assert index.table(now=True) is first, "nothing is new"
    read.clear()
    with ShardWriter(tmp_path / "cycle_1") as shards:
        shards.add(*stored(Row("q", 0, 0.0), 1))
    write_cycle(tmp_path, 2, [Row("p", 0, 1.0)])
    table = index.table(now=True)
    assert read == ["cycle_1/000004.parquet", "cycle_2/000001.parquet"]
    assert names(table)[-2:] == [("cycle_1", "q", 0), ("cycle_2", "p", 0)]
    assert len(first) == 3, "a page that is being made keeps what it began with"


def test_compacting_keeps_the_rows_and_old_shards_are_let_go(tmp_path: Path) -> None:
    write_cycle(tmp_path, 1, [Row("p", number, 1.0) for number in range(20)], commit=1)
    index = Index(tmp_path)
    before = index.table()
    assert len(before.shards) == 20
    compact(tmp_path / "cycle_1")
    with pytest.raises(GoneError):
        whole_rows(before, [3])
    assert [each.row for each in latest(index, lambda table: whole_rows(table, [3]))] == [3]
    after = index.table()
    assert len(after.shards) == 1
    assert names(after) == names(before)


def test_a_verdict_that_is_replaced_in_place_is_seen(tmp_path: Path) -> None:
    lost = Row("p", 0, 0.0, outcome="infra_error")
    write_cycle(tmp_path, 1, [lost, Row("p", 1, 1.0)])
    index = Index(tmp_path)
    assert find(index.table(), Filter()).outcomes == {"infra_error": 1, "passed": 1}
    with ShardWriter(tmp_path / "cycle_1") as shards:
        shards.add(*stored(Row("p", 0, 0.7), 1))
    assert find(index.table(now=True), Filter()).outcomes == {"wrong_answer": 1, "passed": 1}


def test_what_cannot_be_read_is_told_and_the_rest_is_shown(tmp_path: Path) -> None:
    rows = [Row("p", number, 1.0) for number in range(3)]
    write_cycle(tmp_path, 1, rows, commit=1)
    folder = tmp_path / "cycle_1"
    (folder / "verdicts" / "000002.parquet").write_bytes(b"no Parquet")
    (folder / "commits" / "000003.json").write_text("{")
    (folder / "trained.parquet").write_bytes(b"neither")
    table = Index(tmp_path).table()
    assert names(table) == [("cycle_1", "p", 0)]
    assert [fault.partition(": ")[0].rpartition("/")[2] for fault in table.faults] == [
        "000003.json",
        "000002.parquet",
        "trained.parquet",
    ]
    set_torn_aside(folder)
    (folder / "trained.parquet").unlink()
    assert Index(tmp_path).table().faults == []


def test_kept_is_what_the_cycle_trained_on(tmp_path: Path) -> None:
    run = raft_run(tmp_path / "run")
    index = Index(run)
    table = index.table()
    for cycle in (1, 2):
        written = pq.read_table(run / f"cycle_{cycle}" / "trained.parquet").to_pylist()
        own = {
            (row["problem_id"], row["index"]): row["rank"]
            for row in written
            if row["cycle"] == cycle
        }
        rows = find(table, Filter(cycle=cycle, kept=True)).rows.tolist()
        found = {
            (table.name("problem_id", row), int(table.columns["index"][row])): int(
                table.columns["rank"][row]
            )
            for row in rows
        }
        assert found == own and found
    kept, not_kept = (len(find(table, Filter(kept=kept)).rows) for kept in (True, False))
    assert kept + not_kept == 2 * len(PROBLEMS) * SAMPLES, "evaluations are neither"
    both = find(table, Filter(cycle=1, kept=True)).rows.tolist()
    assert any(set(table.trained_in(row)) == {1, 2} for row in both), "train_on is all"


def test_filters_meet(tmp_path: Path) -> None:
    table = Index(raft_run(tmp_path / "run")).table()
    columns = table.columns
    found = find(table, Filter("samples", 2, ("passed",), "SUM/", 0.5, 1.0, None, "-tokens")).rows
    assert len(found)
    for row in found.tolist():
        assert table.source(row).key == "cycle_2"
        assert table.name("outcome", row) == "passed"
        assert table.name("problem_id", row).startswith("sum/")
    tokens = columns["num_tokens"][found].tolist()
    assert tokens == sorted(tokens, reverse=True)
    assert names(table, Filter(problem="sum/all", cycle=1, source="samples")) == [
        ("cycle_1", "sum/all", number) for number in range(SAMPLES)
    ]
    rewards = columns["reward"][find(table, Filter(max_reward=0.7)).rows]
    assert np.float32(0.7) in rewards, "0.7 is no binary fraction, and is meant all the same"
    assert len(find(table, Filter(max_reward=1e39)).rows) == len(table)
    assert len(find(table, Filter(min_reward=1e39)).rows) == 0
    one = find(table, Filter(outcomes=("passed",)))
    assert one.outcomes == find(table, Filter()).outcomes, "what the other outcomes would be"
    finder = Finder(keep=1)
    assert finder.find(table, Filter()) is finder.find(table, Filter())


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (Filter(outcomes=("nope",)), "unknown outcome 'nope'; known: no_code, compile_error"),
        (Filter(sort="age"), "unknown sort 'age'; known: commits, reward"),
        (Filter(cycle=7), "no cycle 7 in this run; there: 0, 1, 2"),
        (Filter(min_reward=float("nan")), "a reward is a finite number, not nan"),
        (Filter(max_reward=float("inf")), "a reward is a finite number, not inf"),
        (Filter(source="x"), "no source 'x' in this run; there: evaluation, samples"),
    ],
)
def test_what_is_not_known_is_refused(wanted: Filter, told: str, tmp_path: Path) -> None:
    table = Index(raft_run(tmp_path / "run")).table()
    with pytest.raises(InputError, match=told):
        find(table, wanted)


def test_folders_of_a_pipeline_and_of_a_benchmark(tmp_path: Path) -> None:
    def commit(folder: Path) -> None:
        row = judged(0, 0, "passed")
        with ShardWriter(folder) as shards:
            shards.add(row.sample, row.verdict)

    for name in ("benchmark/base", "benchmark/raft", "raft/cycle_1", "raft/cycle_10/eval"):
        commit(tmp_path / "run" / name)
    commit(tmp_path / "run" / "raft.old-1" / "cycle_1")  # set aside: another run
    table = Index(tmp_path / "run").table()
    assert [(source.kind, source.cycle) for source in table.sources] == [
        ("samples", 1),
        ("evaluation", 10),
        ("benchmark/base", None),
        ("benchmark/raft", None),
    ]
    commit(tmp_path / "alone")
    assert [source.title for source in Index(tmp_path / "alone").table().sources] == ["benchmark"]
    with pytest.raises(InputError, match="no run folder is here"):
        Index(tmp_path / "nowhere").table()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no samples: expected the folder of a RAFT run"):
        Index(tmp_path / "empty").table()
    (tmp_path / "empty" / "run.json").write_text(json.dumps({}))
    assert len(Index(tmp_path / "empty").table()) == 0, "a run that has just begun"


def test_a_sample_is_found_by_its_id_and_read_whole(tmp_path: Path) -> None:
    run = raft_run(tmp_path / "run")
    table = Index(run).table()
    for source in table.sources:
        for row in list(read_judged(source.folder))[::7]:
            place = table.find(source.key, row.sample["problem_id"], row.sample["index"])
            assert place is not None
            whole = whole_rows(table, [place])[0]
            assert (whole.sample, whole.verdict) == (row.sample, row.verdict)
    cycle_2 = list(read_judged(run / "cycle_2"))
    row_of = row_of_id(table, cycle_2[40].sample["sample_id"])
    assert row_of == table.find(
        "cycle_2", *(cycle_2[40].sample[n] for n in ("problem_id", "index"))
    )
    assert row_of_id(table, "nothing") is None
    rows = find(table, Filter(sort="-reward")).rows.tolist()
    assert diagnostics_of(table, rows) == [""] * len(rows)


def test_side_by_side_takes_the_first_that_was_trained_on(tmp_path: Path) -> None:
    run = raft_run(tmp_path / "run")
    table = Index(run).table()
    here = next(source for source in table.sources if source.key == "cycle_1")
    columns, left_out = columns_of(table, "sum/all", here)
    assert [column.source.key for column in columns] == ["cycle_1", "cycle_2"] and not left_out
    for column, cycle in zip(columns, (1, 2), strict=True):
        mine = [row for row in rows_of(cycle) if row.problem == "sum/all"]
        assert sum(column.outcomes.values()) == len(mine) == SAMPLES
        trained = pq.read_table(run / f"cycle_{cycle}" / "trained.parquet").to_pylist()
        best = min(
            (row["rank"], row["index"])
            for row in trained
            if row["problem_id"] == "sum/all" and row["cycle"] == cycle
        )
        assert int(table.columns["index"][column.best]) == best[1]
        assert column.kept
