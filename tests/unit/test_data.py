"""Reading problems and SFT rows."""

import json
from pathlib import Path

import pytest

from haloforge.data.problems import answer_start, read_problems
from haloforge.data.sft import hold_out, read_sft, to_chatml
from haloforge.errors import InputError

TEXT = to_chatml(
    [
        {"role": "system", "content": "You are an expert programmer."},
        {"role": "user", "content": "Print 1."},
        {"role": "assistant", "content": "```cpp\nint main() {}\n```"},
    ]
)

ANSWER = [{"role": "assistant", "content": "```cpp\nint main() {}\n```"}]


def jsonl(path: Path, *rows: object) -> Path:
    path.write_text(
        "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)
    )
    return path


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "line 2: not valid JSON"),
        ("[1]", "line 2: expected a JSON object"),
        ({"tests": []}, "line 2: field 'prompt' is missing"),
        ({"prompt": "x", "promt": "y"}, "line 2: field 'promt': Extra inputs"),
        ({"prompt": "x", "tests": [{"stdin": "1"}]}, "line 2: field 'tests.0.stdout'"),
        ({"text": "hello"}, "line 2: field 'text': expected '<|im_start|>"),
    ],
)
def test_a_bad_problem_line_is_named(tmp_path: Path, line: object, expected: str) -> None:
    path = jsonl(tmp_path / "p.jsonl", {"prompt": "fine"}, line)
    with pytest.raises(InputError) as error:
        read_problems(str(path))
    assert expected in str(error.value)
    assert str(path) in str(error.value)


def test_missing_and_empty_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_problems(str(tmp_path / "none.jsonl"))
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="is empty"):
        read_sft(str(tmp_path / "empty.jsonl"))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r\r\n"])
def test_lines_may_end_as_on_any_system(tmp_path: Path, end: str) -> None:
    rows = [{"text": TEXT.replace("Print 1.", f"Print {number}.")} for number in range(5)]
    path = tmp_path / "s.jsonl"
    path.write_bytes(end.join(map(json.dumps, rows)).encode())
    asked = [messages[1]["content"] for messages in read_sft(str(path))]
    assert asked == [f"Print {number}." for number in range(5)]


@pytest.mark.parametrize(
    "row",
    [
        {"text": TEXT.rsplit("<|im_start|>assistant", 1)[0]},
        {"messages": [{"role": "user", "content": "x"}]},
        {"messages": [{"role": "robot", "content": "x"}]},
        {"messages": []},
        {"prompt": "x"},
    ],
)
def test_an_sft_row_without_an_answer_is_named(tmp_path: Path, row: object) -> None:
    with pytest.raises(InputError, match="line 1"):
        read_sft(str(jsonl(tmp_path / "s.jsonl", row)))


def test_a_prompt_that_repeats_is_one_problem(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "p.jsonl", {"prompt": "x"}, {"prompt": "x"}, {"prompt": "y"})
    assert len(read_problems(str(path))) == 2
    path = jsonl(
        tmp_path / "q.jsonl", {"prompt": "x", "problem_id": "1"}, {"prompt": "y", "problem_id": "1"}
    )
    with pytest.raises(InputError, match="two different prompts"):
        read_problems(str(path))


def test_messages_go_before_text_which_may_follow_another_template(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Print 1."}, *ANSWER]
    row = {"text": "[INST] Print 1. [/INST]", "messages": turns}
    path = str(jsonl(tmp_path / "s.jsonl", row))
    assert [*read_sft(path)] == [turns]
    assert read_problems(path)[0].turns() == turns[:1]


def test_the_starter_set_asks_for_a_language() -> None:
    cpp, python = read_problems("starter"), read_problems("starter", "python")
    assert "C++ program in a ```cpp block." in str(cpp[0].prompt)
    assert "in a ```python block." in str(python[0].prompt)
    assert python[0].language == "python"
    with pytest.raises(InputError, match="unknown language"):
        read_problems("starter", "cobol")
    with pytest.raises(InputError, match="no split"):
        read_problems("starter/exam")


STARTED = {
    "prompt": "Read n, print n + 1.",
    "language": "cpp",
    "starter_code": {"cpp": "int main() {\n", "python": "n = 1"},
    "difficulty": "easy",
}


def test_the_answer_begins_with_the_starter_code_of_its_language(tmp_path: Path) -> None:
    [problem] = read_problems(str(jsonl(tmp_path / "p.jsonl", STARTED)), "python")
    assert problem.language == "cpp"
    assert answer_start(problem) == "```cpp\nint main() {"
    assert problem.prompt == STARTED["prompt"]
    other = problem.model_copy(update={"language": "python"})
    assert answer_start(other) == "```python\nn = 1"
    assert answer_start(problem.model_copy(update={"language": "c"})) == ""


def test_problems_of_a_difficulty(tmp_path: Path) -> None:
    path = str(jsonl(tmp_path / "p.jsonl", STARTED, {"prompt": "x", "difficulty": "hard"}))
    assert [p.difficulty for p in read_problems(path, difficulty=["hard"])] == ["hard"]
    assert len(read_problems(path, difficulty=["hard", "easy"])) == 2
    with pytest.raises(InputError, match="no problem of difficulty esay; there: easy, hard"):
        read_problems(path, difficulty=["esay"])


def test_rows_without_a_system_prompt_are_given_the_runs(tmp_path: Path) -> None:
    bare = {"text": to_chatml([{"role": "user", "content": "x"}, *ANSWER])}
    first, second = read_sft(str(jsonl(tmp_path / "s.jsonl", bare, {"text": TEXT})), system="Mine.")
    assert first[0] == {"role": "system", "content": "Mine."}
    assert second[0] == {"role": "system", "content": "You are an expert programmer."}
    assert [turn["role"] for turn in second] == ["system", "user", "assistant"]


def test_a_limit_takes_the_same_rows_wherever_they_stand(tmp_path: Path) -> None:
    rows = [{"text": TEXT.replace("Print 1", f"Print {i}")} for i in range(20)]
    few = read_sft(str(jsonl(tmp_path / "a.jsonl", *rows)), limit=5)
    assert len(few) == 5
    turned = read_sft(str(jsonl(tmp_path / "b.jsonl", *reversed(rows))), limit=5)
    assert few == turned[::-1]
    more = read_sft(str(tmp_path / "a.jsonl"), limit=9)
    assert all(row in more for row in few)
    starter = read_sft("starter", "cpp", difficulty=["beginner"], limit=7)
    assert len(starter) == 7


def test_tests_make_a_stdio_problem(tmp_path: Path) -> None:
    row = {"prompt": "x", "tests": [{"stdin": "1", "stdout": "2"}]}
    assert read_problems(str(jsonl(tmp_path / "p.jsonl", row)))[0].judge == "stdio"


def test_code_makes_a_function_problem_in_python(tmp_path: Path) -> None:
    row = {"prompt": "x", "test_code": "assert f(1) == 2", "entry_point": "f"}
    problem = read_problems(str(jsonl(tmp_path / "p.jsonl", row)), language="cpp")[0]
    assert (problem.judge, problem.language) == ("function", "python")
    with pytest.raises(
        InputError, match=r"p\.jsonl, line 1: .*'test_code' does not parse"
    ) as refused:
        read_problems(str(jsonl(tmp_path / "p.jsonl", {**row, "test_code": "assert ("})))
    assert "\n" not in str(refused.value)


def test_rows_of_a_file_are_read_where_they_are_asked_for(tmp_path: Path) -> None:
    bare = TEXT[TEXT.index("<|im_start|>user") :]  # no system prompt of its own
    texts = [bare.replace("Print 1.", f"Print {i} é") for i in range(9)]
    path = tmp_path / "spaced.jsonl"
    path.write_text("\n\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts))
    rows = read_sft(str(path), system="Mine.")
    assert len(rows) == 9
    assert [row[1]["content"] for row in rows] == [f"Print {i} é" for i in range(9)]
    assert rows[-1] == rows[8] == rows[7:][1]
    assert rows[3][0] == {"role": "system", "content": "Mine."}
    with pytest.raises(IndexError):
        rows[9]
    last = path.read_text().rindex('{"text"')
    path.write_text(path.read_text()[:last] + '{"text": "no turns"}')
    with pytest.raises(InputError, match=r"spaced\.jsonl, line 17: field 'text'"):
        read_sft(str(path))


def test_held_out_rows_keep_those_of_a_prompt_together() -> None:
    rows = [
        [{"role": "user", "content": f"{n % 10}?"}, {"role": "assistant", "content": f"{n}"}]
        for n in range(40)
    ]
    trained, held_out = hold_out(rows, 0.2, seed=0)
    assert (len(trained), len(held_out)) == (32, 8)
    prompts = [{row[0]["content"] for row in part} for part in (trained, held_out)]
    assert prompts[0].isdisjoint(prompts[1])
    assert sorted([*trained, *held_out], key=str) == sorted(rows, key=str)
    assert [*hold_out(rows[::-1], 0.2, seed=0)[1]] == [*held_out][::-1]
    assert [*hold_out(rows, 0.2, seed=1)[1]] != [*held_out]
    with pytest.raises(InputError, match="all conversations have one prompt"):
        hold_out(rows[:1], 0.5, seed=0)
