"""`data validate`: which references are judged, in what language, and what verdicts say of them."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from haloforge import errors
from haloforge.data.problems import parse_problem
from haloforge.data.showing import asserts_of, names_called
from haloforge.data.validate import references
from haloforge.data.validate.found import Found
from haloforge.data.validate.references import _fault, _first, _samples, variant_in
from haloforge.data.validate.report import _where
from haloforge.data.validate.rows import Kind, check_row
from haloforge.data.validate.stage import FACTS
from haloforge.report.progress import Report
from haloforge.sampling import ProcessDiedError
from haloforge.schema import Problem
from haloforge.verify.settings import VerifySettings

TESTS = [{"stdin": "1", "stdout": "2"}]


def problem(**fields: Any) -> Problem:
    return parse_problem({"prompt": "x", "problem_id": "p", **fields}, "rows.jsonl, line 1")


def test_a_reference_is_judged_in_its_own_language() -> None:
    variant = variant_in(problem(tests=TESTS, language="python"), "C++17", own=False)
    assert isinstance(variant, Problem) and variant.language == "cpp"
    code = problem(test_code="assert f()", judge="function")
    variant = variant_in(code, "python3", own=False)
    assert isinstance(variant, Problem) and variant.language == "python"


@pytest.mark.parametrize(
    ("fields", "language", "why"),
    [
        ({"tests": TESTS}, "cobol", "no toolchain for language 'cobol'"),
        ({"test_code": "assert f()"}, "cpp", "judge 'function' is for Python"),
        ({"test_code": "x", "judge": "program", "language": "go"}, "rust", "its tests are in go"),
    ],
)
def test_a_reference_that_cannot_be_judged_says_why(
    fields: dict[str, Any], language: str, why: str
) -> None:
    assert variant_in(problem(**fields), language, own=False) == why


def test_a_verifier_of_the_user_s_own_judges_any_language() -> None:
    variant = variant_in(problem(tests=TESTS), "cobol", own=True)
    assert isinstance(variant, Problem) and variant.language == "cobol"
    program = problem(test_code="x", judge="program", language="go")
    assert "needs a 'language'" in str(variant_in(program, "cobol", own=True))


def test_a_refused_reference_travels_without_code(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    one = {"prompt": "x", "tests": TESTS, "reference": {"cobol": "STOP RUN.", "c/c": "x"}}
    rows = [one, {"prompt": "y"}, {**one, "prompt": "z", "reference": {"python": "print(2)"}}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = list(_samples([str(path)], np.array([True, False, True]), own=False))
    assert [each["sample_id"] for each in found] == ["0/cobol", "0/c/c", "2/python"]
    assert [each["code"] for each in found] == ["", "", "print(2)"]
    assert _fault(found[0], {}) == (Kind.UNJUDGED, "no toolchain for language 'cobol'")
    assert [Problem.model_validate_json(each["problem"]).language for each in found] == [
        None,
        None,
        "python",
    ]
    assert len(list(_samples([str(path)], np.array([True]), own=False))) == 2


@pytest.mark.parametrize(
    ("outcome", "diagnostics", "expected"),
    [
        ("passed", "", None),
        ("wrong_answer", "test 1: no\nmore", (Kind.REFERENCE, "wrong_answer (test 1: no)")),
        ("infra_error", "no g++", (Kind.UNJUDGED, "infra_error (no g++)")),
        (
            "infra_error",
            f"{errors.AT_FAULT}checker ended with status 1",
            (Kind.REFERENCE, "the problem's checker ended with status 1"),
        ),
    ],
)
def test_a_fault_of_the_tests_is_the_row_s_and_one_of_ours_is_not(
    outcome: str, diagnostics: str, expected: Any
) -> None:
    verdict = {"outcome": outcome, "diagnostics": diagnostics}
    assert _fault({"completion": None}, verdict) == expected


def test_a_pass_takes_the_first_rows_that_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "PASS_ROWS", 4)
    counts = np.array([2, 0, 3, 1, 9, 1])
    assert np.flatnonzero(_first(counts > 0, counts)).tolist() == [0]
    left = np.array([False, False, True, True, True, True])
    assert np.flatnonzero(_first(left, counts)).tolist() == [2, 3]
    left[[2, 3]] = False
    assert np.flatnonzero(_first(left, counts)).tolist() == [4]


@pytest.mark.parametrize(
    "code", ["(" * 5000 + ")" * 5000, "-" * 100_000 + "1", "f" + ".f" * 20_000]
)
def test_code_that_is_nested_too_deeply_is_a_fault_of_its_row(code: str) -> None:
    row = json.dumps({"prompt": "x", "test_code": code, "judge": "function"})
    [(kind, why)] = check_row(row, "r, line 1", None).faults
    assert kind is Kind.SCHEMA and "does not parse" in why
    with pytest.raises(ValueError, match="do not parse"):
        asserts_of(code)
    with pytest.raises(ValueError, match="do not parse"):
        names_called(code, None)


def test_what_was_under_way_where_a_process_died_is_judged_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.jsonl"
    row = {"prompt": "x", "tests": TESTS, "reference": {"python": "a", "cpp": "b"}}
    path.write_text("".join(json.dumps({**row, "prompt": n}) + "\n" for n in "abc"))
    found = Found((str(path),), tmp_path)
    found.facts, found.bad = np.zeros(3, FACTS), np.zeros(3, np.bool_)
    found.facts["references"] = 2
    passes = list[list[str]]()

    class Stored(list[Any]):
        def __init__(self, rows: Any, actors: int) -> None:
            super().__init__(rows())

        def dataset(self) -> Any:
            return list(self)

        def judged(self) -> None:
            pass

    def judged_rows(settings: Any, fleet: Any, samples: Any, *_: Any) -> Any:
        passes.append([sample["sample_id"] for sample in samples])
        for place, sample in enumerate(samples):
            if place == 3 and len(passes) == 1:
                raise ProcessDiedError("died")
            outcome = "wrong_answer" if sample["sample_id"] == "2/cpp" else "passed"
            yield sample, {"outcome": outcome, "diagnostics": "", "problem_id": "p"}

    monkeypatch.setattr(references, "PASS_ROWS", 4)
    monkeypatch.setattr(references, "StoredSamples", Stored)
    monkeypatch.setattr(references, "judged_rows", judged_rows)
    monkeypatch.setattr(references.ray, "put", lambda value: value)  # type: ignore[attr-defined]
    settings = SimpleNamespace(verify=VerifySettings())
    session: Any = SimpleNamespace(
        settings=settings, report=Report(), fleet=SimpleNamespace(max_actors=1)
    )
    assert references.judge_references(session, [str(path)], found) == 6
    assert passes == [
        ["0/python", "0/cpp", "1/python", "1/cpp"],
        ["1/python", "1/cpp", "2/python", "2/cpp"],
    ]
    assert found.bad.tolist() == [False, False, True]


def test_what_a_row_says_is_printed_on_one_line() -> None:
    told = _where({"file": "f.jsonl", "line": 3, "why": "field 'a\nb\x1b[2J'"})
    assert told == r"f.jsonl, line 3: field 'a\nb\x1b[2J'"
