"""Suites: their data as problems of ours, asked as their authors do; what is refused, and how."""

import dataclasses
import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from haloforge.benchmark.problems import problems_to_measure
from haloforge.benchmark.suites import SUITES
from haloforge.config import load_settings
from haloforge.data.problems import answer_start
from haloforge.data.suites.livecodebench import unpacked
from haloforge.errors import InputError
from haloforge.preflight import check_suites
from haloforge.schema import Problem
from tests.unit import suite_rows as rows

README = Path(__file__).parents[2] / "haloforge" / "benchmark" / "README.md"


@pytest.fixture(autouse=True)
def any_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of our own are no published version: none is asked for."""
    for name in ("humaneval-plus", "mbpp-plus"):
        monkeypatch.setitem(SUITES, name, dataclasses.replace(SUITES[name], sha256=None))


def measured(name: str, folder: Path | None = None, chat: bool = True, **fields: Any) -> Any:
    chosen = {f"benchmark.{key}": value for key, value in fields.items()}
    chosen["benchmark.prompts"] = f"suite/{name}"
    chosen["benchmark.data_dir"] = str(folder) if folder else None
    return problems_to_measure(load_settings(None, chosen), chat)


def one(name: str, folder: Path, chat: bool = True) -> Problem:
    [problem] = measured(name, folder, chat).problems
    return problem


def test_humaneval_is_at_hand_and_of_its_version() -> None:
    chat, base = measured("humaneval"), measured("humaneval", chat=False)
    asked: Problem = chat.problems[0]
    continued: Problem = base.problems[0]
    assert len(chat.problems) == len(base.problems) == 164
    assert chat.suite["sha256"] == SUITES["humaneval"].sha256
    assert (chat.suite["prompt_style"], base.suite["prompt_style"]) == ("instruct", "base")
    assert asked.prompt is not None and continued.prefix is not None
    assert continued.prefix.startswith("from typing import List\n\n\ndef has_close_elements(")
    assert answer_start(continued) == continued.prefix
    assert continued.stop == ["\nclass", "\ndef", "\n#", "\nif", "\nprint"]
    assert asked.prompt.startswith(
        "Please provide a self-contained Python script that solves the following problem in a "
        "markdown code block:\n```\nfrom typing import List\n"
    )
    assert asked.prompt.endswith('"""\n```\n')
    assert answer_start(asked).endswith("passes corresponding tests:\n```python\n")
    assert (asked.license, asked.entry_point) == ("MIT", "has_close_elements")


def test_the_style_that_is_set_wins_over_the_models() -> None:
    assert measured("humaneval", prompt_style="base").suite["prompt_style"] == "base"


def test_data_of_another_version_is_refused(tmp_path: Path) -> None:
    path = rows.write(tmp_path / "HumanEval.jsonl", rows.HUMANEVAL)
    with pytest.raises(InputError, match=f"{path} is not that of version 1.0.3 .*expected 1d49078"):
        measured("humaneval", tmp_path)


def test_the_digest_is_of_what_was_read_packed_or_not(tmp_path: Path) -> None:
    plain = rows.write(tmp_path / "a" / "mbpp.jsonl", rows.mbpp(11), rows.mbpp(12, 3))
    rows.write(tmp_path / "b" / "mbpp.jsonl.gz", rows.mbpp(11), rows.mbpp(12, 3))
    found = [measured("mbpp", tmp_path / name).suite["sha256"] for name in ("a", "b")]
    assert found == 2 * [hashlib.sha256(plain.read_bytes()).hexdigest()]


def test_evalplus_prompts(tmp_path: Path) -> None:
    rows.write(tmp_path / "humaneval-plus" / "HumanEvalPlus.jsonl.gz", rows.HUMANEVAL_PLUS)
    rows.write(tmp_path / "mbpp-plus" / "MbppPlus-v0.2.0.jsonl", rows.MBPP_PLUS)
    base = one("humaneval-plus", tmp_path, chat=False)
    assert base.prefix == rows.HUMANEVAL["prompt"].strip() + "\n"
    assert {"\ndef ", "\nassert ", "<|endoftext|>"} < set(base.stop)
    docstring = one("mbpp-plus", tmp_path, chat=False)
    assert (docstring.prefix, docstring.stop[-2:]) == (
        rows.MBPP_PLUS["prompt"],
        ['\n"""', "\nassert"],
    )
    chat = one("mbpp-plus", tmp_path)
    assert f"block:\n```\n{rows.MBPP_PLUS['prompt'].strip()}\n```\n" in str(chat.prompt)


def test_mbpp_shows_asserts_and_its_test_split_alone(tmp_path: Path) -> None:
    shots = [rows.mbpp(n, n) for n in (2, 3, 4)]
    rows.write(tmp_path / "mbpp.jsonl", rows.mbpp(10), *shots, rows.mbpp(11, 7), rows.mbpp(511))
    chat, base = one("mbpp", tmp_path), one("mbpp", tmp_path, chat=False)
    task = (
        "You are an expert Python programmer, and here is your task: Write a function to multiply "
        "by 7. Your code should pass these tests:\n\nassert times(1) == 7\nassert times(2) == 14"
    )
    assert (chat.problem_id, chat.prompt, chat.prefix) == ("mbpp/11", task, None)
    assert str(base.prefix).endswith(f"[DONE]\n\n{task}\n[BEGIN]\n")
    assert str(base.prefix).count("[BEGIN]") == 4
    assert (answer_start(base), base.stop) == ("", ["\n[DONE]"])
    rows.write(tmp_path / "mbpp.jsonl", *shots[:2], rows.mbpp(11))
    assert one("mbpp", tmp_path).problem_id == "mbpp/11"
    with pytest.raises(InputError, match="shown task 4, which the data lacks"):
        one("mbpp", tmp_path, chat=False)


def test_livecodebench_by_dates(tmp_path: Path) -> None:
    days = ["2023-08-31", "2024-05-01", "2024-09-30"]
    rows.write(tmp_path / "test.jsonl", *map(rows.livecodebench, days[:2]))
    rows.write(tmp_path / "test2.jsonl", rows.livecodebench(days[2]))
    assert len(measured("livecodebench", tmp_path).problems) == 3
    found = measured("livecodebench", tmp_path, from_date="2024-05-01", to_date="2024-05-01")
    [problem] = found.problems
    assert (found.suite["from_date"], found.suite["to_date"]) == ("2024-05-01", "2024-05-01")
    assert problem.problem_id == "livecodebench/q2024-05-01"
    assert [test.stdin for test in problem.tests] == ["1\n", "5"]
    assert problem.messages is not None
    assert problem.messages[1]["content"] == (
        "### Question:\nPrint twice the number.\n\n### Format: Read the inputs from stdin solve "
        "the problem and write the answer to stdout (do not directly test on the sample inputs). "
        "Enclose your code within delimiters as follows.\n```python\n# YOUR CODE HERE\n```\n\n"
        "### Answer: (use the provided format with backticks)\n\n"
    )
    with pytest.raises(InputError, match="no problem there, or none of these dates"):
        measured("livecodebench", tmp_path, from_date="2025-01-01")
    with pytest.raises(InputError, match="has no dates"):
        measured("humaneval", from_date="2025-01-01")


def test_a_pickle_that_would_run_something_is_refused(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "made"),)

    packed = rows.lcb_packed([])
    assert unpacked(packed) == []
    attack = pickle.dumps(Attack())
    pickle.loads(attack)
    assert (tmp_path / "made").is_dir()  # what a plain unpickler does with it
    (tmp_path / "made").rmdir()
    with pytest.raises(ValueError, match="a pickle of more than text"):
        unpacked(_pack(attack))
    assert not (tmp_path / "made").exists()
    with pytest.raises(ValueError, match=r"a pickle of more than text \(opcode EMPTY_LIST\)"):
        unpacked(_pack(pickle.dumps([1])))
    with pytest.raises(ValueError, match="neither JSON nor packed JSON"):
        unpacked("####")


def _pack(pickled: bytes) -> str:
    import base64
    import zlib

    return base64.b64encode(zlib.compress(pickled)).decode()


def test_multipl_e_is_completed_whatever_the_model(tmp_path: Path) -> None:
    rows.write(tmp_path / "humaneval-cpp.jsonl", rows.multipl_e())
    found = measured("multipl-e-cpp", tmp_path, chat=True)
    [problem] = found.problems
    assert found.suite["prompt_style"] == "base"
    assert (problem.judge, problem.language, problem.stop) == ("program", "cpp", ["\n}"])
    with pytest.raises(InputError, match="asked in style base only, not instruct"):
        measured("multipl-e-cpp", tmp_path, prompt_style="instruct")
    parquet = tmp_path / "p" / "humaneval-cpp" / "test-00000-of-00001.parquet"
    parquet.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([rows.multipl_e()]), parquet)
    assert one("multipl-e-cpp", tmp_path / "p") == problem


def test_a_missing_field_is_named_with_its_place(tmp_path: Path) -> None:
    row = {k: v for k, v in rows.HUMANEVAL_PLUS.items() if k != "plus_input"}
    rows.write(tmp_path / "HumanEvalPlus.jsonl", rows.HUMANEVAL_PLUS, row)
    with pytest.raises(InputError, match=r"jsonl, line 2: field 'plus_input' is missing"):
        measured("humaneval-plus", tmp_path)


@pytest.mark.parametrize("name", [name for name in SUITES if name != "humaneval"])
def test_what_is_not_at_hand_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("HALOFORGE_CACHE", str(tmp_path))
    with pytest.raises(InputError) as told:
        measured(name)
    suite, line = SUITES[name], str(told.value)
    assert "\n" not in line
    for part in (suite.files[0], suite.licence, suite.origin, f"{tmp_path}/suites/{name}"):
        assert part in line
    assert told.value.exit_code == 2


def test_an_unknown_suite_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown suite 'humanevil'; did you mean 'humaneval'"):
        check_suites(load_settings(None), ["humaneval", "humanevil"])
    with pytest.raises(InputError, match="did you mean 'mbpp'"):
        measured("mbbp")


def test_the_readme_lists_every_suite() -> None:
    text = README.read_text()
    for suite in SUITES.values():
        styles = ", ".join(suite.styles)
        row = f"| `{suite.name}` | {suite.title} | {suite.version} | {suite.licence} | {styles} |"
        assert row in text, row
        assert suite.origin.split(",")[0].split(" ")[0] in text
