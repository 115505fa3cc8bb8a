"""Rows of one's own and of others, with what tables and people put into them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from haloforge.cli.data import data_group
from haloforge.data.adapters.fields import flag, number, texts
from haloforge.data.catalogue import entries
from haloforge.data.lines import Writing
from haloforge.data.plan import plan
from haloforge.data.prepare import _parts, _Pool
from haloforge.data.rows import Row
from haloforge.data.sources import Source
from haloforge.errors import InputError
from tests.unit.set_rows import APPS, CODE_CONTESTS, CODEFORCES, COTS, SELF_OSS
from tests.unit.test_adapters import problem, reason
from tests.unit.test_prepare import OWN, TURNS, of_entry, starter, written


def row_of(*rows: dict[str, Any], purpose: Any = "problems", source: Source = OWN) -> Any:
    found = written(Writing(source, purpose), *rows)[0]
    assert found["row"], found
    return json.loads(found["row"])


def test_a_prompt_of_one_s_own_shows_what_its_tests_call() -> None:
    row = {"prompt": "Add two numbers.", "test_code": "assert secret_add(1,2)==3"}
    for called in ({"entry_point": "secret_add"}, {}):
        assert "assert secret_add(1,2)==3" in row_of({**row, **called})["prompt"]
    imported = "from solution import hidden\ndef test_it():\n    assert hidden() == 1\n"
    asked = row_of({"prompt": "One.", "test_code": imported, "judge": "pytest"})
    assert asked["prompt"].endswith("\n\nassert hidden() == 1")


def test_one_prompt_is_one_whatever_the_system_says() -> None:
    system = {"role": "system", "content": "Be brief."}
    rows = [
        {"prompt": "Print 1."},
        {"messages": [system, {"role": "user", "content": " Print 1.\n"}]},
        {"prompt": "Print 1.", "system": "Be long."},
    ]
    assert len({found["prompt"] for found in written(Writing(OWN, "problems"), *rows)}) == 1


def test_nulls_of_a_table_are_no_fields() -> None:
    turns = [{**turn, "name": None, "tool_calls": None} for turn in TURNS]
    row = {"messages": turns, "text": None, "prompt": None, "tests": None, "tags": None}
    assert row_of(row, purpose="sft")["messages"] == TURNS
    text = "<|im_start|>user\nPrint 1.<|im_end|>\n<|im_start|>assistant\nint x;<|im_end|>"
    assert row_of({"messages": None, "text": text}, purpose="sft")["messages"] == TURNS
    code = {"cpp": "int x;", "python": None}
    kept = row_of({"prompt": "x", "answer": None, "reference": code, "starter_code": code})
    assert kept["reference"] == kept["starter_code"] == {"cpp": "int x;"}
    found = row_of({"prompt": "Print 1.", "answer": "int x;", "tests": None}, purpose="sft")
    assert found["messages"] == TURNS


def test_a_conversation_needs_a_question() -> None:
    [found] = written(Writing(OWN, "sft"), {"messages": TURNS[1:]})
    assert "line 1: no turn is the user's, so there is no question" in found["fault"]


def test_answers_without_tests_keep_what_their_problem_is_called() -> None:
    bare = {**COTS, "examples": None, "public_tests": None, "public_tests_ms": None}
    row = {**bare, "private_tests": None}
    assert written(Writing(of_entry("codeforces_cpp"), "problems"), row)[0]["row"] is None
    kept = row_of(row, purpose="sft", source=of_entry("codeforces_cpp"))
    assert (kept["problem_id"], kept["group"]) == ("codeforces/12/B", "codeforces/11/D")
    interactive = {**COTS, "interaction_format": "Ask."}
    kept = row_of(interactive, purpose="sft", source=of_entry("codeforces_cpp"))
    assert kept["problem_id"] == "codeforces/12/B"
    none = dict.fromkeys(("public_tests", "generated_tests", "private_tests"))
    kept = row_of({**CODE_CONTESTS, **none}, purpose="sft", source=of_entry("code_contests"))
    assert kept["group"] == "codeforces/12/B"


def test_the_language_of_given_answers_is_theirs() -> None:
    for name, language in (
        ("open_code_instruct", "cpp"),
        ("self_oss_instruct", "rust"),
        ("codeforces_python", "cpp"),
        ("mbpp", "cpp"),
    ):
        with pytest.raises(InputError, match=f"no answers in language '{language}'; known: python"):
            entries()[name].adapt({}, "x, line 1", language)
    assert entries()["self_oss_instruct"].adapt(SELF_OSS, "x, line 1", "python").conversation
    anything = entries()["mbpp"].model_copy(update={"languages": []})
    assert anything._options("cpp") == anything._options(None)


def test_the_two_splits_of_apps_count_from_0_each() -> None:
    def name(place: str, **fields: Any) -> Any:
        found = entries()["apps"].adapt({**APPS, **fields}, place).problem
        assert isinstance(found, dict)
        return found["problem_id"]

    assert name("apps/train.jsonl, line 1") == "apps/train/7"
    assert name("apps/test.jsonl, line 1") == "apps/test/7"
    unknown = name("test/0000.parquet, row 1")
    assert unknown != name("test/0000.parquet, row 1", question="Print thrice the number.")


def test_a_csv_holds_all_as_text() -> None:
    row = Row({"a": '["x", "y"]', "b": "", "c": "NaN", "d": "False", "e": "TRUE"}, "x, line 1")
    assert (texts(row, "a"), texts(row, "b")) == (["x", "y"], [])
    assert (number(row, "b"), number(row, "c")) == (None, None)
    assert [flag(row, name) for name in "bde"] == [None, False, True]
    with pytest.raises(InputError, match="field 'a': expected true or false"):
        flag(row, "a")
    as_text = {
        name: value if isinstance(value, str) else "" if value is None else json.dumps(value)
        for name, value in CODEFORCES.items()
    }
    assert problem("codeforces", as_text) == problem("codeforces", CODEFORCES)


@pytest.mark.parametrize("value", [10**400, float("inf"), "1e999"])
def test_a_number_is_one_that_can_be_reckoned_with(value: Any) -> None:
    with pytest.raises(InputError, match="field 'a': expected a"):
        number(Row({"a": value}, "x, line 1"), "a")


def test_what_an_adapter_trips_over_is_one_row_left_out() -> None:
    entry = entries()["code_contests"]
    for fields in (
        {"difficulty": 10**6},
        {"difficulty": -1},
        {"time_limit": {"seconds": 10**400}},
        {"solutions": {"language": [[]], "solution": ["x"]}},  # what no dictionary takes for a key
    ):
        row = {**CODE_CONTESTS, "cf_rating": 0, **fields}
        assert reason(entry.adapt(row, "x, line 1").problem)
        with pytest.raises(InputError, match=r"^x, line 1: "):
            entry.adapt(row, "x, line 1", strict=True)


def test_a_variant_of_a_variant_of_a_test_does_not_train(tmp_path: Path) -> None:
    # Row 0 is in a group with row 1, which has the prompt of row 2, which is in the test's group.
    pool, columns = _Pool(), {"prompt": (1, 2, 2, 3, 4), "group": (5, 5, 6, 7, 6)}
    for name, values in {**columns, "name": (1, 2, 3, 4, 5)}.items():
        pool.digests[name].append(np.array(values, np.uint64))
    pool.kept = 4
    source = Source("rows.jsonl", "", files=("rows.jsonl",), test_files=("test.jsonl",))
    trained, tested = _parts(plan(source, tmp_path / "o.jsonl", "sft"), pool, tmp_path / "none")
    assert trained.tolist() == [False, False, False, True, False]
    assert tested.tolist() == [False] * 4 + [True]
    assert pool.own_tests


def test_a_set_is_prepared_again_but_over_no_other(tmp_path: Path) -> None:
    starter(tmp_path / "train.jsonl")
    assert starter(tmp_path / "train.jsonl").test_output
    (tmp_path / "test.jsonl").write_text("mine\n")
    with pytest.raises(InputError, match=r"test\.jsonl: is there"):
        starter(tmp_path / "train.jsonl")
    output = ["--output", str(tmp_path / "t.jsonl"), "--no-test"]
    done = CliRunner().invoke(data_group, ["prepare", "--dataset", "starter", *output])
    assert done.exit_code == 0, done.output
    assert f"{tmp_path / 'test.jsonl'}: of another run; this one holds nothing out" in done.output
    assert (tmp_path / "test.jsonl").read_text() == "mine\n"
