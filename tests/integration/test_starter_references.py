"""The bundled problems before the real judge: their references pass, wrong programs fail."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from haloforge.data.problems import STARTER_SPLITS, starter_problems
from haloforge.schema import Outcome, Problem
from haloforge.verify.references import check_references
from haloforge.verify.settings import VerifySettings
from haloforge.verify.verifier import Verifier

WRONG_PROGRAMS = Path(__file__).parents[1] / "unit" / "starter_wrong_programs.yaml"
SETTINGS = VerifySettings(run_wall_s=10, cache=False)  # a busy machine is no fault of a reference
EVERY = 32  # the sample that runs by default: one problem in so many


@pytest.fixture(scope="module")
def by_id() -> dict[str, Problem]:
    return {
        problem.problem_id: problem
        for split in STARTER_SPLITS
        for problem in starter_problems(split)
    }


def assert_references_pass(problems: list[Problem]) -> None:
    checked = check_references(problems, SETTINGS)
    assert len(checked) == 2 * len(problems)
    failed = [
        (problem_id, language, verdict.outcome, verdict.diagnostics)
        for problem_id, language, verdict in checked
        if verdict.outcome != Outcome.PASSED or verdict.warnings
    ]
    assert failed == []


def test_references_of_a_sample_pass(by_id: dict[str, Problem]) -> None:
    assert_references_pass(list(by_id.values())[::EVERY])


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_all_references_pass(by_id: dict[str, Problem]) -> None:
    assert_references_pass(list(by_id.values()))


def test_wrong_programs_fail(by_id: dict[str, Problem]) -> None:
    rows: list[dict[str, Any]] = yaml.safe_load(WRONG_PROGRAMS.read_text("utf-8"))
    problems = {
        row["problem_id"]: by_id[row["problem_id"]].model_copy(update={"language": row["language"]})
        for row in rows
    }
    verifier = Verifier(SETTINGS, problems)
    passed_unduly = []
    for row in rows:
        completion = f"```{row['language']}\n{row['program']}```"
        sample = {"sample_id": row["problem_id"], "problem_id": row["problem_id"]}
        verdict = verifier.verify({**sample, "completion": completion})
        if verdict["outcome"] != Outcome.WRONG_ANSWER:
            passed_unduly.append((row["problem_id"], verdict["outcome"], verdict["diagnostics"]))
        else:
            assert 0 <= verdict["tests_passed"] < verdict["tests_total"]
    assert passed_unduly == []
