"""What earlier cycles were trained on, where a disk has spoilt some of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from haloforge.errors import InfraError
from haloforge.raft.earlier import EarlierRows
from tests.raft_runs import Row, problem, selected


@pytest.mark.parametrize("how", ["gone", "torn", "middle"])
def test_an_earlier_cycle_whose_rows_are_spoilt_is_left_out(tmp_path: Path, how: str) -> None:
    rules: dict[str, Any] = {"problems": [problem("a")], "train_on": "all"}
    for cycle in (1, 2):
        selected(tmp_path, [Row("a", number, 1.0) for number in range(8)], cycle, **rules)
    path = tmp_path / "cycle_1" / "trained.parquet"
    whole = path.read_bytes()
    if how == "gone":
        path.unlink()
    elif how == "torn":
        path.write_bytes(whole[: len(whole) // 2])
    else:  # its footer and the columns that are compared are whole, the answers are not
        column = pq.ParquetFile(path).metadata.row_group(0).column(8)
        begin = column.dictionary_page_offset or column.data_page_offset
        end = begin + column.total_compressed_size
        path.write_bytes(whole[:begin] + b"\xff" * (end - begin) + whole[end:])
    found = selected(tmp_path, [Row("a", 9, 1.0)], 3, **rules)
    assert found.earlier.unreadable == (1,) and found.earlier.kept == 8
    assert {row["cycle"] for row in pq.read_table(found.path).to_pylist()} == {2, 3}
    assert json.dumps(found.summary()["earlier"]["unreadable"]) == "[1]"


def test_an_earlier_cycle_that_cannot_be_read_just_now_is_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: Any, **__: Any) -> Any:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(pq, "ParquetFile", busy)
    with pytest.raises(InfraError, match=r"cycle_1/trained.parquet: .*Too many open files"):
        EarlierRows(tmp_path, 2, np.array([], np.uint64), None)
