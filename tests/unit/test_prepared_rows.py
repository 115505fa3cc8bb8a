"""What `data prepare` writes of rows of one's own, and what it keeps for the stages after it."""

import json
from pathlib import Path
from typing import Any

import pytest

from haloforge.data.lines import Purpose, Writing
from haloforge.data.plan import plan
from haloforge.data.problems import parse_problem, starter_problems
from haloforge.data.prompts import asked_row
from haloforge.data.sidecar import write_sidecar
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
    assert row_of({**row, "language": "python"})["messages"][1]["content"] == fenced
    there = {**row, "language": "go"}
    assert "```go" in row_of(there, language="python")["messages"][1]["content"]


def test_an_instruction_keeps_what_its_row_says_of_it() -> None:
    said = {"problem_id": "p", "group": "g", "license": "MIT", "difficulty": "hard"}
    row = {"prompt": "Print 1.", "answer": "int x;", "source": "mine", "tags": ["a"], **said}
    found = row_of(row)
    assert {name: found[name] for name in said} == said
    assert found["tags"] == ["a"] and found["source"] == "rows.jsonl, line 1 (of mine)"


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
        ("for", {"purpose": "problems"}),
    )
    for changed, choices in others:
        with pytest.raises(InputError, match=rf"a\.jsonl was kept apart from.* of {changed};"):
            plan(source, tmp_path / "b.jsonl", **{"purpose": "sft", **choices})
    assert plan(source, tmp_path / "b.jsonl", "sft", seed=1, keep_all=True)
