"""What is spoilt, or changes while it is read, in a run that is looked at: it is told, and the rest
is shown."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiohttp.test_utils import TestClient, TestServer
from click.testing import CliRunner

from haloforge.cli.main import cli
from haloforge.errors import InfraError
from haloforge.store.shards import ShardWriter, compact
from haloforge.view.filters import Filter, find
from haloforge.view.index import Index
from haloforge.view.pages import Pages
from haloforge.view.rows import diagnostics_of, row_of_id, whole_rows
from haloforge.view.server import build
from haloforge.view.sources import commits, find_sources
from tests.raft_runs import Row, stored, write_cycle

SHARD = "000001.parquet"


def asked(run: Path, *paths: str) -> list[tuple[int, str]]:
    """The status and the page of each."""

    async def main() -> list[tuple[int, str]]:
        async with TestClient(TestServer(build(Pages(run), None))) as client:
            found = []
            for path in paths:
                answer = await client.get(path)
                found.append((answer.status, await answer.text()))
            return found

    return asyncio.run(main())


def samples(run: Path, *options: str) -> str:
    """What the command prints."""
    result = CliRunner().invoke(cli, ["samples", str(run), *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def changed(path: Path, column: str, values: Any) -> None:
    """Puts `values` in the place of a column; None takes it away."""
    table = pq.read_table(path)
    place = table.schema.get_field_index(column)
    made = table.remove_column(place)
    if values is not None:
        made = made.add_column(place, column, values)
    pq.write_table(made, path, write_page_checksum=True)


def spoil_page(path: Path, column: str) -> None:
    """Flips a byte of the column's first page."""
    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        told = file.metadata.row_group(0).column(names.index(column))
        at = told.data_page_offset + told.total_compressed_size - 1
        if told.has_dictionary_page:
            at = told.dictionary_page_offset + told.total_compressed_size - 1
    raw = bytearray(path.read_bytes())
    raw[at] ^= 0xFF
    path.write_bytes(raw)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two commits of two samples each."""
    rows = [Row(name, number, 1.0) for name in ("a", "b") for number in range(2)]
    write_cycle(tmp_path, 1, rows, commit=2)
    return tmp_path


def of_cycle(run: Path, what: str, shard: str = SHARD) -> Path:
    return run / "cycle_1" / what / shard


def test_a_benchmark_may_be_called_as_what_a_run_leaves(tmp_path: Path) -> None:
    for name in ("cycle_5_final", "logs", "base"):
        with ShardWriter(tmp_path / name) as shards:
            shards.add(*stored(Row("p", 0, 1.0), 0))
    with ShardWriter(tmp_path / "x_final" / "tensorboard" / "y") as shards:  # deeper: not looked at
        shards.add(*stored(Row("p", 0, 1.0), 0))
    assert [source.key for source in find_sources(tmp_path)] == ["base", "cycle_5_final", "logs"]


def test_a_folder_may_be_called_by_any_digit(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "m\u00b2") as shards:
        shards.add(*stored(Row("p", 0, 1.0), 0))
    assert [source.key for source in find_sources(tmp_path)] == ["m\u00b2"]


def test_a_folder_that_cannot_be_read_is_told(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "closed").mkdir()
    (run / "cycle_2" / "commits").mkdir(parents=True)
    scandir = os.scandir

    def refused(path: Any) -> Any:
        if str(path).endswith(("closed", "cycle_2/commits")):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    table = Index(run).table()
    assert len(table) == 4
    told = [fault.partition(": ")[0] for fault in table.faults]
    assert told == [f"{run}/closed", f"{run}/cycle_2/commits"]


def test_what_nobody_thought_of_is_a_page_too(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(error: Exception) -> None:
        def fail(*_: Any) -> str:
            raise error

        monkeypatch.setattr(Pages, "list_page", fail)

    for error, told in ((OSError("no disk"), "no disk"), (KeyError("x"), "fault of halo-forge")):
        fails(error)
        status, page = asked(run, "/")[0]
        assert status == 500 and told in page and "Traceback" not in page
    assert asked(run, "/id?sample=")[0][0] == 404, "what aiohttp raises stays what it is"


@pytest.mark.parametrize(
    ("what", "column", "values"),
    [
        ("samples", "problem_id", None),
        ("samples", "index", pa.array(["x", "y"])),
        ("samples", "finish_reason", pa.array([[1], [2]])),
        ("verdicts", "reward", pa.array(["good", "bad"])),
        ("verdicts", "outcome", None),
    ],
)
def test_a_shard_of_other_columns_is_left_out(
    what: str, column: str, values: Any, run: Path
) -> None:
    changed(of_cycle(run, what), column, values)
    table = Index(run).table()
    assert len(table) == 2
    assert len(table.faults) == 1 and SHARD in table.faults[0] and "left out" in table.faults[0]


def test_types_that_hold_the_same_are_taken(run: Path) -> None:
    changed(of_cycle(run, "samples"), "index", pa.array([0, 1], pa.int64()))
    changed(of_cycle(run, "samples"), "problem_id", pa.array(["a", "a"], pa.large_string()))
    changed(of_cycle(run, "verdicts"), "reward", pa.array([0.25, 1], pa.float64()))
    table = Index(run).table()
    assert (table.faults, len(table)) == ([], 4)
    assert table.columns["reward"].dtype == "float32" and table.find("cycle_1", "a", 1) == 1
    assert whole_rows(table, [0])[0].verdict["reward"] == 0.25


@pytest.mark.parametrize("how", ["page", "gone"])
def test_one_spoilt_text_is_one_text(how: str, run: Path) -> None:
    path = of_cycle(run, "verdicts")
    if how == "page":
        changed(path, "diagnostics", pa.array(["said 1", "said 2"]))
        spoil_page(path, "diagnostics")
    else:
        changed(path, "diagnostics", None)
    table = Index(run).table()
    assert len(table) == 4 and table.faults == []
    told = diagnostics_of(table, [0, 1, 2])
    assert "diagnostics cannot be read" in told[0] == told[1] and told[2] == ""
    whole = whole_rows(table, [0, 2])
    assert [*whole[0].faults] == ["diagnostics"] and whole[1].faults == {}
    assert whole[0].sample["completion"] and whole[0].verdict["toolchain"] == "gcc"
    of = "in=cycle_1&of=a&n=0"
    pages = asked(
        run, "/", f"/sample?{of}", f"/raw?{of}&what=answer", f"/raw?{of}&what=diagnostics"
    )
    assert [status for status, _ in pages] == [200, 200, 200, 500]
    for page in (0, 1, 3):
        assert "cannot be read" in pages[page][1]
    for options in ((), ("--full",), ("--json",)):
        shown = samples(run, *options)
        assert "cannot be read" in shown.replace("\n", " ")
    lines = [json.loads(line) for line in samples(run, "--json").splitlines()]
    assert [len(line["faults"]) for line in lines] == [1, 1, 0, 0]


def test_ids_that_cannot_be_read_do_not_hide_the_others(run: Path) -> None:
    table = Index(run).table()
    spoil = of_cycle(run, "samples")
    wanted = whole_rows(table, [2])[0].sample["sample_id"]
    spoil.write_bytes(b"no Parquet")
    assert row_of_id(table, wanted) == 2
    with pytest.raises(InfraError, match="its ids cannot be read"):
        row_of_id(table, "another")


def test_nothing_in_the_place_of_a_value(run: Path) -> None:
    for what in ("samples", "verdicts"):
        path = of_cycle(run, what)
        table = pq.read_table(path)
        for name in table.schema.names:
            if name not in ("sample_id", "problem_id", "index"):
                nothing = pa.nulls(2, table.schema.field(name).type)
                place = table.schema.get_field_index(name)
                table = table.set_column(place, name, nothing)
        pq.write_table(table, path)
    whole = whole_rows(Index(run).table(), [0])[0]
    assert whole.sample["completion"] == whole.verdict["diagnostics"] == ""
    assert whole.verdict["compile_ms"] == whole.verdict["reward"] == 0
    assert whole.sample["logprob_sum"] is None
    assert [status for status, _ in asked(run, "/", "/sample?in=cycle_1&of=a&n=0")] == [200, 200]
    for options in ((), ("--full",), ("--json",)):
        assert samples(run, *options)


def test_numbers_that_json_has_not_are_null(run: Path) -> None:
    changed(of_cycle(run, "samples"), "logprob_sum", pa.array([float("-inf"), -1.0]))

    def refused(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    lines = samples(run, "--json").splitlines()
    rows = [json.loads(line, parse_constant=refused) for line in lines]
    assert [row["logprob_sum"] for row in rows[:2]] == [None, -1.0]


def test_shards_that_are_compacted_after_they_were_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cycle(tmp_path, 1, [Row("p", number, 1.0) for number in range(20)], commit=1)
    listed: list[Any] = []

    def compacted(*given: Any) -> Any:
        found = commits(*given)
        if not listed:
            compact(tmp_path / "cycle_1")
        listed.append(found)
        return found

    monkeypatch.setattr("haloforge.view.index.commits", compacted)
    table = Index(tmp_path).table()
    assert (len(table), table.faults, len(listed)) == (20, [], 2)


def test_shards_that_go_on_to_go_are_told(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*given: Any) -> Any:
        return commits(*given)._replace(gone=True)

    monkeypatch.setattr("haloforge.view.index.commits", gone)
    assert "shards go while they are read" in Index(run).table().faults[0]


def test_a_run_that_is_begun_again_is_read_again(tmp_path: Path) -> None:
    write_cycle(tmp_path, 1, [Row("p", number, 1.0) for number in range(3)])
    index = Index(tmp_path)
    assert len(index.table(now=True)) == 3
    (tmp_path / "cycle_1").rename(tmp_path / "cycle_1.old-1")
    write_cycle(tmp_path, 1, [Row("p", number, 0.0) for number in range(5)])
    table = index.table(now=True)
    assert (len(table), table.faults) == (5, [])
    assert find(table, Filter()).outcomes == {"compile_error": 5}


def test_a_manifest_may_say_that_it_replaces_none(run: Path) -> None:
    path = run / "cycle_1" / "commits" / "000001.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "replaces": None}))
    index = Index(run)
    for _ in range(2):
        table = index.table(now=True)
        assert (len(table), table.faults) == (4, [])
    path.write_text(json.dumps({**json.loads(path.read_text()), "replaces": 7}))
    for _ in range(2):
        table = index.table(now=True)
        assert len(table) == 2 and "a manifest cannot be read" in table.faults[0]


def test_a_manifest_names_no_file_elsewhere(run: Path, tmp_path: Path) -> None:
    path = run / "cycle_1" / "commits" / "000001.json"
    for name in (f"../samples/{SHARD}", str(of_cycle(run, "samples"))):
        path.write_text(json.dumps({**json.loads(path.read_text()), "shard": name}))
        table = Index(run).table()
        assert len(table) == 2 and "is no file's name" in table.faults[0]
