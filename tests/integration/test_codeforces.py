"""Real C++ answers: those that g++ takes are those that the compile judge takes."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from haloforge.schema import Problem
from haloforge.verify.settings import VerifySettings
from haloforge.verify.verifier import Verifier

ANSWERS = Path(__file__).parents[3] / "shared" / "data" / "codeforces_cpp.jsonl"
DO_NOT_COMPILE = 5  # with g++ 12 and -std=c++17


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_as_many_compile_as_with_the_compiler_alone() -> None:
    if not ANSWERS.exists():
        pytest.skip(f"{ANSWERS} is not here")
    problem = Problem(problem_id="any", prompt="?", language="cpp")
    settings = VerifySettings(verifier="gcc", compile_wall_s=30, cache=False)
    verifier = Verifier(settings, {"any": problem})

    def verdict(line: str) -> dict[str, Any]:
        completion = f"```cpp\n{json.loads(line)['response']}\n```"
        return verifier.verify({"sample_id": "s", "problem_id": "any", "completion": completion})

    lines = ANSWERS.read_text().splitlines()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        verdicts = list(pool.map(verdict, lines))
    failed = {
        number: found["diagnostics"][:300]
        for number, found in enumerate(verdicts, 1)
        if not found["compiled"]
    }
    assert {found["outcome"] for found in verdicts} == {
        "compiled",
        "compiled_with_warnings",
        "compile_error",
    }
    assert (len(verdicts), len(failed)) == (373, DO_NOT_COMPILE), failed
