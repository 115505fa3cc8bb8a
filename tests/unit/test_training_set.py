"""What is trained on is one file, in order however it was written, and read a part at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from haloforge.raft import training_set as module
from haloforge.raft.training_set import TRAINED_SCHEMA, TrainingSet, write_training_set
from tests.raft_runs import Row, problem, selected


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row groups of 4 rows, two of them in memory."""
    monkeypatch.setattr(module, "_GROUP_ROWS", 4)
    monkeypatch.setattr(module, "_HELD_GROUPS", 2)


def part(*ranks: int) -> pa.Table:
    rows = [
        dict.fromkeys(TRAINED_SCHEMA.names)
        | {"rank": rank, "problem_id": f"p{rank % 3}", "completion": f" answer {rank}\n"}
        for rank in ranks
    ]
    return pa.Table.from_pylist(rows, schema=TRAINED_SCHEMA)


def write(folder: Path, count: int) -> Path:
    ranks = sorted(range(count), key=lambda rank: (rank * 7) % 11)
    path = folder / "trained.parquet"
    write_training_set(path, (part(*ranks[i : i + 3]) for i in range(0, count, 3)), count)
    return path


@pytest.mark.parametrize("count", [0, 1, 4, 9, 41, 64])
def test_rows_stand_by_rank(count: int, tmp_path: Path) -> None:
    path = write(tmp_path, count)
    rows = pq.read_table(path)
    assert rows["rank"].to_pylist() == list(range(count))
    assert rows["completion"].to_pylist() == [f" answer {rank}\n" for rank in range(count)]
    groups = pq.ParquetFile(path).metadata
    sizes = [groups.row_group(number).num_rows for number in range(groups.num_row_groups)]
    assert sum(sizes) == count
    assert all(size == 4 for size in sizes[:-1])
    assert [entry.name for entry in tmp_path.iterdir()] == ["trained.parquet"]


def test_few_rows_are_held_and_few_files_open(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "_MOST_BUCKETS", 3)
    opened: list[Path] = []
    original = pa.ipc.new_stream

    def counted(path: Path, schema: pa.Schema) -> Any:
        opened.append(path)
        return original(path, schema)

    monkeypatch.setattr(pa.ipc, "new_stream", counted)
    write(tmp_path, 64)
    assert len(opened) == 3


def test_a_part_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = write(tmp_path, 5)
    before = path.read_bytes()

    def torn() -> Iterator[pa.Table]:
        yield part(0, 1)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        write_training_set(path, torn(), 9)
    assert path.read_bytes() == before
    (tmp_path / ".trained.parquet-killed").mkdir()
    write(tmp_path, 6)
    assert [entry.name for entry in tmp_path.iterdir()] == ["trained.parquet"]
    assert pq.read_metadata(path).num_rows == 6


def test_conversations_end_with_the_policys_answer(tmp_path: Path) -> None:
    problems = [problem("p0"), problem("p1", system="Own."), problem("p2")]
    rows = TrainingSet(write(tmp_path, 10), problems, "Be brief.")
    assert len(rows) == 10
    assert rows[4] == [
        {"role": "system", "content": "Own."},
        {"role": "user", "content": "Do p1."},
        {"role": "assistant", "content": "answer 4"},
    ]
    assert rows[-1] == rows[9]
    assert rows[3:5] == [rows[3], rows[4]]
    assert [row[-1]["content"] for row in rows] == [f"answer {rank}" for rank in range(10)]
    with pytest.raises(IndexError):
        rows[10]


def test_a_row_group_is_read_once_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = TrainingSet(write(tmp_path, 10), [problem(f"p{n}") for n in range(3)], None)
    read = []
    original = pq.ParquetFile.read_row_group

    def counted(file: pq.ParquetFile, number: int, columns: list[str]) -> pa.Table:
        read.append((number, columns))
        return original(file, number, columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    list(rows)
    assert read == [(number, ["problem_id", "completion"]) for number in range(3)]


def test_what_is_selected_can_be_trained_on(tmp_path: Path) -> None:
    chosen = selected(tmp_path, [Row("a", number, 1.0) for number in range(11)])
    rows = TrainingSet(chosen.path, [problem("a")], None)
    assert len(rows) == chosen.rows == 11
    assert {row[-1]["content"][:6] for row in rows} == {"```cpp"}
