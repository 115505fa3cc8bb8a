"""What `data prepare` writes of rows of one's own, and what it keeps for the stages after it."""

import json
from pathlib import Path
from typing import Any

import pytest

from haloforge.data.lines import Purpose, Writing
from haloforge.data.plan import plan
from haloforge.data.problems import parse_problem, read_problems, starter_problems
from haloforge.data.prompts import asked_row
from haloforge.data.sidecar import read_sidecar, write_sidecar
from haloforge.data.sources import Source
from haloforge.errors import InputError
from tests.unit.test_prepare import OWN, TURNS, of_entry, starter, written
from tests.unit.test_sources import told

TESTS = [{"stdin": "", "stdout": "1\n"}]


def row_of(row: dict[str, Any], purpose: Any = "sft", **choices: Any) -> dict[str, Any]:
    [found] = written(Writing(OWN, purpose, **choices), row)
    assert found["row"], found
    return dict(json.loads(found["row"]))


def test_the_problem_of_a_prepared_row_keeps_its_tests(tmp_path: Path) -> None:
    known = {problem.problem_id: problem for problem in starter_problems("train")}
    done = starter(tmp_path / "train.jsonl")
    lines = done.output.read_text().splitlines()
    assert lines
    for line in lines:
        row = json.loads(line)
        asked = parse_problem(asked_row(row, "train.jsonl"), "train.jsonl")
        problem = known[asked.problem_id]
        assert asked.tests == problem.tests and asked.judge == problem.judge == "stdio"
        assert (asked.difficulty, asked.tags) == (problem.difficulty, problem.tags)
        assert not row.keys() & {"reference", "prompt"}


def test_what_a_row_of_sft_says_of_its_problem_is_kept() -> None:
    said = {"difficulty": "easy", "tags": ["sums"], "tests": TESTS, "limits": {"wall_s": 3.0}}
    row = row_of({"messages": TURNS, **said})
    assert {name: row[name] for name in said} == said
    called = {"messages": TURNS, "test_code": "assert secret() == 1"}
    row = row_of(called)
    assert row["messages"] == TURNS, "what is learnt is as it was given"
    asked = row_of(called, "problems")
    assert asked["prompt"].endswith("\n\nassert secret() == 1")


@pytest.mark.parametrize("empty", ["problem_id", "group", "difficulty"])
def test_an_empty_name_is_none(empty: str) -> None:
    for row, purpose in (
        ({"prompt": "Print 1."}, "problems"),
        ({"messages": TURNS}, "sft"),
        ({"prompt": "Print 1.", "answer": "int x;"}, "sft"),
    ):
        found = row_of({**row, empty: ""}, purpose)
        assert found["problem_id"] == found["group"] == row_of(row, purpose)["problem_id"]


def test_an_empty_prompt_is_told_with_its_place() -> None:
    rows: list[tuple[dict[str, Any], Purpose]] = [
        ({"prompt": ""}, "problems"),
        ({"prompt": " \n", "tests": TESTS}, "problems"),
        ({"messages": [{"role": "user", "content": ""}, TURNS[1]]}, "sft"),
    ]
    for row, purpose in rows:
        [found] = written(Writing(OWN, purpose), row)
        assert found["fault"] == "rows.jsonl, line 1: field 'prompt': is empty" and found["stops"]


def test_tests_that_do_not_parse_stop_with_their_place() -> None:
    [found] = written(Writing(OWN, "problems"), {"prompt": "x", "test_code": "assert ("})
    assert found["fault"].startswith(
        "rows.jsonl, line 1: field 'test_code': its tests do not parse"
    )
    assert found["stops"]


def test_an_answer_is_fenced_in_the_language_of_its_row_or_of_the_file() -> None:
    row = {"prompt": "Print 1.", "answer": "print(1)"}
    assert row_of(row)["messages"][1]["content"] == "print(1)"
    fenced = "```python\nprint(1)\n```"
    found = row_of(row, language="python")
    assert found["messages"][1]["content"] == fenced and found["language"] == "python"
    told = row_of({**row, "language": "python"})
    assert told["messages"][1]["content"] == "print(1)" and told["language"] == "python"
    prose = row_of({"prompt": "Capital of France?", "answer": "Paris.", "language": "en"})
    assert prose["messages"][1]["content"] == "Paris." and "language" not in prose


def test_an_instruction_keeps_what_its_row_says_of_it() -> None:
    said = {"problem_id": "p", "group": "g", "license": "MIT", "difficulty": "hard"}
    row = {"prompt": "Print 1.", "answer": "int x;", "source": "mine", **said}
    for tags in (["dp", "greedy"], '["dp", "greedy"]', "dp, greedy"):
        found = row_of({**row, "tags": tags})
        assert {name: found[name] for name in said} == said
        assert found["tags"] == ["dp", "greedy"]
        assert found["source"] == "rows.jsonl, line 1 (of mine)"
    numbered = row_of({**row, "difficulty": 3, "problem_id": 7})
    assert (numbered["difficulty"], numbered["problem_id"]) == ("3", "7")


def test_tests_of_megabytes_are_left_to_the_files_of_problems() -> None:
    large = {"messages": TURNS, "tests": [{"stdin": "1" * 70_000, "stdout": ""}], "tags": ["a"]}
    row = row_of(large)
    assert not row.keys() & {"tests", "judge"} and row["tags"] == ["a"]
    assert row_of(large, "problems")["tests"] == large["tests"]


def test_one_question_is_one_whatever_its_tests() -> None:
    rows = [{"messages": TURNS, "test_code": f"assert f{n}() == 1"} for n in range(2)]
    assert len({found["prompt"] for found in written(Writing(OWN, "sft"), *rows)}) == 1


def test_a_hidden_name_is_shown_where_a_row_of_sft_is_a_problem(tmp_path: Path) -> None:
    row = row_of({"messages": TURNS, "test_code": "assert secret() == 1"})
    (tmp_path / "sft.jsonl").write_text(json.dumps(row) + "\n")
    [problem] = read_problems(str(tmp_path / "sft.jsonl"))
    assert problem.turns()[-1]["content"].endswith("\n\nassert secret() == 1")


def test_half_a_surrogate_pair_is_told_of_any_field() -> None:
    source = of_entry("codeforces_cpp")
    [found] = written(Writing(source, "sft"), '{"prompt": "x", "\\ud800": 1}')
    assert found["left_out"] and not found["row"]


def test_a_held_out_file_stays_while_another_is_apart_from_it(tmp_path: Path) -> None:
    source = Source("rows.jsonl", "", files=("rows.jsonl",))
    made = plan(source, tmp_path / "a.jsonl", "sft")
    for path, part in ((made.output, "train"), (made.test_output, "test")):
        path.write_text("{}\n")
        fields = told(source.origin, {**made.choices(own_tests=False), "part": part})
        write_sidecar(path, **{**fields, "seed": made.seed})
    assert plan(source, tmp_path / "a.jsonl", "sft", seed=1)
    assert plan(source, tmp_path / "b.jsonl", "sft")
    others: tuple[tuple[str, dict[str, Any]], ...] = (
        ("seed", {"seed": 1}),
        ("test_fraction", {"test_fraction": 0.5}),
        ("language", {"language": "python"}),
    )
    for changed, choices in others:
        with pytest.raises(InputError, match=rf"a\.jsonl was kept apart from.* of {changed};"):
            plan(source, tmp_path / "b.jsonl", **{"purpose": "sft", **choices})
    assert plan(source, tmp_path / "b.jsonl", "sft", seed=1, keep_all=True)
    assert plan(source, tmp_path / "b.jsonl", "problems")
    (tmp_path / "model.bin").write_text("another's")
    (tmp_path / "model.bin.meta.json").write_text('{"a": 1}')
    made_of = told("a.jsonl", {"similar": 0.8})
    parent = read_sidecar(tmp_path / "a.jsonl")
    (tmp_path / "good.jsonl").write_text("{}\n")
    write_sidecar(tmp_path / "good.jsonl", **{**made_of, "parents": [parent]})
    with pytest.raises(InputError, match=r"good\.jsonl was kept apart from"):
        plan(source, tmp_path / "a.jsonl", "sft", seed=1)
