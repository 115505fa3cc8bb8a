"""Files of rows of any format, read in this process."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from haloforge.data import streams
from haloforge.data.jsonl import JsonLines, json_object
from haloforge.data.streams import read_file
from haloforge.errors import InputError
from haloforge.store.storage import reaching


def test_a_file_may_begin_with_a_mark_of_its_encoding(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n', encoding="utf-8-sig")
    assert [text for _, text in read_file(str(path))] == ['{"a": 1}\n', '{"a": 2}\n']
    assert [row["a"] for row in JsonLines(path)] == [1, 2]


def test_a_list_in_a_json_file_is_no_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('\n[\n{"a": 1}]\n')
    with pytest.raises(InputError, match=r"rows\.json: expected JSON Lines, one object a line"):
        list(read_file(str(path)))


def test_long_rows_are_few_in_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BLOCK_BYTES", 100)
    pq.write_table(pa.table({"a": ["x" * 40] * 120}), tmp_path / "rows.parquet")
    blocks = list(streams._read_files({"file": [str(tmp_path / "rows.parquet")]}))
    assert sum(block.num_rows for block in blocks) == 120
    assert max(block.num_rows for block in blocks) == 3
    assert blocks[-2]["place"][-1].as_py().endswith("row 120")


def test_numbers_that_python_does_not_hold_are_one_line() -> None:
    with pytest.raises(InputError, match="line 1: not valid JSON"):
        json_object('{"a": ' + "9" * 5000 + "}", "rows.jsonl, line 1")
    with pytest.raises(InputError, match=r"^x\.parquet: cannot be read"), reaching("x.parquet"):
        raise OverflowError("date value out of range")
