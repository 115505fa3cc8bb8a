"""Stored samples are read as they stand, or refused with file, row and field."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from haloforge.data.samples import read_samples, survey
from haloforge.errors import InputError
from haloforge.schema import Problem

TESTS = [{"stdin": "1 2\n", "stdout": "3\n"}]
INLINE = {"completion": "x", "language": "python", "tests": TESTS, "limits": {"wall_s": 1.5}}


def jsonl(folder: Path, *rows: Any) -> Path:
    path = folder / "samples.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def parquet(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(exist_ok=True)
    names = dict.fromkeys(name for row in rows for name in row)
    pq.write_table(
        pa.table({name: [row.get(name) for row in rows] for name in names}), path, row_group_size=1
    )
    return path


def test_a_row_may_hold_its_problem(tmp_path: Path) -> None:
    [sample] = read_samples(jsonl(tmp_path, INLINE), None)
    problem = Problem.model_validate_json(sample["problem"])
    assert (problem.language, problem.judge) == ("python", "stdio")
    assert problem.tests[0].stdout == "3\n"
    assert problem.limits.wall_s == 1.5
    assert problem.problem_id == sample["problem_id"]
    [same, other] = read_samples(jsonl(tmp_path, INLINE, {**INLINE, "language": "c"}), None)
    assert same["problem_id"] == sample["problem_id"] != other["problem_id"]


def test_what_no_judge_looks_at_may_be_anything(tmp_path: Path) -> None:
    row = {**INLINE, "prompt": [{"role": "user"}], "difficulty": 800, "tags": "dp", "messages": 1}
    [sample, asked] = read_samples(jsonl(tmp_path, row, {**row, "prompt": "Add."}), None)
    assert Problem.model_validate_json(sample["problem"]).prompt == ""
    assert Problem.model_validate_json(asked["problem"]).prompt == "Add."


def test_a_row_may_name_its_problem(tmp_path: Path) -> None:
    named = {"sample_id": "s", "problem_id": "p", "code": "y"}
    known, inline = read_samples(jsonl(tmp_path, named, INLINE), {"p"})
    assert (known["problem_id"], known["problem"], known["code"]) == ("p", None, "y")
    assert inline["problem"] is not None  # it names none
    with pytest.raises(InputError, match=r"samples.jsonl, line 1: .*'p' is not among the problems"):
        list(read_samples(jsonl(tmp_path, named), {"q"}))


def test_parquet_says_the_same_as_json(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [INLINE, {"code": "z", "sample_id": "s", "cycle": 1}]
    path = parquet(tmp_path / "samples.parquet", *rows)
    assert list(read_samples(path, None)) == list(read_samples(jsonl(tmp_path, *rows), None))


def test_a_folder_is_read_in_the_order_of_its_files(tmp_path: Path) -> None:
    for name in ("2", "1"):
        parquet(tmp_path / "shards" / f"{name}.parquet", {"code": name}, {"code": f"{name}b"})
    rows = list(read_samples(tmp_path / "shards", None))
    assert [row["code"] for row in rows] == ["1", "1b", "2", "2b"]
    assert [row["index"] for row in rows] == [0, 1, 2, 3]


def test_ids_are_kept_or_made_the_same_twice(tmp_path: Path) -> None:
    rows = [{"code": "x"}, {"code": "x"}, {"code": "x", "sample_id": "mine"}]
    first, second, third = (row["sample_id"] for row in read_samples(jsonl(tmp_path, *rows), None))
    assert third == "mine"
    assert first != second
    assert [row["sample_id"] for row in read_samples(jsonl(tmp_path, *rows), None)] == [
        first,
        second,
        third,
    ]


def test_half_a_surrogate_pair_does_not_stop_the_rest(tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text('{"code": "a\\ud800b"}\n')
    [sample] = read_samples(tmp_path / "s.jsonl", None)
    assert sample["code"] == "a?b"


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"problem_id": "p"}, "give field 'completion' or 'code'"),
        ({"completion": "x", "code": "y"}, "give field 'completion' or 'code'"),
        ({"completion": 3}, "field 'completion': expected text, found 3"),
        ({"code": "x", "sample_id": 7}, "field 'sample_id': expected text, found 7"),
        ({"code": "x", "sample_id": "s"}, "field 'sample_id': 's' repeats"),
        ({"code": "x", "sample_id": "\ud800"}, "field 'sample_id': half a surrogate"),
        ({"code": "x", "problem_id": "\ud800"}, "field 'problem_id': half a surrogate pair"),
        ({"code": "x", "language": "\ud800"}, "field 'language'"),
        (
            {"code": "x", "tests": [{"stdin": "\ud800", "stdout": ""}]},
            "field 'tests': half a",
        ),
        ({"code": "x", "tests": [{"stdin": "1"}]}, "field 'tests.0.stdout'"),
        ({"code": "x", "judge": "guess"}, "field 'judge'"),
        ({"code": "x", "judge": "stdio"}, "judge 'stdio' needs at least one row in 'tests'"),
        ({"code": "x", "limits": {"wall_s": -1}}, "field 'limits.wall_s'"),
        ("text", "expected a JSON object"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: Any, fault: str) -> None:
    good = {"code": "x", "sample_id": "s"}
    with pytest.raises(InputError) as refused:
        survey(jsonl(tmp_path, good, row), None)
    assert f"samples.jsonl, line 2: {fault}" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_bad_parquet_is_named(tmp_path: Path) -> None:
    path = parquet(tmp_path / "p.parquet", {"code": "x"}, {"code": None})
    with pytest.raises(InputError, match=r"p.parquet, row 2: give field 'completion' or 'code'"):
        survey(path, None)
    path.write_bytes(b"no parquet")
    with pytest.raises(InputError, match=r"p.parquet: not a Parquet file"):
        survey(path, None)
    with pytest.raises(InputError, match=r"none.parquet: no such file"):
        survey(tmp_path / "none.parquet", None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: holds no samples"):
        survey(tmp_path / "empty", None)


def test_a_survey_tells_what_is_there(tmp_path: Path) -> None:
    typo = {**INLINE, "tests": [], "langauge": "c"}
    rows: list[dict[str, Any]] = [INLINE, typo, {"code": "x", "policy": "p"}]
    found = survey(jsonl(tmp_path, *rows), None)
    assert found.rows == 3
    assert found.unused == {"langauge"}
    assert {(p.language, p.judge) for p in found.kinds.values()} == {
        ("python", "stdio"),
        ("python", "compile"),
        (None, "compile"),
    }
    digest = found.digest
    assert survey(parquet(tmp_path / "p.parquet", *rows), None).digest == digest
    assert survey(jsonl(tmp_path, *rows[::-1]), None).digest != digest
